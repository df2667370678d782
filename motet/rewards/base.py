"""Rewards: the registry of built-in ones, the base class of those with models, and a reward with its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from motet.config.schema import RewardConfig
from motet.core.errors import RewardError
from motet.core.protocols import Policy
from motet.core.registry import Registry, registry
from motet.rewards.arguments import deep_copies, images_of
from motet.rewards.failures import FailurePolicy
from motet.rewards.info import RewardInfo

F = TypeVar("F", bound=Callable[..., Any])


class ModelReward:
    """A reward with models or settings of its own: register a subclass, whose constructor's parameters are the options.

    The constructor validates the options, so that a recipe is rejected before anything is loaded; `prepare` loads; an
    instance is called like any reward function.
    """

    uses_reference: ClassVar[bool] | bool = False
    """Whether it uses `policy.reference()`: the run then freezes the starting weights even without a KL."""

    needs_policy: ClassVar[bool] | bool = False
    """Whether `prepare` or a call uses the policy for more than its device: it then runs beside the policy."""

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Columns that it requires under its options, besides its signature's parameters without default."""
        return ()

    @property
    def reads_acts(self) -> tuple[str, ...]:
        """Acts that it reads besides those that it is assigned to, under its options."""
        return ()

    def prepare(self, policy: Policy) -> None:
        """Load models, onto the policy's device; called once, before the first sample."""

    def check_row(self, row: Mapping[str, Any]) -> None:
        """Raise DataError for a row that it cannot score; called with every row before a run begins."""

    def __call__(self, *_: Any, **columns: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class BuiltIn:
    """A registered function, or a class of `ModelReward`s; `options` are set by recipes, never by columns.

    `known` are the values that an option may have, where they can be listed: a recipe with another one is rejected.
    """

    function: Callable[..., Any]
    options: frozenset[str]
    known: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])
    info: RewardInfo | None = None


BUILT_INS: Registry[BuiltIn] = registry("reward")


def reward(
    name: str, *, options: Mapping[str, tuple[Any, ...]] | None = None, info: RewardInfo | None = None
) -> Callable[[F], F]:
    """Register a reward function or a class of `ModelReward`s under a name for recipes; returns it unchanged.

    `options` are a function's options with the values that each may have; `info` is what `motet rewards` lists of it.
    """

    def register(function: F) -> F:
        takes: Callable[..., Any] = function  # narrowing the type variable itself confuses pyright
        known = options or {}
        own = inspect.signature(takes).parameters if inspect.isclass(takes) else known
        BUILT_INS.add(name, BuiltIn(function, frozenset(own), known, info), owner=function.__module__)
        return function

    return register


@dataclass(frozen=True)
class ListedReward:
    """A registered reward: the first paragraph of its documentation, and its record (None: a plug-in without one)."""

    meaning: str
    info: RewardInfo | None


def built_in_rewards() -> dict[str, ListedReward]:
    """Every registered reward by name, those of plug-ins too."""
    return {name: _listed(entry) for name, entry in sorted(BUILT_INS.entries.items())}


def _listed(entry: Any) -> ListedReward:
    function, info = (entry.function, entry.info) if isinstance(entry, BuiltIn) else (entry, None)
    first = (inspect.getdoc(function) or "").split("\n\n")[0]
    return ListedReward(" ".join(first.split()), info)


@dataclass(frozen=True)
class BoundReward:
    """A reward with its options, ready to be called.

    `acts` are the acts that it is assigned to; it reads their completions, and those of `reads_acts`.
    `required_columns` are the columns that it requires, `required` all parameters without a default. `accepts` are the
    arguments (`motet.rewards.arguments`) and columns that it takes; None: all (its signature ends in `**columns`).
    `takes_policy`: its signature has a parameter `policy`, which `bind_policy` fills. `trusted`: it does not modify its
    arguments, and so needs no copies. `failure`: what happens when a call fails. `config` and `scenario_acts` are what
    it was resolved from, for a worker process.
    """

    name: str
    weight: float
    acts: tuple[str, ...]
    function: Callable[..., Any]
    options: Mapping[str, Any]
    accepts: frozenset[str] | None
    takes_policy: bool = False
    reads_acts: tuple[str, ...] = ()
    required_columns: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()
    trusted: bool = False
    failure: FailurePolicy = field(default_factory=FailurePolicy)
    config: RewardConfig | None = None
    scenario_acts: Mapping[str, str] = field(default_factory=dict[str, str])

    def takes(self, argument: str) -> bool:
        """Whether the function takes this argument."""
        return self.accepts is None or argument in self.accepts

    @property
    def uses_reference(self) -> bool:
        """Whether it uses the policy's reference weights; see `ModelReward`."""
        return isinstance(self.function, ModelReward) and self.function.uses_reference

    @property
    def needs_policy(self) -> bool:
        """Whether it must run beside the policy; see `ModelReward`."""
        own = isinstance(self.function, ModelReward) and self.function.needs_policy
        return self.takes_policy or self.uses_reference or own

    @property
    def requires_answer_tags(self) -> bool:
        """Whether it scores only the text in `<answer>` tags: built-in rewards with the option `answer_tags`."""
        if isinstance(self.function, ModelReward):
            return getattr(self.function, "answer_tags", False) is True
        answer_tags = inspect.signature(self.function).parameters.get("answer_tags") if self.trusted else None
        return answer_tags is not None and self.options.get("answer_tags", answer_tags.default) is True

    def __call__(self, **arguments: Any) -> Any:
        """Call the function with the arguments that it takes; an option takes precedence over a column of its name."""
        if self.takes_policy and "policy" not in self.options:
            raise RewardError(
                f"Reward {self.name!r} needs the policy, but none is bound.", fix="call bind_policy(rewards, policy)."
            )
        taken = {name: value for name, value in arguments.items() if self.takes(name)}
        if self.takes("completion_images") and "completions" in arguments:
            taken["completion_images"] = images_of(arguments["completions"])
        if not self.trusted:
            taken = deep_copies(taken)
        return self.function(**(taken | dict(self.options)))


def bind_policy(rewards: Sequence[BoundReward], policy: Policy) -> list[BoundReward]:
    """The rewards with their models loaded, and with the policy bound to a parameter `policy` where there is one.

    Those of `on_failure.process` are called in worker processes, which load the models.
    """
    for bound in rewards:
        if isinstance(bound.function, ModelReward) and not bound.failure.process:
            try:
                bound.function.prepare(policy)
            except SystemExit as stop:
                raise RewardError(
                    f"Reward {bound.name!r} called sys.exit({stop.code!r}) in prepare().", fix="raise an error instead."
                ) from stop
    return [_bound(reward, policy) for reward in rewards]


def _bound(reward: BoundReward, policy: Policy) -> BoundReward:
    if reward.failure.process:
        from motet.rewards.models import device_of
        from motet.rewards.process import ProcessReward  # which is made of bound rewards

        return replace(reward, function=ProcessReward(reward, str(device_of(policy))), options={}, trusted=True)
    return replace(reward, options={**reward.options, "policy": policy}) if reward.takes_policy else reward
