"""Policies over one language model of transformers: acting and replay, for every family through its adapter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from motet.core.errors import ConfigError
from motet.core.protocols import Replay, Request
from motet.core.trajectory import Act, Encoding, ImageTokens, Sampling, TextTokens
from motet.policies.checkpoints import save_checkpoint
from motet.policies.generation.acts import act_fields, text_acts
from motet.policies.generation.adapter import LanguageModelAdapter
from motet.policies.generation.decode_loop import Decoded
from motet.policies.generation.noise import action_uniforms
from motet.policies.generation.replay import replay
from motet.policies.generation.sampling import FusedModel, left_padded, sample_with_cache
from motet.policies.generation.static_sampler import StaticSampler
from motet.policies.transformers_policy import TransformersPolicy

SamplerT = TypeVar("SamplerT", FusedModel, StaticSampler)


class LanguageModelPolicy(TransformersPolicy):
    """A language model that generates text and, if its family can, images. Implements `TrainablePolicy`.

    A family is a subclass that names its `adapter_type`. `autocast` is the compute type of replay, `rollout_autocast`
    that of sampling; None computes in the weights' own. `rollout_batch` sequences are sampled at once (guidance doubles
    each); None: as many as are asked for. `static_cache` chooses the static engine, None: on CUDA (see decision 0008).
    """

    adapter_type: type[LanguageModelAdapter]

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        autocast: torch.dtype | None = None,
        rollout_autocast: torch.dtype | None = None,
        rollout_batch: int | None = None,
        static_cache: bool | None = None,
    ) -> None:
        super().__init__(model, autocast=autocast, rollout_autocast=rollout_autocast, rollout_batch=rollout_batch)
        self.processor = processor
        self.adapter = self.adapter_type(self.model, processor)
        self.encoder = self.adapter.encoder
        self.kinds = self.adapter.kinds
        self.static_cache = static_cache

    # ---- acting -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Perform requests of one kind, in order. A context that several share is encoded and prefilled once.

        Text is never guided. Raises ContextError for a context that leaves no room for the act.
        """
        if not requests:
            return []
        kind = self._kind_of(requests)
        if kind == "text" and sampling.guidance != "none":
            sampling = replaced(sampling, guidance="none", guidance_scale=1.0)
        num_actions = self.adapter.num_image_tokens if kind == "image" else sampling.max_tokens
        encodings = self.encoder.encode_all(
            [request.context for request in requests],
            max_new_tokens=self.adapter.num_positions(kind, num_actions),
            kind=kind,
            with_null=sampling.guidance != "none",
        )
        # Texts end at different lengths: there the static engine fills its slots as they become free.
        together = kind == "text" and self._uses_static_cache
        size = len(requests) if together else self.rollout_batch or len(requests)
        return [
            act
            for n in range(0, len(requests), size)
            for act in self._perform(requests[n : n + size], encodings[n : n + size], sampling, num_actions)
        ]

    def _perform(
        self, requests: Sequence[Request], encodings: Sequence[Encoding], sampling: Sampling, num_actions: int
    ) -> list[Act]:
        """Requests that are sampled as one batch of up to `num_actions` actions each."""
        kind = requests[0].kind
        uniforms = action_uniforms([request.key for request in requests], num_actions, self.device)
        decoded = self._decode(encodings, kind, uniforms, sampling)
        fields = act_fields(requests, encodings, decoded, sampling, self.version)
        if kind == "text":
            return text_acts(decoded, fields, self.encoder.tokenizer, self.adapter.stop_ids)
        with self._rollout_autocasting():
            images = self.adapter.decode_images(decoded.ids)
        each = zip(decoded.ids.cpu(), images, fields, strict=True)
        return [ImageTokens(ids=ids.clone(), image=image, **own) for ids, image, own in each]

    def _decode(self, encodings: Sequence[Encoding], kind: str, uniforms: Tensor, sampling: Sampling) -> Decoded:
        if self._uses_static_cache:
            return self._current(self._static_sampler).sample(
                self.adapter,
                encodings,
                kind,
                uniforms,
                sampling,
                slots=self.rollout_batch,
                autocasting=self._rollout_autocasting,
            )
        if not self.adapter.fused:
            with self._rollout_autocasting():
                return sample_with_cache(self.adapter, encodings, kind, uniforms, sampling)
        with self._rollout_autocasting():
            prompts = left_padded(self.adapter, encodings)
        return self._current(self._fused_model).sample(self.adapter, prompts, kind, uniforms, sampling)

    @property
    def _uses_static_cache(self) -> bool:
        return self.device.type == "cuda" if self.static_cache is None else self.static_cache

    def _current(self, build: Callable[[], SamplerT]) -> SamplerT:
        """The sampler of the present weights, built where there is none yet."""
        known = self._sampler  # of which version, and the sampler
        if known is None or known[0] != self.version or known[1].language.stale:
            self._sampler = None  # free the old one first
            known = self._sampler = (self.version, build())
        return known[1]

    def _fused_model(self) -> FusedModel:
        return FusedModel.from_adapter(self.adapter, self.rollout_autocast or torch.float32)

    def _static_sampler(self) -> StaticSampler:
        return StaticSampler(self._fused_model())

    # ---- training ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts of a dataset: a string for a text request, an image for an image request.

        Raises ContextError for one that does not fit.
        """
        for request in requests:
            self._kind_of([request])
        acts: list[Act] = []
        images = [target for r, target in zip(requests, targets, strict=True) if r.kind == "image"]
        image_ids = iter(self.adapter.encode_images(images) if images else ())
        for request, target in zip(requests, targets, strict=True):
            generates = request.kind == "image"
            ids = next(image_ids) if generates else torch.tensor([*self.encoder.text_ids(target), self.encoder.eos_id])
            whole = self.encoder.encode(
                request.context,
                max_new_tokens=self.adapter.num_positions(request.kind, len(ids)),
                kind=request.kind,
                with_null=request.drop_prompt,
            )
            fields: dict[str, Any] = {
                "name": request.name,
                "context": request.context,
                "encoding": Encoding(whole.null_ids) if whole.null_ids is not None else whole,
                "sampling": Sampling(),
                "log_probs": None,
                "trained": request.trained,
            }
            if generates:
                acts.append(ImageTokens(ids=ids, image=target.convert("RGB"), **fields))
            else:
                acts.append(TextTokens(ids=ids, text=target, finished=True, **fields))
        return acts

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs of the acts' scoring distributions under the current weights, with gradient; one forward pass.

        Offers `entropy` of the scoring distribution.
        """
        self._sampler = None  # the rollout is over: training needs the memory
        with self._autocasting():
            return replay(self.adapter, acts, needs) if acts else []

    def num_tokens(self, act: Act) -> int:
        """Tokens that replaying the act takes, the unconditional branch included."""
        tokens = len(act.encoding.ids) + self.adapter.num_positions(act.kind, act.num_actions)
        return 2 * tokens if act.sampling.guidance == "guided" else tokens

    def save(self, folder: Path) -> None:
        """Weights (or the adapter), config, tokenizer and processor, as `from_pretrained` reads them."""
        save_checkpoint(Path(folder), self.wrapped, self.processor)

    def _kind_of(self, requests: Sequence[Request]) -> str:
        """The one kind of these requests. Raises ConfigError for several, or for one that the family cannot perform."""
        kinds = {request.kind for request in requests}
        others = sorted(kinds - self.kinds)
        if others:
            able = ", ".join(sorted(self.kinds))
            raise ConfigError(
                f"A {self.encoder.family} policy generates {able}; it cannot perform {others}.",
                fix="use a scenario whose kinds of act the policy performs, or a policy that performs them.",
            )
        if len(kinds) > 1:
            raise ConfigError(
                f"One call of act() had requests of kinds {sorted(kinds)}.", fix="call act() once for each kind."
            )
        return requests[0].kind


class ImageTokenPolicy(LanguageModelPolicy):
    """A language model that generates images as tokens of an image tokenizer. Implements `ReconstructingPolicy`."""

    @property
    def num_image_tokens(self) -> int:
        """Actions of an image act."""
        return self.adapter.num_image_tokens

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Int[Tensor, "B N"]:
        """The image tokens of images that were not generated here."""
        return self.adapter.encode_images(images)

    @torch.no_grad()
    def reconstruct(self, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
        """Of each image what the image tokenizer is given, and what it makes of it: see `ReconstructingPolicy`."""
        return self.adapter.reconstruct(images)
