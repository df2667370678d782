"""From a recipe to the loss of each kind of act."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from motet.config import AlgorithmConfig, KindConfig, Recipe
from motet.config.error_messages import to_error
from motet.config.options import read_options
from motet.config.problem import Problem
from motet.core.act_kinds import ACT_KINDS, act_kind
from motet.core.registry import Registry, registry
from motet.training.advantage_estimators import resolve_advantage
from motet.training.batches import DeviceStats, PackedBatch
from motet.training.losses.base import Loss, LossSettings

LOSSES: Registry[type[Loss[Any]]] = registry("loss")


def kind_config(algorithm: AlgorithmConfig, kind: str) -> KindConfig:
    """The settings of a kind of act: `algorithm.per_kind`, over the defaults of the kind's own record."""
    own = algorithm.per_kind.get(kind)
    given = {} if own is None else own.model_dump(exclude_unset=True)
    return KindConfig.model_validate({**act_kind(kind).loss, **given})


def resolve_loss(algorithm: AlgorithmConfig, kind: str) -> Loss[Any]:
    """The loss of acts of this kind: that of `algorithm.per_kind`, else `algorithm.loss`.

    Raises ConfigError that names the key, for an unknown name and for options that the loss does not accept.
    """
    own, key = kind_config(algorithm, kind), loss_key(algorithm, kind)
    choice = own.loss or algorithm.loss
    entry: Any = LOSSES.find(choice.name)
    loss: type[Loss[Any]] = entry if isinstance(entry, type) else _class_of(entry)
    settings = read_options(choice, loss.Settings, key)
    if problems := list(settings.problems(key)):
        raise to_error(problems, f"{key}={choice.name}")
    return loss(settings, kind, algorithm.beta if own.beta is None else own.beta, own.weight)


def check_algorithm(algorithm: AlgorithmConfig) -> None:
    """Raise ConfigError for a loss or an advantage estimator that does not exist, or whose options are wrong."""
    resolve_advantage(algorithm)
    for kind in ACT_KINDS.entries:
        resolve_loss(algorithm, kind)


def resolve_losses(recipe: Recipe, kinds: Iterable[str]) -> dict[str, Loss[Any]]:
    """The losses of these kinds. Raises ConfigError when one of them contradicts the recipe."""
    algorithm = recipe.algorithm
    losses: dict[str, Loss[Any]] = {kind: resolve_loss(algorithm, kind) for kind in kinds}
    problems = [problem for kind, loss in losses.items() for problem in loss.check(recipe, loss_key(algorithm, kind))]
    for kind, loss in losses.items():
        if loss.beta and not loss.has_kl:
            own = algorithm.per_kind.get(kind)
            key = "algorithm.beta" if own is None or own.beta is None else f"algorithm.per_kind.{kind}.beta"
            text = f"is {loss.beta:g}, but the loss of {kind} acts has no KL to the reference."
            problems.append(Problem(key, text, f"set algorithm.per_kind.{kind}.beta to 0, or choose another loss."))
    if algorithm.reference_sync is not None and not any(loss.needs_reference for loss in losses.values()):
        text = "moves the reference, but no loss of this run has one: algorithm.beta is 0."
        problems.append(Problem("algorithm.reference_sync", text, "set algorithm.beta, or remove it."))
    if problems:
        raise to_error(list(dict.fromkeys(problems)), "the recipe")
    return losses


def loss_key(algorithm: AlgorithmConfig, kind: str) -> str:
    """Where the loss of a kind is named."""
    return "algorithm.loss" if kind_config(algorithm, kind).loss is None else f"algorithm.per_kind.{kind}.loss"


def _class_of(function: Callable[[PackedBatch], tuple[Tensor, DeviceStats]]) -> type[Any]:
    """A loss without options, of a function that takes a batch."""

    class FunctionLoss(Loss[LossSettings]):
        def __call__(self, batch: PackedBatch) -> tuple[Tensor, DeviceStats]:
            return function(batch)

    return FunctionLoss
