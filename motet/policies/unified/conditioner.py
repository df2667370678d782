"""What a denoising act of a unified model is conditioned on: from a conversation to the denoiser's conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from motet.core.conversation import Conversation
from motet.core.protocols import Request
from motet.core.trajectory import DenoisingSteps, Sampling
from motet.policies.diffusion import GuidanceBranches, guidance_branches
from motet.policies.diffusion.models import Condition, Denoiser
from motet.policies.diffusion.models.source_adapter import encode_source
from motet.policies.generation.chat_template import encode_unique
from motet.policies.unified.connector import QueryConnector


@dataclass(frozen=True, eq=False)
class UnifiedConditionEncoding:
    """What the model saw of the context of a drawing, kept so that replay never derives it again.

    `context` is the language model's encoding; `tokens` are the codes of the picture that is painted anew, None where
    the language model draws none; `sources` are the latents of the picture that is edited, none for a drawing from
    scratch. `drop_prompt` and `drop_source_image` tell which of both a demonstration goes without, as the branches of
    guidance do.
    """

    context: Any
    tokens: Int[Tensor, "N"] | None = None
    sources: tuple[Float[Tensor, "..."], ...] = ()
    drop_prompt: bool = False
    drop_source_image: bool = False


class ConnectorConditioner:
    """Runs the language model and the connector; how the language model is read is up to the subclass.

    The null branch is zeros in place of the connector's words. Where nothing trains on that road, an encoding's
    condition is computed once and kept as long as the encoding.
    """

    def __init__(self, reader: Any, bridge: QueryConnector, denoiser: Denoiser, size: tuple[int, int]) -> None:
        self.reader, self.bridge, self.denoiser, self.size = reader, bridge, denoiser, size
        self._known: WeakKeyDictionary[UnifiedConditionEncoding, Condition] = WeakKeyDictionary()

    @torch.no_grad()
    def encode(self, contexts: Sequence[Conversation], guided: bool = False) -> list[UnifiedConditionEncoding]:
        """The language model's encoding and what else a drawing is told of its context, guided or not."""
        return encode_unique(contexts, self._encode)

    def blanked(self, encoding: UnifiedConditionEncoding, request: Request) -> UnifiedConditionEncoding:
        """Without the prompt, the source, or both, as the request says."""
        return replace(encoding, drop_prompt=request.drop_prompt, drop_source_image=request.drop_source_image)

    def branches(
        self, encodings: Sequence[UnifiedConditionEncoding], samplings: Sequence[Sampling]
    ) -> list[GuidanceBranches]:
        """Conditional, source alone, and null, as the guidance asks."""
        conditions = self._conditions(encodings)
        return [
            _guided(conditions[id(encoding)], sampling, self.denoiser)
            for encoding, sampling in zip(encodings, samplings, strict=True)
        ]

    def num_tokens(self, act: DenoisingSteps) -> int:
        """Tokens of the picture for every branch and step, and once those of what is not known of its condition."""
        edits = bool(act.encoding.sources)
        branches = guidance_branches(
            act.sampling, "whole", "null", "picture alone" if edits else None
        ).scoring.conditions
        reading = 0 if act.encoding in self._known else self._num_uncached_tokens(act.encoding)
        return reading + len(branches) * act.num_actions * self.denoiser.tokens(act.states.shape[1:])

    def _encode(self, context: Conversation) -> UnifiedConditionEncoding:
        raise NotImplementedError

    def _hidden(self, encodings: Sequence[UnifiedConditionEncoding]) -> Float[Tensor, "B Q D"]:
        """What the connector reads, with gradient to all that trains."""
        raise NotImplementedError

    def _num_uncached_tokens(self, encoding: UnifiedConditionEncoding) -> int:
        """Tokens that computing the condition of an encoding costs: of the context, and of what the connector reads."""
        return len(encoding.context.ids) + self.bridge.connector.config.num_queries

    def _conditions(self, encodings: Sequence[UnifiedConditionEncoding]) -> dict[int, Condition]:
        unique = {id(encoding): encoding for encoding in encodings}
        if self.reader.backbone_trains or self.bridge.trains:
            self._known.clear()  # of weights that will have moved by the time that they are frozen
            return self._computed(list(unique.values()))
        missing = [encoding for encoding in unique.values() if encoding not in self._known]
        with torch.no_grad():
            for key, condition in self._computed(missing).items():
                self._known[unique[key]] = condition
        return {key: self._known[encoding] for key, encoding in unique.items()}

    def _computed(self, encodings: Sequence[UnifiedConditionEncoding]) -> dict[int, Condition]:
        if not encodings:
            return {}
        connector = self.bridge.connector
        embeddings, pooled = connector(self._hidden(encodings).to(connector.project.weight))
        found: dict[int, Condition] = {}
        for n, encoding in enumerate(encodings):
            sources = () if encoding.drop_source_image else encoding.sources
            condition = Condition(embeddings[n], None, None if pooled is None else pooled[n], sources)
            found[id(encoding)] = _without_prompt(condition) if encoding.drop_prompt else condition
        return found


class QueryConditioner(ConnectorConditioner):
    """Reads learned queries after the whole context: a bank for drawings, another for edits.

    A drawing whose context shows a picture is an edit of the last one.
    """

    def _encode(self, context: Conversation) -> UnifiedConditionEncoding:
        room = self.bridge.connector.config.num_queries + 1  # an act's last token is never read, the last query is
        image = source_image(context)
        sources = () if image is None else (encode_source(self.denoiser, image, *self.size),)
        return UnifiedConditionEncoding(self.reader.encoder.encode(context, max_new_tokens=room), sources=sources)

    def _num_uncached_tokens(self, encoding: UnifiedConditionEncoding) -> int:
        read = encoding.context in self.reader.prefixes
        return self.bridge.connector.config.num_queries if read else super()._num_uncached_tokens(encoding)

    def _hidden(self, encodings: Sequence[UnifiedConditionEncoding]) -> Float[Tensor, "B Q D"]:
        found: dict[int, Tensor] = {}
        for task in ("draw", "edit"):
            own = [encoding for encoding in encodings if bool(encoding.sources) == (task == "edit")]
            contexts, queries = [encoding.context for encoding in own], self.bridge.queries[task]
            hidden = self.reader.hidden_after(contexts, queries, self.bridge.trains)
            found |= zip(map(id, own), hidden, strict=True)
        return torch.stack([found[id(encoding)] for encoding in encodings])


def source_image(conversation: Conversation) -> Image.Image | None:
    """The picture that a drawing in this context edits: the last one shown, None to draw from scratch."""
    return conversation.images[-1] if conversation.images else None


def _without_prompt(condition: Condition) -> Condition:
    pooled = None if condition.pooled is None else torch.zeros_like(condition.pooled)
    return replace(condition, embeddings=torch.zeros_like(condition.embeddings), pooled=pooled)


def _guided(condition: Condition, sampling: Sampling, denoiser: Denoiser) -> GuidanceBranches:
    image_only = _without_prompt(condition)
    null = replace(image_only, sources=())
    return guidance_branches(sampling, condition, null, image_only if condition.sources else None, denoiser.rescale)
