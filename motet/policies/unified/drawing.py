"""What a denoising act of a unified model is conditioned on: from a conversation to the denoiser's conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from motet.conversation import Conversation, Picture
from motet.policies.denoisers import Condition, Denoiser
from motet.policies.flow import Branches, branches_of
from motet.policies.unified.connector import Bridge
from motet.protocols import Request
from motet.trajectory import Sampling


@dataclass(frozen=True, eq=False)
class DrawingEncoding:
    """What the model saw of the context of a drawing, kept so that replay never derives it again.

    `context` is the language model's encoding; `sources` are the latents of the picture that is edited, none for a
    drawing from scratch. `blank` and `blank_source` tell which of both a demonstration goes without, as the branches of
    guidance do.
    """

    context: Any
    sources: tuple[Float[Tensor, "..."], ...] = ()
    blank: bool = False
    blank_source: bool = False


def edited_picture(conversation: Conversation) -> Image.Image | None:
    """The picture that a drawing in this context edits: the last one shown, None to draw from scratch."""
    pictures = [part.image for m in conversation.messages for part in m.parts if isinstance(part, Picture)]
    return pictures[-1] if pictures else None


class QueryConditioner:
    """Runs the language model over contexts and queries, and the connector over what it made of the queries.

    The null branch is zeros in place of the connector's words. Where nothing trains on that road, an encoding's
    condition is computed once and kept as long as the encoding.
    """

    def __init__(self, reader: Any, bridge: Bridge, denoiser: Denoiser, size: tuple[int, int]) -> None:
        self.reader, self.bridge, self.denoiser, self.size = reader, bridge, denoiser, size
        self._known: WeakKeyDictionary[DrawingEncoding, Condition] = WeakKeyDictionary()

    @torch.no_grad()
    def encode(self, contexts: Sequence[Conversation]) -> list[DrawingEncoding]:
        """The language model's encoding, and the latent of the picture that is edited."""
        unique = {id(context): context for context in contexts}
        room = self.bridge.connector.config.num_queries
        read = self.reader.encoder.encode_all(list(unique.values()), room=room)
        known = {
            key: DrawingEncoding(encoding, self._sources(context))
            for (key, context), encoding in zip(unique.items(), read, strict=True)
        }
        return [known[id(context)] for context in contexts]

    def blanked(self, encoding: DrawingEncoding, request: Request) -> DrawingEncoding:
        """Without the prompt, the source, or both, as the request says."""
        return replace(encoding, blank=request.blank, blank_source=request.blank_source)

    def branches(self, encodings: Sequence[DrawingEncoding], samplings: Sequence[Sampling]) -> list[Branches]:
        """Conditional, source alone, and null, as the guidance asks."""
        conditions = self._conditions(encodings)
        return [
            _guided(conditions[id(encoding)], sampling, self.denoiser)
            for encoding, sampling in zip(encodings, samplings, strict=True)
        ]

    def tokens(self, encoding: DrawingEncoding) -> int:
        """The context's and the queries'."""
        return len(encoding.context.ids) + self.bridge.connector.config.num_queries

    def _sources(self, context: Conversation) -> tuple[Tensor, ...]:
        picture = edited_picture(context)
        return () if picture is None else (self.denoiser.encode([picture], *self.size)[0],)

    def _conditions(self, encodings: Sequence[DrawingEncoding]) -> dict[int, Condition]:
        unique = {id(encoding): encoding for encoding in encodings}
        if any(p.requires_grad for p in (*self.reader.model.parameters(), *self.bridge.parameters())):
            return self._computed(list(unique.values()))
        missing = [encoding for encoding in unique.values() if encoding not in self._known]
        with torch.no_grad():
            for key, condition in self._computed(missing).items():
                self._known[unique[key]] = condition
        return {key: self._known[encoding] for key, encoding in unique.items()}

    def _computed(self, encodings: Sequence[DrawingEncoding]) -> dict[int, Condition]:
        found: dict[int, Condition] = {}
        for task in ("draw", "edit"):
            own = [encoding for encoding in encodings if bool(encoding.sources) == (task == "edit")]
            if not own:
                continue
            queries = self.bridge.queries[task]
            hidden = self.reader.hidden_after([encoding.context for encoding in own], queries)
            embeddings, pooled = self.bridge.connector(hidden.to(queries))
            for n, encoding in enumerate(own):
                sources = () if encoding.blank_source else encoding.sources
                condition = Condition(embeddings[n], None, None if pooled is None else pooled[n], sources)
                found[id(encoding)] = _without_prompt(condition) if encoding.blank else condition
        return found


def _without_prompt(condition: Condition) -> Condition:
    pooled = None if condition.pooled is None else torch.zeros_like(condition.pooled)
    return replace(condition, embeddings=torch.zeros_like(condition.embeddings), pooled=pooled)


def _guided(condition: Condition, sampling: Sampling, denoiser: Denoiser) -> Branches:
    of_picture = _without_prompt(condition)
    null = replace(of_picture, sources=())
    return branches_of(sampling, condition, null, of_picture if condition.sources else None, denoiser.rescale)
