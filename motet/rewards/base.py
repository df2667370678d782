"""What rewards are: the registry of the built-in ones, those with models of their own, and one ready to be called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from motet.core.errors import RewardError
from motet.core.protocols import Policy
from motet.core.registry import Registry, registry
from motet.rewards.arguments import images_of, own_copies

F = TypeVar("F", bound=Callable[..., Any])


class ModelReward:
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

    def check_row(self, row: Mapping[str, Any]) -> None:
        """Raise DataError for a row that it could not judge; called with every row before a run begins."""

    def __call__(self, *_: Any, **columns: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class BuiltIn:
    """A registered function, or a class of `ModelReward`s; `options` are what recipes set, never filled from columns.

    `known` are the values that an option may have, where they can be listed: another is refused with the recipe.
    """

    function: Callable[..., Any]
    options: frozenset[str]
    known: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])


BUILT_INS: Registry[BuiltIn] = registry("reward")


def reward(name: str, *, options: Mapping[str, tuple[Any, ...]] | None = None) -> Callable[[F], F]:
    """Register a reward function, or a class of `ModelReward`s, under a name that recipes can use; it stays as it is.

    `options` are a function's options with the values that each may have.
    """

    def register(function: F) -> F:
        takes: Callable[..., Any] = function  # narrowing the type variable itself confuses pyright
        known = options or {}
        own = inspect.signature(takes).parameters if inspect.isclass(takes) else known
        BUILT_INS.add(name, BuiltIn(function, frozenset(own), known), owner=function.__module__)
        return function

    return register


def built_in_rewards() -> dict[str, str]:
    """Every registered name with the first line of its documentation."""
    functions = {name: getattr(entry, "function", entry) for name, entry in sorted(BUILT_INS.entries.items())}
    return {name: (inspect.getdoc(function) or "").split("\n")[0] for name, function in functions.items()}


@dataclass(frozen=True)
class BoundReward:
    """A reward ready to be called.

    `acts` are the acts that it speaks for; it is shown their completions, and those of the acts that it `sees`. `needs`
    are the columns that it cannot do without, `required` all parameters without a default. `accepts` are the arguments
    that it takes (`motet.rewards.arguments`) and the columns; None: all of them (its signature ends in `**columns`).
    `takes_policy`: its signature has a parameter `policy`, which `bind_policy` fills. `trusted`: it edits nothing that
    it is given, and so needs no copies. `timeout`: seconds that one call may take.
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
    required: frozenset[str] = frozenset()
    trusted: bool = False
    timeout: float | None = None

    def takes(self, argument: str) -> bool:
        """Whether the function is given this argument."""
        return self.accepts is None or argument in self.accepts

    @property
    def uses_reference(self) -> bool:
        """Whether it asks the policy's reference; see `ModelReward`."""
        return isinstance(self.function, ModelReward) and self.function.uses_reference

    @property
    def wants_tags(self) -> bool:
        """Whether it reads only what stands in `<answer>` tags: built-in rewards with the option `tagged`."""
        if isinstance(self.function, ModelReward):
            return getattr(self.function, "tagged", False) is True
        tagged = inspect.signature(self.function).parameters.get("tagged") if self.trusted else None
        return tagged is not None and self.options.get("tagged", tagged.default) is True

    def __call__(self, **arguments: Any) -> Any:
        """Call the function with those of the arguments that it takes; an option hides a column of the same name."""
        if self.takes_policy and "policy" not in self.options:
            raise RewardError(
                f"Reward {self.name!r} needs the policy, and was given none.", fix="call bind_policy(rewards, policy)."
            )
        taken = {name: value for name, value in arguments.items() if self.takes(name)}
        if self.takes("completion_images") and "completions" in arguments:
            taken["completion_images"] = images_of(arguments["completions"])
        if not self.trusted:
            taken = own_copies(taken)
        return self.function(**(taken | dict(self.options)))


def bind_policy(rewards: Sequence[BoundReward], policy: Policy) -> list[BoundReward]:
    """The rewards, ready to score this policy: models loaded, and a parameter `policy` filled where there is one."""
    for bound in rewards:
        if isinstance(bound.function, ModelReward):
            try:
                bound.function.prepare(policy)
            except SystemExit as stop:
                raise RewardError(
                    f"Reward {bound.name!r} called sys.exit({stop.code!r}) in prepare().", fix="raise an error instead."
                ) from stop
    return [replace(r, options={**r.options, "policy": policy}) if r.takes_policy else r for r in rewards]
