"""What tests of single optimizer steps share: the losses of an algorithm, and a batch of supervised acts."""

from motet.config import AlgorithmConfig
from motet.training.batches import StepBatch
from motet.training.losses import resolve_loss
from motet.training.losses.base import LossSettings
from motet.training.losses.nll import NLLLoss

KINDS = ("text", "image", "denoising")


def losses(config=None):
    """The loss of each kind of act."""
    return {kind: resolve_loss(config or AlgorithmConfig(), kind) for kind in KINDS}


def supervised(acts, **weights):
    """What `PolicyOptimizer.step` takes for acts that a dataset gives: the batch and the losses."""
    return StepBatch(acts), {kind: NLLLoss(LossSettings(), kind, weight=weights.get(kind, 1.0)) for kind in KINDS}
