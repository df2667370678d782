"""From a recipe's `rewards` to functions that can be called: by built-in name or by path, options bound, checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from motet.config.schema import ActKind, RewardConfig
from motet.errors import ConfigError, RewardError
from motet.lookup import Registry, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class BuiltIn:
    """A registered function; `options` are its parameters that recipes set, never filled from columns."""

    function: Callable[..., Any]
    options: frozenset[str]


BUILT_INS: Registry[BuiltIn] = Registry("reward", key="rewards.name")


def reward(name: str, *, options: Collection[str] = ()) -> Callable[[F], F]:
    """Register a reward function under a name that recipes can use; the function itself stays as it is."""

    def register(function: F) -> F:
        BUILT_INS.add(name, BuiltIn(function, frozenset(options)))
        return function

    return register


def built_in_rewards() -> dict[str, str]:
    """Every registered name with the first line of its documentation."""
    return {
        name: (inspect.getdoc(entry.function) or "").split("\n")[0] for name, entry in sorted(BUILT_INS.entries.items())
    }


@dataclass(frozen=True)
class BoundReward:
    """A reward ready to be called.

    `acts` are the acts that it speaks for and whose completions it is shown. `accepts` are the arguments that it takes
    from `prompts`, `completions` and the columns; None: all of them (its signature ends in `**columns`).
    """

    name: str
    weight: float
    acts: tuple[str, ...]
    function: Callable[..., Any]
    options: Mapping[str, Any]
    accepts: frozenset[str] | None

    def __call__(self, **arguments: list[Any]) -> Any:
        """Call the function with those of the arguments that it takes; an option hides a column of the same name."""
        taken = {name: value for name, value in arguments.items() if self.accepts is None or name in self.accepts}
        return self.function(**(taken | dict(self.options)))


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


def resolve(config: RewardConfig, scenario_acts: Mapping[str, ActKind], columns: Collection[str]) -> BoundReward:
    """The reward that a recipe asks for, on a scenario with these acts and data with these columns.

    Raises ConfigError for an unknown name, path, act or option; RewardError for a column that it needs and that is
    not in the data.
    """
    found = BUILT_INS.find(config.name)
    if not isinstance(found, BuiltIn) and (not callable(found) or inspect.isclass(found)):
        raise ConfigError(
            f"rewards.name={config.name!r} leads to {found!r}, which is no function.",
            fix="name a function f(prompts, completions, **columns) -> list[float | None].",
        )
    entry = found if isinstance(found, BuiltIn) else BuiltIn(found, frozenset())
    accepts = _bind(config, entry, columns, own=found is not entry)
    name = config.name.rpartition(":")[2] if ":" in config.name else config.name
    acts = _acts(config, scenario_acts)
    return BoundReward(name, config.weight, acts, entry.function, dict(config.options), accepts)


def _acts(config: RewardConfig, scenario_acts: Mapping[str, ActKind]) -> tuple[str, ...]:
    if config.acts is None:
        return tuple(scenario_acts)
    for act in config.acts:
        if act not in scenario_acts:
            raise ConfigError(
                f"rewards.acts of {config.name!r} names {act!r}, which the scenario does not perform; its acts are: "
                f"{', '.join(scenario_acts)}.{did_you_mean(act, scenario_acts)}",
                fix="name acts of the scenario, or leave rewards.acts out for all of them.",
            )
    if not config.acts:
        raise ConfigError(
            f"rewards.acts of {config.name!r} is empty.", fix="name an act, or leave it out for all of them."
        )
    return tuple(dict.fromkeys(config.acts))


def _bind(config: RewardConfig, entry: BuiltIn, columns: Collection[str], own: bool) -> frozenset[str] | None:
    """Check options and columns against the signature; what the function takes (None: anything)."""
    try:
        parameters = inspect.signature(entry.function).parameters.values()
    except (TypeError, ValueError):  # some C functions have no signature
        return None
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    options = set(named) - {"prompts", "completions"} if own else set(entry.options)
    for option in config.options:
        if option not in options and not (own and takes_anything and option not in named):
            there = f"its options are: {', '.join(sorted(options))}" if options else "it has none"
            raise ConfigError(
                f"rewards.options of {config.name!r} has {option!r}, which it does not take; {there}."
                f"{did_you_mean(option, options)}",
                fix="correct or remove the option.",
            )
    given = {"prompts", "completions", *columns, *config.options}
    if "image" in given:
        given.add("images")
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in given:
            raise RewardError(
                f"Reward {config.name!r} needs column {name!r}; the data has: {', '.join(sorted(columns))}."
                f"{did_you_mean(name, columns)}",
                fix=f"map a column to it with data.columns.{name}=NAME, or set rewards.options.{name}.",
            )
    return None if takes_anything and not entry.options else frozenset(named) - entry.options
