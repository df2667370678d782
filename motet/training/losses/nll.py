"""The negative log-likelihood: the loss of supervised training."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from motet.config.problem import Problem
from motet.config.schema import Recipe
from motet.core.registry import register
from motet.training.batches import DeviceStats, PackedBatch
from motet.training.losses.base import Loss, LossSettings


@register("loss", "nll")
class NLLLoss(Loss[LossSettings]):
    """`-log_prob`, a mean over the actions of the acts that a dataset gives.

    The log-prob of a denoising act that a dataset gives is minus its flow-matching loss, so of such acts this is flow
    matching (Lipman et al., arXiv 2210.02747).
    """

    def check(self, recipe: Recipe, key: str) -> Iterator[Problem]:
        text = "nll does not use advantages; it is the loss of supervised training."
        yield Problem(key, text, "choose another loss, or use `motet sft`, where nll needs no naming.")

    def __call__(self, batch: PackedBatch) -> tuple[Tensor, DeviceStats]:
        loss = (-batch.log_probs).sum()
        return loss / batch.counts.num_actions, {"nll": loss.detach()}
