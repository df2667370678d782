"""Follow a generation while it runs: for servers that stream text, or that stop what nobody waits for any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from jaxtyping import Int
from torch import Tensor

TokenListener = Callable[[int, Int[Tensor, "N"]], None]
"""Called with a sequence of the batch, by its index, that has not ended, and its tokens so far."""

_LISTENER: ContextVar[TokenListener | None] = ContextVar("token_listener", default=None)


@contextmanager
def listen_to_tokens(listener: TokenListener) -> Iterator[None]:
    """Inside, on this thread, language models call `listener` every few tokens; what it raises ends the generation."""
    reset = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(reset)


def token_listener() -> TokenListener | None:
    """The present listener."""
    return _LISTENER.get()
