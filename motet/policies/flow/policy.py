"""A policy of drawings alone: a painter with the parts of it that can train."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from motet.policies.door import NotebookDoor
from motet.policies.flow.painter import Painter
from motet.policies.parts import Reference, choose_parts
from motet.protocols import Replay, Request
from motet.trajectory import Act, ActKind, DenoisingSteps, Sampling


class PaintingPolicy(NotebookDoor):
    """Implements `motet.protocols.LearningPolicy` for denoising acts.

    `parts` are the modules that may train, by the names that `policy.train` uses. `autocast` is the compute type of
    forward passes, None: the weights' own; `rollout_batch` drawings are made at once, None: as many as are asked for.
    """

    kinds: frozenset[ActKind] = frozenset({"denoising"})

    def __init__(
        self,
        painter: Painter,
        parts: Mapping[str, nn.Module],
        *,
        autocast: torch.dtype | None = None,
        rollout_batch: int | None = None,
    ) -> None:
        self.painter, self.parts = painter, dict(parts)
        self.autocast, self.rollout_batch = autocast, rollout_batch
        self.version = 0
        self._reference: Reference | None = None

    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Draw, in order. A context that several share is encoded and read once."""
        with self._autocasting():
            return self.painter.act(requests, sampling, self.rollout_batch, self.version)

    def transcribe(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts that demonstrate the targets, which are pictures."""
        with self._autocasting():
            return self.painter.transcribe(requests, targets)

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs under the current weights, with gradient; offers what `motet.policies.flow.rescore` does."""
        with self._autocasting():
            return self.painter.replay([cast(DenoisingSteps, act) for act in acts], needs)

    def cost(self, act: Act) -> int:
        """Tokens that replaying the act costs: those of every step and branch, and of its context."""
        return self.painter.cost(act)

    def train_parts(self, names: Sequence[str]) -> None:
        """Choose what trains; everything else is frozen."""
        choose_parts(self.parts, names)

    def recompute_activations(self) -> None:
        """Compute the transformer's activations again in the backward pass instead of keeping them."""
        self.parts["transformer"].enable_gradient_checkpointing()  # type: ignore[operator]  # diffusers' own

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters as `part.name`."""
        return {
            f"{part}.{name}": parameter
            for part, module in self.parts.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }

    def freeze_reference(self) -> None:
        """Remember the present weights as the reference of the KL."""
        self._reference = Reference(self.trainable())

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the policy answers with the reference's weights, without gradient."""
        if self._reference is None:
            raise RuntimeError("freeze_reference() was never called")
        with self._reference.active():
            yield

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return self.painter.device

    def save(self, folder: Path) -> None:
        """The denoiser alone, as diffusers loads it; the policy around it saves the rest."""
        self.painter.denoiser.save(folder)

    def _autocasting(self) -> Any:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)
