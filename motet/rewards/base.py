"""From a recipe's `rewards` to functions that can be called: by built-in name or by path, options bound, checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from motet.config.algorithm import ActKind
from motet.config.schema import RewardConfig
from motet.errors import ConfigError, RewardError
from motet.lookup import Registry, did_you_mean
from motet.protocols import Policy

F = TypeVar("F", bound=Callable[..., Any])


class Judge:
    """A reward with models or settings of its own: register a subclass, whose constructor's parameters are the options.

    The constructor sees that the options are right, so that a recipe is refused before anything is loaded; `prepare`
    loads; an instance is called like any reward function.
    """

    uses_reference: ClassVar[bool] | bool = False
    """Whether it asks `policy.reference()`: the run then freezes the starting weights even without a KL."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns that it cannot do without under its options, besides its signature's parameters without default."""
        return ()

    @property
    def sees(self) -> tuple[str, ...]:
        """Acts whose completions it is shown besides those of the acts that it speaks for, under its options."""
        return ()

    def prepare(self, policy: Policy) -> None:
        """Load models, onto the policy's device; called once, before the first sample."""

    def __call__(self, *_: Any, **columns: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class BuiltIn:
    """A registered function, or a class of `Judge`s; `options` are what recipes set, never filled from columns.

    `known` are the values that an option may have, where they can be listed: another is refused with the recipe.
    """

    function: Callable[..., Any]
    options: frozenset[str]
    known: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])


BUILT_INS: Registry[BuiltIn] = Registry("reward", key="rewards.name")


def reward(name: str, *, options: Mapping[str, tuple[Any, ...]] | None = None) -> Callable[[F], F]:
    """Register a reward function, or a class of `Judge`s, under a name that recipes can use; it stays as it is.

    `options` are a function's options with the values that each may have.
    """

    def register(function: F) -> F:
        takes: Callable[..., Any] = function  # narrowing the type variable itself confuses pyright
        known = options or {}
        own = inspect.signature(takes).parameters if inspect.isclass(takes) else known
        BUILT_INS.add(name, BuiltIn(function, frozenset(own), known))
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

    `acts` are the acts that it speaks for; it is shown their completions, and those of the acts that it `sees`. `needs`
    are the columns that it cannot do without. `accepts` are the arguments that it takes
    from `prompts`, `completions` and the columns; None: all of them (its signature ends in `**columns`).
    `takes_policy`: its signature has a parameter `policy`, which `bind_policy` fills.
    """

    name: str
    weight: float
    acts: tuple[str, ...]
    function: Callable[..., Any]
    options: Mapping[str, Any]
    accepts: frozenset[str] | None
    takes_policy: bool = False
    sees: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def uses_reference(self) -> bool:
        """Whether it asks the policy's reference; see `Judge`."""
        return isinstance(self.function, Judge) and self.function.uses_reference

    def __call__(self, **arguments: list[Any]) -> Any:
        """Call the function with those of the arguments that it takes; an option hides a column of the same name."""
        if self.takes_policy and "policy" not in self.options:
            raise RewardError(
                f"Reward {self.name!r} needs the policy, and was given none.", fix="call bind_policy(rewards, policy)."
            )
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


def bind_policy(rewards: Sequence[BoundReward], policy: Policy) -> list[BoundReward]:
    """The rewards, ready to score this policy: models loaded, and a parameter `policy` filled where there is one."""
    for bound in rewards:
        if isinstance(bound.function, Judge):
            bound.function.prepare(policy)
    return [replace(r, options={**r.options, "policy": policy}) if r.takes_policy else r for r in rewards]


def resolve(config: RewardConfig, scenario_acts: Mapping[str, ActKind], columns: Collection[str] | None) -> BoundReward:
    """The reward that a recipe asks for, on a scenario with these acts and data with these columns (None: not known).

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
    name = config.name.rpartition(":")[2] if ":" in config.name else config.name
    acts = _acts(config, scenario_acts)
    _check_options(config, entry, own=found is not entry)
    function: Any = entry.function
    options = dict(config.options)
    if inspect.isclass(function):
        function, options = function(**options), {}
    needs, sees = (function.needs, function.sees) if isinstance(function, Judge) else ((), ())
    fix = "name the scenario's act in rewards.options (act, to, draft, before or after)."
    _check_acts(f"rewards.options of {config.name!r} look at the act", sees, scenario_acts, fix)
    parameters = _parameters(function)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    required = [p.name for p in named.values() if p.default is p.empty and p.name not in ("policy", *options)]
    needs = tuple(name for name in (*required, *needs) if name not in ("prompts", "completions"))
    if columns is not None:
        _check_columns(config, needs, columns)
    takes_anything = not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters)
    bound = frozenset() if isinstance(function, Judge) else entry.options  # a judge's are not among its parameters
    accepts = None if takes_anything and not bound else frozenset(named) - bound - {"policy"}
    return BoundReward(name, config.weight, acts, function, options, accepts, "policy" in named, sees, needs)


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
    options = named - {"prompts", "completions", "policy"} if own else entry.options
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
    given = {"prompts", "completions", *columns}
    if "image" in given:
        given.add("images")
    for name in needed:
        if name not in given:
            raise RewardError(
                f"Reward {config.name!r} needs column {name!r}; the data has: {', '.join(sorted(columns))}."
                f"{did_you_mean(name, columns)}",
                fix=f"map a column to it with data.columns.{name}=NAME, or set rewards.options.{name}.",
            )
