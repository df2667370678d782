"""What the log-probs of an act should be, teacher-forced through transformers' own modules alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from motet.core.trajectory import Act, ImageTokens
from motet.policies.janus import JanusPolicy

sound_transformers = pytest.mark.skipif(
    tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 23),
    reason="an older transformers is no reference: its processor loses spaces, its generate fails",
)
"""Marks comparisons with transformers' own processor and sampler; motet itself works with 5.0 and later."""


@torch.no_grad()
def teacher_forced(policy: JanusPolicy, act: Act) -> Tensor:
    """`[N]` log-probs of the act's scoring distribution."""
    logits = branch_logits(policy.model, act, act.encoding.ids, act.encoding.pixels)
    if act.sampling.guidance == "guided":
        null = branch_logits(policy.model, act, unconditional_ids(policy, act.encoding.ids), None)
        logits = null + act.sampling.guidance_scale * (logits - null)
    probs = torch.softmax(logits / (act.sampling.temperature or 1.0), dim=-1)
    probs = truncated(probs, act.sampling.top_k, act.sampling.top_p, act.sampling.min_p)
    return probs.gather(1, act.ids.unsqueeze(1)).squeeze(1).log()


def branch_logits(model: Any, act: Act, context: Tensor, pixels: Tensor | None) -> Tensor:
    """`[N, V]` logits of one branch, each action's from the position before it.

    Not through `model(input_ids=...)`: it takes an image placeholder among the sampled words for a picture.
    """
    words = model.get_input_embeddings()
    drawn = isinstance(act, ImageTokens)
    read, actions = words(context), model.prepare_embeddings_for_image_generation(act.ids) if drawn else words(act.ids)
    if pixels is not None:
        read[context == model.config.image_token_id] = model.model.get_image_features(pixels).pooler_output.flatten(
            0, 1
        )
    hidden = model.model.language_model(inputs_embeds=torch.cat([read, actions])[None]).last_hidden_state[0]
    head = model.model.generation_head if drawn else model.lm_head
    return head(hidden[len(context) - 1 : -1])


def unconditional_ids(policy: JanusPolicy, context: Tensor) -> Tensor:
    """As transformers' generate makes them: all but BOS and begin-of-image becomes padding, which is attended."""
    config = policy.model.generation_config
    kept = (context == config.bos_token_id) | (context == config.generation_kwargs["boi_token_id"])
    return torch.where(kept, context, config.pad_token_id)


def truncated(probs: Tensor, top_k: int | None, top_p: float | None, min_p: float | None = None) -> Tensor:
    """Probabilities `[N, V]` after top-k, top-p and min-p, row by row."""
    if top_k is None and top_p is None and min_p is None:
        return probs
    rows = []
    for row in probs:
        order = row.argsort(descending=True).tolist()[: top_k or len(row)]
        kept, mass, total = [], 0.0, float(row[order].sum())
        for token in order:
            if (top_p is not None and mass >= top_p) or (min_p is not None and row[token] < min_p * row.max()):
                break
            kept.append(token)
            mass += float(row[token]) / total
        mask = torch.zeros_like(row, dtype=torch.bool)
        mask[kept] = True
        rows.append(torch.where(mask, row, 0.0) / row[kept].sum())
    return torch.stack(rows)
