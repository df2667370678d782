"""Follow a generation while it runs: for servers that stream text, or that stop what nobody waits for any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from jaxtyping import Int
from torch import Tensor

TokenListener = Callable[[int, Int[Tensor, "N"]], None]
"""Called with a sequence of the batch, by its index, that has not ended, and its tokens so far."""

DenoisingListener = Callable[[], None]
"""Called before every denoising step of a batch."""

_LISTENER: ContextVar[TokenListener | None] = ContextVar("token_listener", default=None)
_DENOISING: ContextVar[DenoisingListener | None] = ContextVar("denoising_listener", default=None)


@contextmanager
def listen_to_tokens(listener: TokenListener, on_denoising_step: DenoisingListener | None = None) -> Iterator[None]:
    """Inside, on this thread, language models call `listener` every few tokens, of texts and of images, and diffusion
    models call `on_denoising_step`; what they raise ends the generation."""
    reset, reset_denoising = _LISTENER.set(listener), _DENOISING.set(on_denoising_step)
    try:
        yield
    finally:
        _LISTENER.reset(reset)
        _DENOISING.reset(reset_denoising)


def token_listener() -> TokenListener | None:
    """The present listener."""
    return _LISTENER.get()


def denoising_listener() -> DenoisingListener | None:
    """The present listener to denoising steps."""
    return _DENOISING.get()
