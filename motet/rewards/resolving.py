"""Resolve a recipe's `rewards` to callables: by built-in name or by path, with validated options.

A path may lead to a reward function, to a callable object, or to a class or factory that makes one from the options,
such as TRL's `get_soft_overlong_punishment`: a function that takes none of the arguments of rewards.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from motet.config.schema import RewardConfig
from motet.core.errors import ConfigError, MotetError, RewardError
from motet.core.registry import did_you_mean, first_line
from motet.rewards.arguments import FOREIGN_ARGUMENTS, MOTET_ARGUMENTS
from motet.rewards.base import BUILT_INS, BoundReward, BuiltIn, ModelReward
from motet.rewards.failures import FailurePolicy
from motet.rewards.process import check_process

SHAPE = "f(prompts, completions, **columns) -> list[float | None]"


def resolve_all(
    configs: Sequence[RewardConfig], scenario_acts: Mapping[str, str], columns: Collection[str] | None
) -> list[BoundReward]:
    """`resolve` each; a repeated name gets a number, so that reports can distinguish them."""
    found: dict[str, BoundReward] = {}
    for config in configs:
        bound = resolve(config, scenario_acts, columns)
        name, number = bound.name, 2
        while name in found:
            name, number = f"{bound.name}#{number}", number + 1
        found[name] = replace(bound, name=name)
    return list(found.values())


def resolve(
    config: RewardConfig, scenario_acts: Mapping[str, str] | None, columns: Collection[str] | None
) -> BoundReward:
    """The reward of a recipe, for a scenario with these acts and data with these columns (None: unknown).

    Raises ConfigError for an unknown name, path, act or option; RewardError for a required column that is not in
    the data.
    """
    found = BUILT_INS.find(config.name)
    model = any(kind.__name__ == "PreTrainedModel" for kind in type(found).__mro__)
    if not isinstance(found, BuiltIn) and (not callable(found) or model):
        what = "a model, not a function" if model else "not a function"
        raise ConfigError(
            f"rewards.name={config.name!r} leads to {found!r:.80}, which is {what}.", fix=f"name {SHAPE}."
        )
    entry = found if isinstance(found, BuiltIn) else BuiltIn(found, frozenset())
    name = config.name.rpartition(":")[2] if ":" in config.name else config.name
    acts = _acts(config, scenario_acts)
    _check_options(config, entry, own=found is not entry)
    function: Any = entry.function
    options = dict(config.options)
    if inspect.isclass(function) or (found is not entry and _is_factory(function, options)):
        function, options = _make_reward(config, function), {}
    required_columns, reads_acts = (
        (function.required_columns, function.reads_acts) if isinstance(function, ModelReward) else ((), ())
    )
    fix = "name the scenario's act in rewards.options (act, to, draft, before or after)."
    _check_acts(f"rewards.options of {config.name!r} name the act", reads_acts, scenario_acts, fix)
    parameters = _parameters(function)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    required = [p.name for p in named.values() if p.default is p.empty and p.name not in ("policy", *options)]
    required_columns = tuple(name for name in (*required, *required_columns) if name not in MOTET_ARGUMENTS)
    if columns is not None:
        _check_columns(config, required_columns, columns)
    takes_anything = not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters)
    bound = (
        frozenset() if isinstance(function, ModelReward) else entry.options
    )  # of a ModelReward, they are parameters of the constructor
    accepts = None if takes_anything and not bound else frozenset(named) - bound - {"policy"}
    resolved = BoundReward(
        name, config.weight, acts, function, options, accepts, "policy" in named, reads_acts, required_columns,
        required=frozenset(required), trusted=found is entry, failure=FailurePolicy.of(config.on_failure),
        config=config, scenario_acts=scenario_acts or {},
    )  # fmt: skip
    if resolved.failure.process:
        check_process(resolved)
    return resolved


def _is_factory(function: Callable[..., Any], options: Mapping[str, Any]) -> bool:
    """Whether a function takes no argument of rewards, and the options provide all that it requires."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    if any(p.kind is p.VAR_KEYWORD or p.name in (*MOTET_ARGUMENTS, "images", "policy") for p in parameters):
        return False
    return all(p.name in options for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL)


def _make_reward(config: RewardConfig, make: Callable[..., Any]) -> Any:
    """The reward that a class or a factory makes from the recipe's options. Raises ConfigError when it cannot."""
    try:
        made = make(**config.options)
    except MotetError:
        raise
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in config.options.items())
        raise ConfigError(
            f"{config.name!r} cannot be created with rewards.options ({given or 'none'}): {first_line(error)}.",
            fix="correct rewards.options.",
        ) from error
    if not callable(made) or inspect.isclass(made):
        raise ConfigError(
            f"rewards.name={config.name!r} makes {made!r:.80}, not a reward function.", fix=f"return {SHAPE}."
        )
    return made


def _acts(config: RewardConfig, scenario_acts: Mapping[str, str] | None) -> tuple[str, ...]:
    if config.acts is None:
        return tuple(scenario_acts or ())
    if not config.acts:
        raise ConfigError(
            f"rewards.acts of {config.name!r} is empty.", fix="name an act, or leave it out for all of them."
        )
    fix = "name acts of the scenario, or leave rewards.acts out for all of them."
    _check_acts(f"rewards.acts of {config.name!r} names", config.acts, scenario_acts, fix)
    return tuple(dict.fromkeys(config.acts))


def _check_acts(who: str, acts: Collection[str], scenario_acts: Mapping[str, str] | None, fix: str) -> None:
    for act in acts:
        if scenario_acts is not None and act not in scenario_acts:
            raise ConfigError(
                f"{who} {act!r}, which the scenario does not perform; its acts are: "
                f"{', '.join(scenario_acts)}.{did_you_mean(act, scenario_acts)}",
                fix=fix,
            )


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some C functions have no signature
        return []


_RENAMED = {
    "tagged": "answer_tags",
    "untagged": "untagged_factor",
    "unclear": "on_invalid_gold",
    "judge": "vqa_model",
    "places": "match_cells",
}
"""Old names of options of built-in rewards."""


def _check_options(config: RewardConfig, entry: BuiltIn, own: bool) -> None:
    parameters = _parameters(entry.function)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_anything = own and (not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters))
    options = named - {*MOTET_ARGUMENTS, "policy"} if own else entry.options
    for option, value in config.options.items():
        if option in entry.known and not any(value is one or value == one for one in entry.known[option]):
            raise ConfigError(
                f"rewards.options.{option}={value!r} of {config.name!r} must be one of "
                f"{', '.join(map(str, entry.known[option]))}.",
                fix="choose one of them.",
            )
        if option not in options and not (takes_anything and option not in named):
            new = _RENAMED.get(option)
            if not own and new in options:
                raise ConfigError(
                    f"rewards.options.{option} of {config.name!r} was renamed to {new}.", fix=f"write {new}."
                )
            available = f"its options are: {', '.join(sorted(options))}" if options else "it has no options"
            raise ConfigError(
                f"rewards.options of {config.name!r} has {option!r}, which is not an option; {available}."
                f"{did_you_mean(option, options)}",
                fix="correct or remove the option.",
            )


def _check_columns(config: RewardConfig, needed: Collection[str], columns: Collection[str]) -> None:
    given = {*MOTET_ARGUMENTS, *columns}
    if "image" in given:
        given.add("images")
    missing = [name for name in needed if name not in given]
    for name in missing:
        if name in FOREIGN_ARGUMENTS:
            raise RewardError(
                f"Reward {config.name!r} takes `{name}`: {FOREIGN_ARGUMENTS[name]}.",
                fix=f"remove the argument, or give it a default; a reward is {SHAPE}.",
            )
    for name in missing:
        also = " (the images of the data; generated ones are `completion_images`)" if name == "images" else ""
        raise RewardError(
            f"Reward {config.name!r} needs column {name!r}{also}; the data has: {', '.join(sorted(columns))}."
            f"{did_you_mean(name, columns)}",
            fix=f"map a column to it with data.columns.{name}=NAME, or set rewards.options.{name}.",
        )
