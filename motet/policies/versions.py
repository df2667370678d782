"""What transformers renamed between the versions that motet allows: one call that works with all of them."""

from __future__ import annotations

import inspect
from functools import cache as remembered
from typing import Any


def read_with_cache(language: Any, cache: Any, **inputs: Any) -> Any:
    """`language(**inputs)` that reads from a transformers cache and appends to it in place.

    The argument is `past_key_values` before transformers 5.24 and `cache` since; the old name goes away in 5.40. Take
    keys and values from the cache that was handed in: the attribute of the output was renamed too.
    """
    return language(**inputs, **{_cache_argument(type(language)): cache}, use_cache=True)


def enable_activation_checkpointing(model: Any) -> None:
    """Let a transformers model recompute activations in its backward pass; the method has a new name since 5.23."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@remembered
def _cache_argument(kind: type) -> str:
    """The name of the cache in `forward`; the decorators that accept the old one keep the signature."""
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"
