"""Keys and values of a prefix that several rows continue: once per prefix, with gradient, beside checkpointed layers.

transformers' own caches grow with every call, so it takes them away from layers that recompute their activations in
the backward pass. The caches here answer a layer that runs again as they did the first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache


class PrefixKeysAndValues(DynamicCache):
    """What one forward pass over prefixes leaves: a layer that runs again changes nothing."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        # Contiguous, as in transformers' caches: products round by the layout of what they multiply.
        keys, values = (_in_compute_type(states).contiguous() for states in (key_states, value_states))
        if layer_idx == len(self.layers):
            with torch.no_grad():
                super().update(keys[..., :0, :], values[..., :0, :], layer_idx)  # makes the layer, without a copy
            layer: Any = self.layers[layer_idx]
            layer.keys, layer.values = keys, values
        return keys, values


class ReadOnlyPrefix(DynamicCache):
    """Rows that continue prefixes, the r-th prefix `owner[r]` (None: its own), once.

    Keys and values are copied to the rows inside the layer, so that a checkpointed one does not keep the copies.
    """

    def __init__(self, prefix: DynamicCache, owner: Int[Tensor, "R"] | None = None) -> None:
        super().__init__()
        self.layers, self.owner = prefix.layers, owner

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        layer: Any = self.layers[layer_idx]
        keys, values = layer.keys, layer.values
        if self.owner is not None:
            keys, values = keys[self.owner], values[self.owner]
        own = _in_compute_type(key_states), _in_compute_type(value_states)
        return torch.cat([keys, own[0]], dim=-2), torch.cat([values, own[1]], dim=-2)


def _in_compute_type(states: Tensor) -> Tensor:
    """Under autocast in its type, to which attention converts anyhow: rotary embeddings leave keys in float32."""
    device = states.device.type
    enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return states.to(torch.get_autocast_dtype(device)) if enabled else states


@contextmanager
def without_checkpointing(language: Any) -> Iterator[None]:
    """Inside, no layer recomputes its activations: transformers would take the cache from one that does."""
    recomputing = [m for m in language.modules() if m.training and getattr(m, "gradient_checkpointing", False)]
    try:
        for layer in recomputing:
            layer.training = False
        yield
    finally:
        for layer in recomputing:
            layer.training = True


@contextmanager
def checkpointing_with_cache(language: Any) -> Iterator[None]:
    """Inside, layers that recompute their activations do so beside a cache of this file; others run as they are."""
    layers = [m for m in language.layers if m.training and getattr(m, "gradient_checkpointing", False)]
    again = partial(
        checkpoint, use_reentrant=False, context_fn=lambda: (nullcontext(), without_checkpointing(language))
    )
    with without_checkpointing(language):
        try:
            for layer in layers:
                layer.forward = partial(again, layer.forward)
            yield
        finally:
            for layer in layers:
                del layer.forward
