"""What rewards are bound to where there is no policy: it has a device for their models, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import Parameter

from motet.core.errors import RewardError
from motet.core.protocols import Replay, Request
from motet.core.sampling import Sampling
from motet.core.trajectory import Act


class NoPolicy:
    """A `Policy` without a model, on a device. Every use beyond the device raises `error`."""

    version = 0
    kinds: frozenset[str] = frozenset()

    def __init__(self, device: torch.device | str = "cpu", error: RewardError | None = None) -> None:
        self.device = torch.device(device)
        self.error = error or RewardError(
            "A reward uses the policy, but there is none.",
            fix="set `needs_policy` of a ModelReward that uses the policy.",
        )

    def trainable(self) -> dict[str, Parameter]:
        """One parameter without values, on the device."""
        return {"device": Parameter(torch.zeros(0, device=self.device))}

    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        raise self.error

    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        raise self.error

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        raise self.error

    def num_tokens(self, act: Act) -> int:
        raise self.error

    def save(self, folder: Path) -> None:
        raise self.error
