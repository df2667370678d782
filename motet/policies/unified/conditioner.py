"""Conditions of a unified model's denoising acts: from a conversation to the denoiser's conditions."""

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
from motet.policies.generation.policy import LanguageModelPolicy
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.same_passes import from_all_processes
from motet.policies.unified.connector import QueryConnector


@dataclass(frozen=True, eq=False)
class UnifiedConditionEncoding:
    """The encoding of a denoising act's context, kept so that replay never derives it again.

    `context` is the language model's encoding; `tokens` are those of the image that is decoded with flow, None where
    the language model has no image tokens; `sources` are the latents of the image to edit, none for text-to-image.
    `drop_prompt` and `drop_source_image` say what is left out, as in the branches of guidance.
    """

    context: Any
    tokens: Int[Tensor, "N"] | None = None
    sources: tuple[Float[Tensor, "..."], ...] = ()
    drop_prompt: bool = False
    drop_source_image: bool = False


class ConnectorConditioner:
    """Runs the language model and the connector; a subclass says at which positions.

    The unconditional branch has zeros instead of connector outputs. Where nothing upstream is trainable, an encoding's
    condition is computed once and kept as long as the encoding.
    """

    def __init__(
        self, text_policy: LanguageModelPolicy, connector: QueryConnector, denoiser: Denoiser, size: tuple[int, int]
    ) -> None:
        self.text_policy, self.connector, self.denoiser, self.size = text_policy, connector, denoiser, size
        self._cache: WeakKeyDictionary[UnifiedConditionEncoding, Condition] = WeakKeyDictionary()

    @torch.no_grad()
    def encode(self, contexts: Sequence[Conversation], guided: bool = False) -> list[UnifiedConditionEncoding]:
        """The language model's encoding, and the source image or image tokens; the same with guidance and without."""
        return encode_unique(contexts, self._encode)

    def drop_conditions(self, encoding: UnifiedConditionEncoding, request: Request) -> UnifiedConditionEncoding:
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
        """Tokens of the image for every branch and step, and once those of its condition where it is not cached."""
        edits = bool(act.encoding.sources)
        branches = guidance_branches(
            act.sampling, "conditional", "null", "image only" if edits else None
        ).scoring.conditions
        reading = 0 if act.encoding in self._cache else self._num_uncached_tokens(act.encoding)
        return reading + len(branches) * act.num_actions * self.denoiser.tokens(act.states.shape[1:])

    def _encode(self, context: Conversation) -> UnifiedConditionEncoding:
        raise NotImplementedError

    def _hidden(self, encodings: Sequence[UnifiedConditionEncoding]) -> Float[Tensor, "B Q D"]:
        """Hidden states for the connector, with gradient to all that trains."""
        raise NotImplementedError

    def _num_uncached_tokens(self, encoding: UnifiedConditionEncoding) -> int:
        """Tokens that the condition of an encoding takes: of the context, and of the connector's input."""
        return len(encoding.context.ids) + self.connector.config.num_queries

    def _conditions(self, encodings: Sequence[UnifiedConditionEncoding]) -> dict[int, Condition]:
        unique = {id(encoding): encoding for encoding in encodings}
        if self.text_policy.backbone_trains or self.connector.trains:
            self._cache.clear()  # values of trainable weights would be stale once these are frozen
            return self._compute_conditions(list(unique.values()))
        missing = [encoding for encoding in unique.values() if encoding not in self._cache]
        with torch.no_grad():
            for key, condition in self._compute_conditions(missing).items():
                self._cache[unique[key]] = condition
        return {key: self._cache[encoding] for key, encoding in unique.items()}

    def _compute_conditions(self, encodings: Sequence[UnifiedConditionEncoding]) -> dict[int, Condition]:
        if not encodings:
            return {}
        embeddings, pooled = self.connector(self._hidden(encodings))
        found: dict[int, Condition] = {}
        for n, encoding in enumerate(encodings):
            sources = () if encoding.drop_source_image else encoding.sources
            condition = Condition(embeddings[n], None, None if pooled is None else pooled[n], sources)
            found[id(encoding)] = _without_prompt(condition) if encoding.drop_prompt else condition
        return found


class QueryConditioner(ConnectorConditioner):
    """Conditions on hidden states at learned queries after the context: one set for text-to-image, another for edits.

    A context with images asks for an edit of the last one.
    """

    text_policy: VlmPolicy

    def _encode(self, context: Conversation) -> UnifiedConditionEncoding:
        room = self.connector.config.num_queries + 1  # an act's last token is never read, the last query is
        image = source_image(context)
        sources = () if image is None else (encode_source(self.denoiser, image, *self.size),)
        return UnifiedConditionEncoding(self.text_policy.encoder.encode(context, max_new_tokens=room), sources=sources)

    def _num_uncached_tokens(self, encoding: UnifiedConditionEncoding) -> int:
        read = encoding.context in self.text_policy.prefixes
        return self.connector.config.num_queries if read else super()._num_uncached_tokens(encoding)

    def _hidden(self, encodings: Sequence[UnifiedConditionEncoding]) -> Float[Tensor, "B Q D"]:
        own = {task: [one for one in encodings if bool(one.sources) == (task == "edit")] for task in ("draw", "edit")}
        everywhere = from_all_processes([task for task in own if own[task]]) if self.text_policy.backbone_trains else []
        found: dict[int, Tensor] = {}
        unweighted: list[Tensor] = []
        for task, queries in self.connector.queries.items():
            contexts = [encoding.context for encoding in own[task]]
            if not contexts and any(task in tasks for tasks in everywhere):  # a pass that another process needs
                unweighted.append(self.text_policy.hidden_after([encodings[0].context], queries).sum())
            hidden = self.text_policy.hidden_after(contexts, queries, self.connector.trains)
            found |= zip(map(id, own[task]), hidden, strict=True)
        stacked = torch.stack([found[id(encoding)] for encoding in encodings])
        return stacked + 0.0 * sum(unweighted) if unweighted else stacked


def source_image(conversation: Conversation) -> Image.Image | None:
    """The image to edit: the last one in the conversation, None for text-to-image."""
    return conversation.images[-1] if conversation.images else None


def _without_prompt(condition: Condition) -> Condition:
    pooled = None if condition.pooled is None else torch.zeros_like(condition.pooled)
    return replace(condition, embeddings=torch.zeros_like(condition.embeddings), pooled=pooled)


def _guided(condition: Condition, sampling: Sampling, denoiser: Denoiser) -> GuidanceBranches:
    image_only = _without_prompt(condition)
    null = replace(image_only, sources=())
    return guidance_branches(sampling, condition, null, image_only if condition.sources else None, denoiser.rescale)
