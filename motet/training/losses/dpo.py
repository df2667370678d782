"""DPO over acts: a chosen act gets likelier than a rejected one, measured from the reference weights.

    loss = -log sigmoid(beta (h_chosen - h_rejected)),    h = sum_a (log p_a - log p_ref_a) over the actions of an act

(Rafailov et al., arXiv 2305.18290, eq. 7), for text and image tokens (Emu3, arXiv 2409.18869; HermesFlow, arXiv
2502.12148). The log-prob of a noised image is minus its flow-matching loss, so for denoising acts the same formula is
Diffusion-DPO (Wallace et al., arXiv 2311.12908, eq. 14), where beta is its `beta T omega(lambda)`: both images are
noised at one level with one noise. Errors there are means over the latent's dimensions, so its beta is large.

Pairs are the best and the worst generation of a group by the advantage of the act, where these differ, or what a
dataset gives: `data.targets` and `data.rejected` of `motet sft`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from jaxtyping import Float
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn.functional import logsigmoid

from motet.core.registry import register
from motet.core.trajectory import DenoisingSteps
from motet.numerics.reductions import segment_sum
from motet.training.batches import DeviceStats, PackedBatch
from motet.training.losses.base import Loss, LossSettings, Sample
from motet.training.losses.renoising import renoise


class DPOSettings(LossSettings):
    """Options of DPO."""

    beta: PositiveFloat = 0.1
    """How far the policy is held to the reference; of denoising acts some thousands (Diffusion-DPO: 2000 to 5000)."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Probability that a preference is the wrong way round (conservative DPO)."""


@register("loss", "dpo")
class DPO(Loss[DPOSettings]):
    """The acts of a batch come in pairs: chosen, rejected, chosen, rejected. A mean over the pairs of the step."""

    Settings = DPOSettings
    trains_on_pairs = True
    act_metrics = frozenset({"margin", "accuracy", "reward_chosen", "reward_rejected"})

    @property
    def needs_reference(self) -> bool:
        return True

    @property
    def corrects_rollouts(self) -> bool:
        return True  # a preference is one whoever sampled the pair

    def prepare(self, samples: Sequence[Sample]) -> list[Sample]:
        """The best and the worst generation's acts of every group and name, as pairs."""
        labelled: dict[tuple[int, str], list[Sample]] = {}
        for one in samples:
            labelled.setdefault((one.group, one.act.name), []).append(one)
        return [sample for members in labelled.values() for sample in _pairs(members)]

    def __call__(self, batch: PackedBatch) -> tuple[Tensor, DeviceStats]:
        """The loss; reports the margin, the share of pairs with a positive one, and both implicit rewards."""
        log_ratios = segment_sum(batch.log_probs - batch.reference(), batch.owner, len(batch.positions))
        rewards = self.settings.beta * log_ratios
        chosen, rejected = rewards[0::2], rewards[1::2]
        margins = (chosen - rejected).detach()
        report = {"margin": margins, "accuracy": (margins > 0).float(), "reward_chosen": chosen}
        report["reward_rejected"] = rejected
        loss = dpo_loss(chosen - rejected, self.settings.label_smoothing).sum()
        pairs = batch.counts.num_acts / 2
        return loss / pairs, {name: 2 * values.detach().sum() for name, values in report.items()}


def dpo_loss(margins: Float[Tensor, "P"], label_smoothing: float = 0.0) -> Float[Tensor, "P"]:
    """`-(1 - s) log sigmoid(m) - s log sigmoid(-m)` of each pair's margin `m = beta (h_chosen - h_rejected)`."""
    return -(1.0 - label_smoothing) * logsigmoid(margins) - label_smoothing * logsigmoid(-margins)


def _pairs(members: Sequence[Sample]) -> Iterator[Sample]:
    """Chosen and rejected acts of one group and name, one after the other, at the position of the chosen one."""
    best = max(members, key=lambda one: one.advantage)
    worst = min(members, key=lambda one: one.advantage)
    if best.advantage == worst.advantage:
        return
    of_best, of_worst = ([one for one in members if one.generation == end.generation] for end in (best, worst))
    for chosen, rejected in zip(of_best, of_worst, strict=False):  # a scenario may repeat a name more or less often
        for one in (chosen, rejected):
            act = renoise(one.act, chosen.key) if isinstance(one.act, DenoisingSteps) else one.act
            yield replace(one, act=act, position=chosen.position)
