"""What a loss is: a settings class, what it needs of a replay, and the loss of a micro-batch with its metrics.

One file per loss: subclass `Loss` (or `PolicyGradientLoss`), name its settings class, register it. That is all that
adding one takes:

    class Settings(LossSettings):
        scale: float = 1.0

    @register("loss", "reinforce")
    class Reinforce(Loss[Settings]):
        Settings = Settings

        def __call__(self, batch):
            loss = -(batch.advantages * batch.log_probs).sum() / batch.counts.num_actions
            return self.settings.scale * loss, {}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from motet.config.problem import Problem
from motet.config.schema import Recipe
from motet.config.section import Section
from motet.core.act_kinds import act_kind
from motet.core.protocols import RandomKey
from motet.core.trajectory import Act, DenoisingSteps
from motet.training.batches import DeviceStats, PackedBatch


class LossSettings(Section):
    """The options of a loss: what `algorithm.loss: {name: ..., option: value}` may say."""

    def problems(self, key: str) -> Iterator[Problem]:
        """Options that do not go together; `key` is where the loss is named."""
        yield from ()


S = TypeVar("S", bound=LossSettings)


@dataclass(frozen=True)
class Needs:
    """What a loss asks of replays beside log-probs, by name (`Replay.extras`): of the replay with gradient, of the one
    at the start of the update, and of the one under the reference weights."""

    current: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Sample:
    """One act to train on. `group` and `generation` say where it was sampled; `key` names its random numbers.

    `position` is its place in the rollout; samples of one position share a micro-batch.
    """

    act: Act
    advantage: float
    group: int
    generation: int
    position: int
    key: RandomKey


class Loss(ABC, Generic[S]):
    """The loss of one kind of act. `beta` is the coefficient of its KL, `weight` that of the loss in the sum of kinds.

    A loss is a sum over actions that it has divided by the counts of the whole optimizer step (`PackedBatch.counts`),
    so that cutting the step into micro-batches does not change the update (invariant 4 of docs/algorithms.md).
    """

    Settings: ClassVar[type[Any]] = LossSettings
    """The class of its options, with defaults and limits."""
    has_kl: ClassVar[bool] = False
    """Whether it adds a KL with the coefficient `beta` to the reference weights."""
    trains_on_pairs: ClassVar[bool] = False
    """Whether its samples are pairs of a chosen and a rejected act, which a dataset may give too."""
    act_metrics: ClassVar[frozenset[str]] = frozenset()
    """Metrics that are means over acts; the others are means over actions."""

    def __init__(self, settings: S, kind: str, beta: float = 0.0, weight: float = 1.0) -> None:
        self.settings, self.kind, self.beta, self.weight = settings, kind, beta, weight

    @property
    def of_denoising(self) -> bool:
        """Whether its acts are denoising trajectories, whose actions are Gaussian steps and not tokens."""
        return issubclass(act_kind(self.kind).act_class, DenoisingSteps)

    @property
    def zero_advantage_has_gradient(self) -> bool:
        """Whether an act of advantage 0 adds to the gradient even without a KL."""
        return False

    @property
    def corrects_rollouts(self) -> bool:
        """Whether it may be given acts of another distribution than the learner's: by importance weights, or because
        its gradient does not depend on what sampled them."""
        return False

    @property
    def needs_reference(self) -> bool:
        """Whether the acts are to be replayed under the reference weights."""
        return self.has_kl and self.beta > 0

    @property
    def entropy_quantile(self) -> float:
        """Share of the actions, those of the highest entropy in the step, that `PackedBatch.high_entropy` marks."""
        return 1.0

    def needs(self, with_reference: bool) -> Needs:
        """What it asks of replays beside log-probs; `with_reference`: the acts are replayed under the reference."""
        return Needs()

    def prepare(self, samples: Sequence[Sample]) -> list[Sample]:
        """The acts to train on, made of the sampled ones of its kind."""
        return list(samples)

    def is_masked(self, act: Act) -> bool:
        """Whether an act is left out of the loss, and of the counts of actions but not of acts."""
        return False

    def check(self, recipe: Recipe, key: str) -> Iterator[Problem]:
        """What in a recipe contradicts this loss; `key` is where the loss is named."""
        yield from ()

    @abstractmethod
    def __call__(self, batch: PackedBatch) -> tuple[Tensor, DeviceStats]:
        """The loss of a micro-batch, and metrics: sums over its actions (`act_metrics`: acts), `*_max` and `*_min`.

        Metrics are 0-d tensors on the device of the loss (they are fetched together, once per optimizer step) or plain
        numbers.
        """
