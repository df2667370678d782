"""Samples, encodes and replays diffusion acts, whatever their conditions come from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image

from motet.core.conversation import Conversation
from motet.core.protocols import Replay, Request
from motet.core.trajectory import Act, DenoisingSteps, Sampling
from motet.policies.diffusion.guidance import GuidanceBranches
from motet.policies.diffusion.models import Denoiser
from motet.policies.diffusion.models.image_tensors import to_pil_images, to_pixels
from motet.policies.diffusion.replay import make_flow_matching_pairs, replay_log_probs
from motet.policies.diffusion.sampling import sample_latents


@runtime_checkable
class Conditioner(Protocol):
    """Encodes conversations into conditions of a denoiser."""

    def encode(self, contexts: Sequence[Conversation], guided: bool = False) -> list[Any]:
        """The encodings of contexts, which acts keep; equal conversations (the same object) share one.

        `guided`: with the unconditional branch as well.
        """
        ...

    def drop_conditions(self, encoding: Any, request: Request) -> Any:
        """An encoding that was made with `guided`, without its prompt, its sources or both as the request says."""
        ...

    def branches(self, encodings: Sequence[Any], samplings: Sequence[Sampling]) -> list[GuidanceBranches]:
        """Each act's conditions under its guidance, with gradient to what trains; equal encodings once."""
        ...

    def num_tokens(self, act: DenoisingSteps) -> int:
        """Tokens of an act's replay: of its context, and of every step and branch."""
        ...


class DiffusionGenerator:
    """Generates images of `height` x `width` pixels with a denoiser, under a conditioner's conditions.

    `autocast` is the compute type of the transformer and of conditions that are computed in every replay, None:
    the weights' own. Whatever is frozen (text encoders, autoencoder) computes in its own.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditioner: Conditioner,
        height: int,
        width: int,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.denoiser, self.conditioner, self.autocast = denoiser, conditioner, autocast
        self.height, self.width = height, width
        self.shape = denoiser.latent_shape(height, width)

    @torch.no_grad()
    def act(self, requests: Sequence[Request], sampling: Sampling, batch: int | None, version: int) -> list[Act]:
        """Generate images, at most `batch` at once; identical contexts are encoded once."""
        encodings = self.conditioner.encode([r.context for r in requests], sampling.guidance != "none")
        size = batch or len(requests) or 1
        return [
            act
            for n in range(0, len(requests), size)
            for act in self._draw(requests[n : n + size], encodings[n : n + size], sampling, version)
        ]

    def _draw(
        self, requests: Sequence[Request], encodings: Sequence[Any], sampling: Sampling, version: int
    ) -> list[Act]:
        times = self.denoiser.schedule(sampling.num_steps, self.shape, sampling.shift)
        keys = [request.key for request in requests]
        with self._autocasting():
            branches = self.conditioner.branches(encodings, [sampling] * len(requests))
            samples = sample_latents(
                self.denoiser.velocity, branches, keys, self.shape, times, sampling, device=self.device
            )
        behaviour = samples.behaviour_log_probs
        return [
            DenoisingSteps(
                name=request.name,
                context=request.context,
                encoding=encodings[n],
                sampling=sampling,
                log_probs=samples.log_probs[n].clone(),
                behaviour_log_probs=None if behaviour is None else behaviour[n].clone(),
                trained=request.trained,
                policy_version=version,
                states=samples.states[n].clone(),
                times=times,
                stochastic=samples.stochastic,
                image=image,
            )
            for n, (request, image) in enumerate(zip(requests, self.denoiser.decode(samples.clean), strict=True))
        ]

    @torch.no_grad()
    def reconstruct(self, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
        """Each image as the autoencoder gets it, cropped and resized, and its reconstruction."""
        shown = to_pil_images(to_pixels(images, self.height, self.width))
        made = [self.denoiser.decode(self.denoiser.encode([one], self.height, self.width))[0] for one in shown]
        return list(zip(shown, made, strict=True))

    @torch.no_grad()
    def encode_targets(self, requests: Sequence[Request], images: Sequence[Image.Image]) -> list[Act]:
        """The acts of a dataset's images; see `DenoisingSteps`."""
        images = [image.convert("RGB") for image in images]
        clean = self.denoiser.encode(images, self.height, self.width)
        steps = make_flow_matching_pairs(clean, [request.key for request in requests])
        encodings = self.conditioner.encode([r.context for r in requests], any(r.drop_prompt for r in requests))
        return [
            DenoisingSteps(
                name=request.name,
                context=request.context,
                encoding=self.conditioner.drop_conditions(encoding, request)
                if request.drop_prompt or request.drop_source_image
                else encoding,
                sampling=Sampling(),
                log_probs=None,
                trained=request.trained,
                states=states,
                times=times,
                stochastic=(True,),
                image=image,
            )
            for request, encoding, (states, times), image in zip(requests, encodings, steps, images, strict=True)
        ]

    def replay(self, acts: Sequence[DenoisingSteps], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs under the current weights, with gradient; offers what `motet.policies.diffusion.replay_log_probs`
        does.
        """
        with self._autocasting():
            branches = self.conditioner.branches([act.encoding for act in acts], [act.sampling for act in acts])
            return replay_log_probs(self.denoiser.velocity, acts, branches, self.device, needs)

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return next(self.denoiser.transformer.parameters()).device

    def _autocasting(self) -> Any:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)
