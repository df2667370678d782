"""All weights of a policy by name, and short digests of them: to see whether two processes have the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from motet.policies.shards import local_data

SAMPLED = 1024
"""Values of a tensor that its digest covers: all of a smaller one, else as many at equal distances."""


def modules_of(policy: Any) -> dict[str, nn.Module]:
    """The modules that a policy holds: its `parts`, and its own attributes that are modules; or it is one itself."""
    if isinstance(policy, nn.Module):
        return dict(policy.named_children())
    parts = getattr(policy, "parts", None)
    own = {name: value for name, value in vars(policy).items() if isinstance(value, nn.Module)}
    return {**(parts if isinstance(parts, Mapping) else {}), **own}


def named_parameters(policy: Any) -> list[tuple[str, nn.Parameter]]:
    """Every parameter of the policy once: those that `trainable()` names, and those of its modules."""
    found = [(f"{part}.{n}", p) for part, module in modules_of(policy).items() for n, p in module.named_parameters()]
    known: dict[int, tuple[str, nn.Parameter]] = {}
    for name, parameter in [*policy.trainable().items(), *found]:
        known.setdefault(id(parameter), (name, parameter))
    return list(known.values())


@torch.no_grad()
def weights_digest(policy: Any) -> dict[str, str]:
    """A digest of each parameter and buffer, by name. An optimizer step changes that of every weight it changes much.

    It covers `SAMPLED` values of each, so it takes milliseconds; a change elsewhere in a large tensor is not seen.
    """
    buffers = [(f"{part}.{n}", b) for part, module in modules_of(policy).items() for n, b in module.named_buffers()]
    tensors: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in [*named_parameters(policy), *buffers]:
        tensors.setdefault(id(tensor), (name, tensor))
    return {name: _digest(local_data(tensor)) for name, tensor in tensors.values()}


def _digest(values: Tensor) -> str:
    flat = values.detach().reshape(-1)
    sample = flat[:: max(1, flat.numel() // SAMPLED)].cpu().contiguous()
    content = sample.view(torch.uint8).numpy().tobytes() if sample.numel() else b""
    return hashlib.blake2b(f"{tuple(values.shape)} {values.dtype} ".encode() + content, digest_size=12).hexdigest()
