"""What tests of single optimizer steps share: the losses of an algorithm, and a batch of supervised acts."""

from motet.config import AlgorithmConfig, KindConfig
from motet.config.choice import Choice
from motet.training.batches import StepBatch
from motet.training.losses import resolve_loss
from motet.training.losses.base import LossSettings
from motet.training.losses.nll import NLLLoss

KINDS = ("text", "image", "denoising")


def algorithm_section(**settings):
    """The section `algorithm` of a recipe; whatever is not one of its keys is an option of the loss."""
    options = {name: settings.pop(name) for name in list(settings) if name not in AlgorithmConfig.model_fields}
    return {**settings, "loss": {"name": settings.get("loss", "grpo"), **options}}


def algorithm(**settings):
    """The same as a config, unscaled by default."""
    return AlgorithmConfig.model_validate(algorithm_section(**{"scale_rewards": "none", **settings}))


def kind_config(loss=None, beta=None, weight=1.0, **options):
    """The settings of one kind, with its own loss where one or an option of one is given."""
    own = Choice.of(loss or "grpo", **options) if loss or options else None
    return KindConfig(loss=own, beta=beta, weight=weight)


def losses(config=None):
    """The loss of each kind of act."""
    return {kind: resolve_loss(config or AlgorithmConfig(), kind) for kind in KINDS}


def supervised(acts, **weights):
    """What `PolicyOptimizer.step` takes for acts that a dataset gives: the batch and the losses."""
    return StepBatch(acts), {kind: NLLLoss(LossSettings(), kind, weight=weights.get(kind, 1.0)) for kind in KINDS}
