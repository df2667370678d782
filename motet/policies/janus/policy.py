"""The Janus policy: `JanusForConditionalGeneration` itself, as something that writes, draws and replays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from motet.core.conversation import Conversation
from motet.core.errors import CheckpointError
from motet.core.protocols import Features, Replay, Request
from motet.core.trajectory import Act, ActKind, Encoding, ImageTokens, Sampling, TextTokens
from motet.policies.checkpoints import save_checkpoint
from motet.policies.generation.acts import act_fields, text_acts
from motet.policies.generation.decode_loop import Decoded, decode
from motet.policies.generation.noise import action_uniforms
from motet.policies.janus.checkpoint import fill_generation_config
from motet.policies.janus.embeddings import Embedder
from motet.policies.janus.features import features, hidden_at
from motet.policies.janus.images import decode_images, encode_images, reconstructed
from motet.policies.janus.prompt_encoding import ContextEncoder
from motet.policies.janus.replay import replay
from motet.policies.janus.sampling import Sampler, prefixes_of
from motet.policies.transformers_policy import TransformersPolicy


class JanusPolicy(TransformersPolicy):
    """A Janus or Janus-Pro checkpoint that acts. Implements `motet.core.protocols.Policy`.

    `autocast` is the compute type of replay, `rollout_autocast` that of sampling; None computes in the weights' own.
    `rollout_batch` sequences are sampled at once (guidance doubles each); None: as many as are asked for.
    """

    kinds: frozenset[ActKind] = frozenset({"text", "image"})

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        autocast: torch.dtype | None = None,
        rollout_autocast: torch.dtype | None = None,
        rollout_batch: int | None = None,
    ) -> None:
        super().__init__(model, autocast=autocast, rollout_autocast=rollout_autocast, rollout_batch=rollout_batch)
        self.processor = processor
        self.encoder = ContextEncoder(processor, self.model.config.text_config.max_position_embeddings)
        self.embedder = Embedder(self.model, self.encoder.image_id)
        self.num_image_tokens = _image_tokens(self.model, self.encoder)
        fill_generation_config(self.model, self.encoder)

    # ---- acting -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Perform requests of one kind, in order. A context that several share is encoded and prefilled once."""
        if not requests:
            return []
        draws = requests[0].kind == "image"
        if {request.kind for request in requests} != {"image" if draws else "text"}:
            raise ValueError("One call performs acts of one kind, 'text' or 'image'.")
        if not draws and sampling.guidance != "none":
            sampling = replaced(sampling, guidance="none", guidance_scale=1.0)  # text is never guided
        room = self.num_image_tokens if draws else sampling.max_tokens
        encodings = self.encoder.encode_all(
            [request.context for request in requests], draws=draws, with_null=sampling.guidance != "none", room=room
        )
        size = self.rollout_batch or len(requests)
        starts = range(0, len(requests), size)
        return [
            act
            for n in starts
            for act in self._perform(requests[n : n + size], encodings[n : n + size], sampling, room)
        ]

    def _perform(
        self, requests: Sequence[Request], encodings: Sequence[Encoding], sampling: Sampling, room: int
    ) -> list[Act]:
        """Requests that are sampled as one batch of up to `room` actions each."""
        draws = requests[0].kind == "image"
        with self._rollout_autocasting():
            prefixes, rows, null_rows = prefixes_of(self.embedder, encodings)
        sampler = self._sampling()
        decoded = decode(
            sampler.language,
            prefixes,
            rows,
            null_rows,
            head=sampler.image_head if draws else sampler.text_head,
            embed=sampler.image_embed if draws else sampler.text_embed,
            uniforms=action_uniforms([request.key for request in requests], room, self.device),
            sampling=sampling,
            stop_id=None if draws else self.encoder.eos_id,
        )
        fields = act_fields(requests, encodings, decoded, sampling, self.version)
        if draws:
            return self._image_acts(decoded, fields)
        return text_acts(decoded, fields, self.encoder.tokenizer, (self.encoder.eos_id,))

    def _image_acts(self, decoded: Decoded, fields: Sequence[dict[str, Any]]) -> list[Act]:
        with self._rollout_autocasting():
            images = decode_images(self.model, decoded.ids)
        each = zip(decoded.ids.cpu(), images, fields, strict=True)
        return [ImageTokens(ids=ids.clone(), image=image, **remembered) for ids, image, remembered in each]

    def _sampling(self) -> Sampler:
        """The sampler of the present weights."""
        known = self._sampler  # of which version, and the sampler
        if known is None or known[0] != self.version or known[1].language.stale:
            self._sampler = None  # free the old one first
            known = self._sampler = (self.version, Sampler.take(self.model, self.rollout_autocast or torch.float32))
        return known[1]

    # ---- learning ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts that demonstrate the targets: a string for a text request, a picture for an image request."""
        acts: list[Act] = []
        images = [target for r, target in zip(requests, targets, strict=True) if r.kind == "image"]
        codes = iter(self.encode_images(images) if images else ())
        for request, target in zip(requests, targets, strict=True):
            draws = request.kind == "image"
            ids = next(codes) if draws else torch.tensor([*self.encoder.text_ids(target), self.encoder.eos_id])
            seen = self.encoder.encode(request.context, draws=draws, with_null=request.drop_prompt, room=len(ids))
            fields: dict[str, Any] = {
                "name": request.name,
                "context": request.context,
                "encoding": Encoding(seen.null_ids) if seen.null_ids is not None else seen,
                "sampling": Sampling(),
                "log_probs": None,
                "trained": request.trained,
            }
            if draws:
                acts.append(ImageTokens(ids=ids, image=target.convert("RGB"), **fields))
            else:
                acts.append(TextTokens(ids=ids, text=target, finished=True, **fields))
        return acts

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs of the acts' scoring distributions under the current weights, with gradient; one forward pass.

        Offers `entropy` of the scoring distribution.
        """
        self._sampler = None  # a rollout is over when it is replayed: learning wants the memory
        with self._autocasting():
            return replay(self.model, self.embedder, acts, needs) if acts else []

    @torch.no_grad()
    def features(self, conversations: Sequence[Conversation]) -> list[Features]:
        """Last hidden states of conversations, and where their parts lie in them; see
        `motet.core.protocols.Features`.
        """
        with self._autocasting():
            return features(self.model, self.embedder, self.encoder, conversations)

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Int[Tensor, "B N"]:
        """The image tokens of pictures that were not drawn here; see `motet.policies.janus.images.encode_images`."""
        return encode_images(self.model, self.processor, images)

    @torch.no_grad()
    def reconstruct(self, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
        """Of each picture what the image tokenizer is shown, and what it makes of it: see `ReconstructingPolicy`."""
        return reconstructed(self.model, self.processor, images)

    def hidden_at(self, encodings: Sequence[Encoding], codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Last hidden states, normed, at the N image tokens that follow each of B contexts, with gradient.

        Each state has read its own token and all before it. Encode with `encoder.encode(..., draws=True, room=N + 1)`.
        """
        with self._autocasting():
            return hidden_at(self.model, self.embedder, encodings, codes)

    def num_tokens(self, act: Act) -> int:
        """Tokens that replaying the act costs, the unconditional branch included."""
        tokens = len(act.encoding.ids) + act.num_actions
        return 2 * tokens if act.sampling.guidance == "guided" else tokens

    def save(self, folder: Path) -> None:
        """Weights (or the adapter), config, tokenizer and processor, as `from_pretrained` reads them."""
        save_checkpoint(Path(folder), self.wrapped, self.processor)


def _image_tokens(model: Any, encoder: ContextEncoder) -> int:
    """How many tokens a picture has. Raises CheckpointError where model, tokenizer and processor differ."""
    side, tokens = model.config.vq_config.num_patches, model.config.vision_config.num_image_tokens
    if side * side != tokens or encoder.processor.num_image_tokens != tokens:
        raise CheckpointError(
            f"Pictures of this model have {side} x {side} tokens, but config.json says {tokens} and the processor "
            f"{encoder.processor.num_image_tokens}.",
            fix=f"set num_image_tokens to {side * side} in config.json and in processor_config.json.",
        )
    if model.config.image_token_id != encoder.image_id:
        raise CheckpointError(
            f"The tokenizer's {encoder.image_token} is token {encoder.image_id}, but config.json says "
            f"image_token_id={model.config.image_token_id}.",
            fix="use the tokenizer files that belong to this Janus checkpoint: 1B and 7B differ.",
        )
    return tokens
