"""Conditions of many rows as the batches that transformers take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from motet.core.errors import ConfigError
from motet.policies.diffusion.models.base import Condition


def check_condition(condition: Condition, name: str, *, edits: bool, takes_pooled: bool) -> None:
    """Raises ConfigError for sources where the class `name` edits none, and for a pooled vector too many or missing."""
    if condition.sources and not edits:
        raise ConfigError(
            f"A condition has {len(condition.sources)} sources, but this {name} does not edit images.",
            fix="use a checkpoint that edits (FLUX.1-Kontext, FLUX.2, Qwen-Image-Edit), or a SANA or SD3 with a "
            "source_adapter, as scripts/make_unified.py makes one.",
        )
    if (condition.pooled is not None) != takes_pooled:
        raise ConfigError(
            f"The {name} takes {'a' if takes_pooled else 'no'} pooled vector with each condition.",
            fix="build conditions as the denoiser's pooled_width says.",
        )


def to_device_dtype(condition: Condition, weight: Tensor) -> Condition:
    """The condition on the device and in the type of a weight."""
    mask, vector = condition.mask, condition.pooled
    return Condition(
        condition.embeddings.to(weight),
        None if mask is None else mask.to(weight.device),
        None if vector is None else vector.to(weight),
        tuple(source.to(weight) for source in condition.sources),
    )


def drop_masked(condition: Condition) -> Condition:
    """The condition without the embeddings that do not count."""
    mask = condition.mask
    return condition if mask is None else replace(condition, embeddings=condition.embeddings[mask], mask=None)


def pad_embeddings(conditions: Sequence[Condition]) -> tuple[Float[Tensor, "B L D"], Bool[Tensor, "B L"]]:
    """Embeddings of any lengths as one batch, zeros behind the shorter ones, and which of them count."""
    longest = max(len(condition.embeddings) for condition in conditions)
    first = conditions[0].embeddings
    embeddings = torch.stack(
        [nn.functional.pad(c.embeddings, (0, 0, 0, longest - len(c.embeddings))) for c in conditions]
    )
    mask = torch.zeros(len(conditions), longest, dtype=torch.bool, device=first.device)
    for row, condition in enumerate(conditions):
        length = len(condition.embeddings)
        mask[row, :length] = True if condition.mask is None else condition.mask
    return embeddings, mask


def stack_embeddings(conditions: Sequence[Condition]) -> Float[Tensor, "B L D"]:
    """Embeddings of one length as one batch."""
    return torch.stack([condition.embeddings for condition in conditions])


def stack_pooled(conditions: Sequence[Condition]) -> Float[Tensor, "B E"]:
    """The pooled vectors of all rows."""
    return torch.stack([condition.pooled for condition in conditions if condition.pooled is not None])
