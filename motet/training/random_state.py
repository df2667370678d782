"""The global random generators of a process: Python's, numpy's, torch's and that of its GPU.

Whatever motet itself draws is keyed by (seed, step, task, generation). A user's reward or scenario, or a model with
dropout, may draw from these instead: their state is part of a checkpoint, as JSON, for every process of the run.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motet.core.errors import CheckpointError

RandomState = Mapping[str, Any]
"""What `capture` returns."""


def seed_generators(seed: int) -> None:
    """Seed all of them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture() -> RandomState:
    """The state of every generator, as JSON holds it; numpy's only if it is its usual Mersenne Twister."""
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {"python": [version, list(words), gauss], "torch": _to_text(torch.get_rng_state())}
    own = np.random.get_state(legacy=False)
    if isinstance(own, dict) and own["bit_generator"] == "MT19937":
        twister = own["state"]
        state["numpy"] = ["MT19937", twister["key"].tolist(), twister["pos"], own["has_gauss"], own["gauss"]]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = _to_text(torch.cuda.get_rng_state())
    return state


def restore_generators(state: RandomState) -> None:
    """Put a state back; a GPU's where this process has one. Raises KeyError, TypeError, ValueError or RuntimeError."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(_to_tensor(state["torch"]))
    if "numpy" in state:
        name, key, *rest = state["numpy"]
        np.random.set_state((name, np.array(key, dtype=np.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_to_tensor(state["cuda"]))


class RandomStates:
    """The states of all processes of a run, by rank, as of the last step that was done."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self._known: list[RandomState | None] = [None] * size

    def begin(self, seed: int, saved: Sequence[RandomState | None]) -> None:
        """Put this process's generators where a checkpoint saved them, or seed them: in a new run, on a further rank.

        Raises CheckpointError.
        """
        seed_generators(seed + self.rank)
        own = saved[self.rank] if self.rank < len(saved) else None
        if own is None:
            return
        try:
            restore_generators(own)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"The states of the random generators of rank {self.rank} cannot be restored: {error}.",
                fix="delete the newest checkpoint to resume from the one before it.",
            ) from error

    def news(self) -> RandomState | None:
        """This process's state if it has changed since the last `share`: what the others have to be told."""
        state = capture()
        return None if state == self._known[self.rank] else state

    def share(self, news: Sequence[RandomState | None]) -> list[RandomState | None]:
        """Take in what every process told; returns the states of all."""
        self._known = [new if new is not None else old for new, old in zip(news, self._known, strict=True)]
        return list(self._known)

    def with_own(self) -> list[RandomState | None]:
        """The present state of this process and the last known ones of the others."""
        return [capture() if rank == self.rank else state for rank, state in enumerate(self._known)]


def _to_text(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode("ascii")


def _to_tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
