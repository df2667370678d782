"""From a recipe's `rewards` to functions that can be called: by built-in name or by path, options bound, checked.

A path may lead to a reward function, to an object that can be called like one, or to what makes one out of the options:
a class, or a factory such as TRL's `get_soft_overlong_punishment`, which takes nothing that a reward is given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from motet.config.algorithm import ActKind
from motet.config.schema import RewardConfig
from motet.core.errors import ConfigError, MotetError, RewardError
from motet.core.registry import did_you_mean, first_line
from motet.rewards.arguments import ELSEWHERE, GIVEN
from motet.rewards.base import BUILT_INS, BoundReward, BuiltIn, ModelReward

SHAPE = "f(prompts, completions, **columns) -> list[float | None]"


def resolve_all(
    configs: Sequence[RewardConfig], scenario_acts: Mapping[str, ActKind], columns: Collection[str]
) -> list[BoundReward]:
    """`resolve` each; a name that comes again gets a number, so that reports can tell them apart."""
    found: dict[str, BoundReward] = {}
    for config in configs:
        bound = resolve(config, scenario_acts, columns)
        name, number = bound.name, 2
        while name in found:
            name, number = f"{bound.name}#{number}", number + 1
        found[name] = replace(bound, name=name)
    return list(found.values())


def resolve(config: RewardConfig, scenario_acts: Mapping[str, ActKind], columns: Collection[str] | None) -> BoundReward:
    """The reward that a recipe asks for, on a scenario with these acts and data with these columns (None: not known).

    Raises ConfigError for an unknown name, path, act or option; RewardError for a column that it needs and that is
    not in the data.
    """
    found = BUILT_INS.find(config.name)
    model = any(kind.__name__ == "PreTrainedModel" for kind in type(found).__mro__)
    if not isinstance(found, BuiltIn) and (not callable(found) or model):
        what = "a model, which TRL calls by itself and motet does not" if model else "not a function"
        raise ConfigError(
            f"rewards.name={config.name!r} leads to {found!r:.80}, which is {what}.", fix=f"name {SHAPE}."
        )
    entry = found if isinstance(found, BuiltIn) else BuiltIn(found, frozenset())
    name = config.name.rpartition(":")[2] if ":" in config.name else config.name
    acts = _acts(config, scenario_acts)
    _check_options(config, entry, own=found is not entry)
    function: Any = entry.function
    options = dict(config.options)
    if inspect.isclass(function) or (found is not entry and _makes_rewards(function, options)):
        function, options = _made(config, function), {}
    needs, sees = (function.needs, function.sees) if isinstance(function, ModelReward) else ((), ())
    fix = "name the scenario's act in rewards.options (act, to, draft, before or after)."
    _check_acts(f"rewards.options of {config.name!r} look at the act", sees, scenario_acts, fix)
    parameters = _parameters(function)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    required = [p.name for p in named.values() if p.default is p.empty and p.name not in ("policy", *options)]
    needs = tuple(name for name in (*required, *needs) if name not in GIVEN)
    if columns is not None:
        _check_columns(config, needs, columns)
    takes_anything = not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters)
    bound = (
        frozenset() if isinstance(function, ModelReward) else entry.options
    )  # a judge's are not among its parameters
    accepts = None if takes_anything and not bound else frozenset(named) - bound - {"policy"}
    return BoundReward(
        name, config.weight, acts, function, options, accepts, "policy" in named, sees, needs,
        required=frozenset(required), trusted=found is entry, timeout=config.timeout,
    )  # fmt: skip


def _makes_rewards(function: Callable[..., Any], options: Mapping[str, Any]) -> bool:
    """Whether a function takes none of what rewards are given, and all that it requires is among the options."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    if any(p.kind is p.VAR_KEYWORD or p.name in (*GIVEN, "images", "policy") for p in parameters):
        return False
    return all(p.name in options for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL)


def _made(config: RewardConfig, make: Callable[..., Any]) -> Any:
    """What a class or a factory makes of the recipe's options. Raises ConfigError when it cannot."""
    try:
        made = make(**config.options)
    except MotetError:
        raise
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in config.options.items())
        raise ConfigError(
            f"{config.name!r} cannot be made with rewards.options ({given or 'none'}): {first_line(error)}.",
            fix="correct rewards.options.",
        ) from error
    if not callable(made) or inspect.isclass(made):
        raise ConfigError(
            f"rewards.name={config.name!r} makes {made!r:.80}, not a reward function.", fix=f"return {SHAPE}."
        )
    return made


def _acts(config: RewardConfig, scenario_acts: Mapping[str, ActKind]) -> tuple[str, ...]:
    if config.acts is None:
        return tuple(scenario_acts)
    if not config.acts:
        raise ConfigError(
            f"rewards.acts of {config.name!r} is empty.", fix="name an act, or leave it out for all of them."
        )
    fix = "name acts of the scenario, or leave rewards.acts out for all of them."
    _check_acts(f"rewards.acts of {config.name!r} names", config.acts, scenario_acts, fix)
    return tuple(dict.fromkeys(config.acts))


def _check_acts(who: str, acts: Collection[str], scenario_acts: Mapping[str, ActKind], fix: str) -> None:
    for act in acts:
        if act not in scenario_acts:
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


def _check_options(config: RewardConfig, entry: BuiltIn, own: bool) -> None:
    parameters = _parameters(entry.function)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_anything = own and (not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters))
    options = named - {*GIVEN, "policy"} if own else entry.options
    for option, value in config.options.items():
        if option in entry.known and not any(value is one or value == one for one in entry.known[option]):
            raise ConfigError(
                f"rewards.options.{option}={value!r} of {config.name!r} is none of "
                f"{', '.join(map(str, entry.known[option]))}.",
                fix="choose one of them.",
            )
        if option not in options and not (takes_anything and option not in named):
            there = f"its options are: {', '.join(sorted(options))}" if options else "it has none"
            raise ConfigError(
                f"rewards.options of {config.name!r} has {option!r}, which it does not take; {there}."
                f"{did_you_mean(option, options)}",
                fix="correct or remove the option.",
            )


def _check_columns(config: RewardConfig, needed: Collection[str], columns: Collection[str]) -> None:
    given = {*GIVEN, *columns}
    if "image" in given:
        given.add("images")
    missing = [name for name in needed if name not in given]
    for name in missing:
        if name in ELSEWHERE:
            raise RewardError(
                f"Reward {config.name!r} asks for `{name}`: {ELSEWHERE[name]}.",
                fix=f"take the argument out, or give it a default; a reward is {SHAPE}.",
            )
    for name in missing:
        also = " (the pictures of the data; drawn ones are `completion_images`)" if name == "images" else ""
        raise RewardError(
            f"Reward {config.name!r} needs column {name!r}{also}; the data has: {', '.join(sorted(columns))}."
            f"{did_you_mean(name, columns)}",
            fix=f"map a column to it with data.columns.{name}=NAME, or set rewards.options.{name}.",
        )
