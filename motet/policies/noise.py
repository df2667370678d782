"""Random numbers by name: a trajectory's noise does not depend on the batch or the process that samples it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from motet.protocols import RandomKey


def uniforms(keys: Sequence[RandomKey], count: int) -> Float[Tensor, "B N"]:
    """`count` uniform numbers in [0, 1) for each key; longer draws extend shorter ones."""
    noise = np.empty((len(keys), count), np.float32)
    for row, key in enumerate(keys):
        seed = np.random.SeedSequence([number & 0xFFFFFFFF for number in key])
        noise[row] = np.random.Generator(np.random.Philox(seed)).random(count, dtype=np.float32)
    return torch.from_numpy(noise)
