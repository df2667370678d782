"""Random numbers by name: a trajectory's noise does not depend on the batch or the process that samples it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from motet.core.protocols import RandomKey
from motet.numerics.transfers import to_device


def uniforms(keys: Sequence[RandomKey], count: int) -> Float[Tensor, "B N"]:
    """`count` uniform numbers in [0, 1) for each key; longer draws extend shorter ones."""
    noise = np.empty((len(keys), count), np.float32)
    for row, key in enumerate(keys):
        noise[row] = _generator(key).random(count, dtype=np.float32)
    return torch.from_numpy(noise)


def action_uniforms(keys: Sequence[RandomKey], count: int, device: torch.device) -> Float[Tensor, "B N"]:
    """As `uniforms`, but float64 with 53 random bits, so that no token is too unlikely to be drawn.

    On MPS, which has nothing wider, float32.
    """
    if device.type == "mps":
        return to_device(uniforms(keys, count), device)
    drawn = [_generator(key).random(count) for key in keys]
    return to_device(torch.from_numpy(np.stack(drawn) if drawn else np.empty((0, count))), device)


class KeyedNormal:
    """Standard normal noise of one shape for each key, draw after draw; a key's n-th draw is the same in any batch.

    Its numbers are others than those of `uniforms` for the same key.
    """

    def __init__(self, keys: Sequence[RandomKey], shape: Sequence[int]) -> None:
        self._shape = tuple(shape)
        seeds = [_seed(key) for key in keys]
        self._generators = [np.random.Generator(np.random.Philox(seed.spawn(1)[0])) for seed in seeds]

    def next(self) -> Float[Tensor, "B *D"]:
        """The next draw of every key, float32."""
        drawn = [generator.standard_normal(self._shape, dtype=np.float32) for generator in self._generators]
        return torch.from_numpy(np.stack(drawn))


def _seed(key: RandomKey) -> np.random.SeedSequence:
    return np.random.SeedSequence([number & 0xFFFFFFFF for number in key])


def _generator(key: RandomKey) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(_seed(key)))
