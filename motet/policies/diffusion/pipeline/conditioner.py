"""Conditions of a pipeline's images: encoded once, kept with the act, on the transformer's device while in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from motet.core.conversation import Conversation
from motet.core.errors import ConfigError
from motet.core.protocols import Request
from motet.core.trajectory import DenoisingSteps, Sampling
from motet.policies.diffusion import GuidanceBranches, guidance_branches
from motet.policies.diffusion.models import Condition
from motet.policies.diffusion.models.common import DiffusersDenoiser
from motet.policies.diffusion.models.conditions import to_device_dtype
from motet.policies.diffusion.pipeline.prompts import encode_prompt, encode_sources, prompt_of


@dataclass(frozen=True, eq=False)
class PipelineEncoding:
    """The conditions of an act, on the CPU: kept with the act, so that replay runs no text encoder.

    `null` has neither prompt nor sources, `image_cond` the sources alone; both None without guidance, and
    `image_cond` without sources.
    """

    conditional: Condition
    null: Condition | None = None
    image_cond: Condition | None = None


class PromptConditioner:
    """A `motet.policies.diffusion.Conditioner`: a pipeline's frozen text encoders and autoencoder."""

    def __init__(self, pipeline: Any, denoiser: DiffusersDenoiser, height: int, width: int) -> None:
        self.pipeline, self.denoiser, self.height, self.width = pipeline, denoiser, height, width

    def encode(self, contexts: Sequence[Conversation], guided: bool = False) -> list[PipelineEncoding]:
        """What each context conditions on; prompts, sources and whole contexts that recur are encoded once.

        Raises ConfigError for guidance of a distilled checkpoint.
        """
        if guided and self.pipeline.config.get("is_distilled", False):
            raise ConfigError(
                f"This {type(self.pipeline).__name__} is guidance-distilled: it has no classifier-free guidance.",
                fix="use sampling.denoising.guidance: none, and no sft.prompt_dropout.",
            )
        texts: dict[str, Condition] = {}
        known: dict[int, tuple[Tensor, ...]] = {}
        made: dict[int, PipelineEncoding] = {}
        null = encode_prompt(self.pipeline, "", null=True) if guided else None
        for context in contexts:
            if id(context) in made:
                continue
            prompt = prompt_of(context)
            if prompt not in texts:
                texts[prompt] = encode_prompt(self.pipeline, prompt)
            images = context.images
            for image in images:
                if id(image) not in known:
                    known[id(image)] = encode_sources(self.denoiser, [image], self.height, self.width)
            sources = tuple(source for image in images for source in known[id(image)])
            image_cond = replace(null, sources=sources) if null is not None and sources else None
            made[id(context)] = PipelineEncoding(replace(texts[prompt], sources=sources), null, image_cond)
        return [made[id(context)] for context in contexts]

    def drop_conditions(self, encoding: PipelineEncoding, request: Request) -> PipelineEncoding:
        """Without the prompt, the sources, or both, as the request says; the former needs `guided`."""
        kept = replace(encoding.conditional, sources=()) if request.drop_source_image else encoding.conditional
        if not request.drop_prompt:
            return PipelineEncoding(kept)
        assert encoding.null is not None
        return PipelineEncoding(replace(encoding.null, sources=kept.sources))

    def branches(self, encodings: Sequence[PipelineEncoding], samplings: Sequence[Sampling]) -> list[GuidanceBranches]:
        """The acts' branches, their conditions where the transformer is: what several share is moved there once."""
        weight = next(self.denoiser.transformer.parameters())
        there: dict[int, Condition] = {}

        def placed(condition: Condition | None) -> Condition | None:
            if condition is None:
                return None
            if id(condition) not in there:
                there[id(condition)] = to_device_dtype(condition, weight)
            return there[id(condition)]

        return [
            guidance_branches(
                sampling,
                placed(encoding.conditional),
                placed(encoding.null),
                placed(encoding.image_cond),
                self.denoiser.rescale,
            )
            for encoding, sampling in zip(encodings, samplings, strict=True)
        ]

    def num_tokens(self, act: DenoisingSteps) -> int:
        """Tokens of the image, its sources and the prompt, for every branch and step."""
        encoding: PipelineEncoding = act.encoding
        own = guidance_branches(act.sampling, encoding.conditional, encoding.null, encoding.image_cond)
        tokens = self.denoiser.tokens
        return act.num_actions * sum(
            tokens(act.states.shape[1:]) + len(c.embeddings) + sum(tokens(source.shape) for source in c.sources)
            for c in own.scoring.conditions
        )
