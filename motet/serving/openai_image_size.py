"""The size of the images that a policy generates."""

from __future__ import annotations

import torch

from motet.core.act_kinds import kinds_making
from motet.core.protocols import Policy
from motet.policies.composite import CompositePolicy
from motet.policies.diffusion.policy import DiffusionPolicy
from motet.policies.generation.policy import ImageTokenPolicy


def image_size(policy: Policy) -> tuple[int, int] | None:
    """Width and height in pixels; None where it generates none, or does not say."""
    kind = next(iter(kinds_making("image", policy.kinds)), None)
    member = policy
    if isinstance(policy, CompositePolicy):
        member = policy.image_policy if kind == "denoising" else policy.text_policy
    if isinstance(member, DiffusionPolicy):
        return member.generator.width, member.generator.height
    if isinstance(member, ImageTokenPolicy):
        with torch.no_grad():
            tokens = torch.zeros(1, member.num_image_tokens, dtype=torch.long, device=member.device)
            return member.adapter.decode_images(tokens)[0].size
    return None
