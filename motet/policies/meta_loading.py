"""Build a model without its weights, on torch's meta device, in processes that another one will send them to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_without_weights: ContextVar[bool] = ContextVar("without_weights", default=False)


def loads_without_weights() -> bool:
    """Whether models of transformers are built on the meta device now."""
    return _without_weights.get()


@contextmanager
def loading_without_weights() -> Iterator[None]:
    """Inside, `motet.load_policy` reads configs, processors and the names of a language model's weights, no more."""
    token = _without_weights.set(True)
    try:
        yield
    finally:
        _without_weights.reset(token)
