"""The unified policy: a vision-language model that writes, and conditions a diffusion transformer that draws."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from motet.config import LoraConfig
from motet.policies.denoisers import Denoiser
from motet.policies.door import NotebookDoor
from motet.policies.flow import Painter
from motet.policies.parts import Reference, choose_parts
from motet.policies.unified.checkpoint import save_unified
from motet.policies.unified.connector import Bridge
from motet.policies.unified.drawing import QueryConditioner
from motet.policies.vlm import VlmPolicy
from motet.protocols import Replay, Request
from motet.trajectory import Act, ActKind, DenoisingSteps, Sampling


class UnifiedPolicy(NotebookDoor):
    """A language model and a diffusion transformer in one (UniRL-Zero, arXiv 2510.17937).

    Implements `motet.protocols.LearningPolicy`. `height` and `width` are those of its pictures, in pixels. A drawing
    whose context shows a picture is an edit of the last one: the language model sees it, and the denoiser has its
    latent.
    """

    kinds: frozenset[ActKind] = frozenset({"text", "denoising"})

    def __init__(
        self,
        reader: VlmPolicy,
        bridge: Bridge,
        denoiser: Denoiser,
        *,
        height: int,
        width: int,
        autocast: torch.dtype | None = None,
        rollout_batch: int | None = None,
    ) -> None:
        self.reader, self.bridge, self.denoiser = reader, bridge, denoiser
        self.painter = Painter(denoiser, QueryConditioner(reader, bridge, denoiser, (height, width)), height, width)
        self.autocast, self.rollout_batch = autocast, rollout_batch
        self._reference: Reference | None = None

    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Perform requests of one kind, in order. A context that several share is encoded and read once."""
        if not requests or requests[0].kind == "text":
            return self.reader.act(requests, sampling)
        with self._autocasting():
            return self.painter.act(requests, sampling, self.rollout_batch, self.version)

    def transcribe(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts that demonstrate the targets: a string for a text request, a picture for a drawing."""
        texts, drawn = _by_kind(requests)
        found = dict(zip(texts, self.reader.transcribe(*_chosen(texts, requests, targets)), strict=True))
        if drawn:
            with self._autocasting():
                shown = self.painter.transcribe(*_chosen(drawn, requests, targets))
            found |= zip(drawn, shown, strict=True)
        return [found[n] for n in range(len(requests))]

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs of the acts' scoring distributions under the current weights, with gradient.

        Texts offer `entropy`; drawings what `motet.policies.flow.rescore` offers.
        """
        texts, drawn = _by_kind(acts)
        found = dict(zip(texts, self.reader.replay([acts[n] for n in texts], needs), strict=True))
        if drawn:
            with self._autocasting():
                scored = self.painter.replay([cast(DenoisingSteps, acts[n]) for n in drawn], needs)
            found |= zip(drawn, scored, strict=True)
        return [found[n] for n in range(len(acts))]

    def cost(self, act: Act) -> int:
        """Tokens that replaying the act costs: for a drawing those of every step and branch, and of its context."""
        return self.reader.cost(act) if act.kind == "text" else self.painter.cost(act)

    @property
    def version(self) -> int:
        """Grows by one with every optimizer step."""
        return self.reader.version

    @version.setter
    def version(self, value: int) -> None:
        self.reader.version = value

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What can train, by the names that `policy.train` uses."""
        own = {"queries": self.bridge.queries, "connector": self.bridge.connector}
        return {**self.reader.parts, **own, "transformer": self.denoiser.transformer}

    def train_parts(self, names: Sequence[str]) -> None:
        """Choose what trains; everything else is frozen."""
        choose_parts(self.parts, names)

    def add_lora(self, config: LoraConfig) -> None:
        """Train adapters on the language model's linear layers instead of its weights."""
        self.reader.add_lora(config)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name; a part's name is among the dotted ones."""
        own = dict(self.bridge.named_parameters())
        own |= {f"transformer.{name}": p for name, p in self.denoiser.transformer.named_parameters()}
        return {**self.reader.trainable(), **{name: p for name, p in own.items() if p.requires_grad}}

    def freeze_reference(self) -> None:
        """Remember the present weights as the reference of the KL; fresh adapters are switched off instead."""
        self.reader.freeze_reference()
        theirs = self.reader.trainable()
        self._reference = Reference({name: p for name, p in self.trainable().items() if name not in theirs})

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the policy answers with the reference's weights, without gradient."""
        if self._reference is None:
            raise RuntimeError("freeze_reference() was never called")
        with self.reader.reference(), self._reference.active():
            yield

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.reader.device

    def save(self, folder: Path) -> None:
        """Both experts in the layouts of transformers and diffusers, the bridge as safetensors between them."""
        save_unified(Path(folder), self.reader, self.bridge, self.denoiser, (self.painter.height, self.painter.width))

    def _autocasting(self) -> Any:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)


def _by_kind(items: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Positions of texts, and of drawings."""
    texts = [n for n, item in enumerate(items) if item.kind == "text"]
    return texts, [n for n, item in enumerate(items) if item.kind != "text"]


def _chosen(places: Sequence[int], *lists: Sequence[Any]) -> list[list[Any]]:
    return [[items[n] for n in places] for items in lists]
