"""The static engine on a bare Janus and padded prompts, for `motet bench rollout`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from motet.core.trajectory import Encoding, Sampling
from motet.policies.generation.sampling import FusedModel
from motet.policies.generation.static_sampler import StaticSampler
from motet.policies.janus.adapter import JanusAdapter

if TYPE_CHECKING:
    from motet.evaluation.bench_rollout import Prompts


class BareAdapter(JanusAdapter):
    """A Janus without a processor, whose texts do not end."""

    stop_ids: tuple[int, ...] = (-1,)  # no token

    def __init__(self, model: Any) -> None:
        self.model = model
        self.encoder: Any = SimpleNamespace(image_id=model.config.image_token_id)
        self.num_image_tokens = model.config.vision_config.num_image_tokens


def sample_static(model: Any, task: str, prompts: Prompts, uniforms: Tensor, sampling: Sampling) -> Int[Tensor, "B N"]:
    """Up to N tokens after each prompt, including the work after a weight update."""
    adapter = BareAdapter(model)
    guided = sampling.guidance != "none"
    encodings = [
        Encoding(ids[kept].cpu(), null_ids=uncond[kept].cpu() if guided else None)
        for ids, uncond, kept in zip(prompts.ids, prompts.uncond_ids, prompts.mask, strict=True)
    ]
    sampler = StaticSampler(FusedModel.from_adapter(adapter, torch.float32))
    return sampler.sample(adapter, encodings, task, uniforms, sampling).ids
