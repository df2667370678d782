"""The Janus policy: `JanusForConditionalGeneration` itself, as something that writes, draws and replays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import torch
from torch import nn

from motet.config import LoraConfig
from motet.conversation import Conversation
from motet.errors import CheckpointError, ConfigError
from motet.policies.decoding.loop import Decoded, decode
from motet.policies.door import NotebookDoor
from motet.policies.janus.checkpoint import save_janus, settle_generation_config
from motet.policies.janus.contexts import ContextEncoder
from motet.policies.janus.embeddings import Embedder
from motet.policies.janus.features import features
from motet.policies.janus.pictures import codes_of, decode_pictures
from motet.policies.janus.replay import replay
from motet.policies.janus.sampling import Sampler, prefixes_of
from motet.policies.lora import is_identity, wrap
from motet.policies.noise import uniforms
from motet.policies.parts import Reference, choose_parts
from motet.protocols import Features, Replay, Request
from motet.trajectory import Act, ActKind, Encoding, ImageTokens, Sampling, TextTokens


class JanusPolicy(NotebookDoor):
    """A Janus or Janus-Pro checkpoint that acts. Implements `motet.protocols.Policy`.

    `autocast` is the compute type of replay, and of sampling on an accelerator; None computes in the weights' own.
    `rollout_batch` sequences are sampled at once (guidance doubles each); None: as many as are asked for.
    """

    kinds: frozenset[ActKind] = frozenset({"text", "image"})

    def __init__(
        self, model: Any, processor: Any, *, autocast: torch.dtype | None = None, rollout_batch: int | None = None
    ) -> None:
        self.wrapped = model  # a peft model when adapters train, else the model itself
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.processor = processor
        self.autocast = autocast
        self.rollout_batch = rollout_batch
        self.version = 0
        self.encoder = ContextEncoder(processor, self.model.config.text_config.max_position_embeddings)
        self.embedder = Embedder(self.model, self.encoder.image_id)
        self.num_image_tokens = _image_tokens(self.model, self.encoder)
        self._sampler: tuple[int, Sampler] | None = None
        self._reference: Reference | None = None
        settle_generation_config(self.model, self.encoder)
        self.model.eval()

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
        with self._autocasting():
            prefixes, rows, null_rows = prefixes_of(self.embedder, encodings)
        sampler = self._sampling()
        decoded = decode(
            sampler.language,
            prefixes,
            rows,
            null_rows,
            head=sampler.image_head if draws else sampler.text_head,
            embed=sampler.image_embed if draws else sampler.text_embed,
            uniforms=uniforms([request.key for request in requests], room).to(self.device),
            sampling=sampling,
            stop_id=None if draws else self.encoder.eos_id,
        )
        common = _common(requests, encodings, decoded, sampling, self.version)
        return self._image_acts(decoded, common) if draws else self._text_acts(decoded, common)

    def _image_acts(self, decoded: Decoded, common: Sequence[dict[str, Any]]) -> list[Act]:
        with self._autocasting():
            pictures = decode_pictures(self.model, decoded.ids)
        each = zip(decoded.ids.cpu(), pictures, common, strict=True)
        return [ImageTokens(ids=ids.clone(), image=picture, **fields) for ids, picture, fields in each]

    def _text_acts(self, decoded: Decoded, common: Sequence[dict[str, Any]]) -> list[Act]:
        acts: list[Act] = []
        for row, length, fields in zip(decoded.ids.cpu(), decoded.lengths.tolist(), common, strict=True):
            ids = row[:length].clone()
            finished = bool(length) and int(ids[-1]) == self.encoder.eos_id
            text = self.encoder.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=False)
            acts.append(TextTokens(ids=ids, text=text, finished=finished, **fields))
        return acts

    def _sampling(self) -> Sampler:
        """The sampler of the present weights."""
        known = self._sampler
        if known is None or known[0] != self.version or known[1].language.stale:
            self._sampler = None  # free the old one first
            known = self._sampler = (self.version, Sampler.take(self.model, self.autocast))
        return known[1]

    # ---- learning ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def transcribe(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts that demonstrate the targets: a string for a text request, a picture for an image request."""
        acts: list[Act] = []
        pictures = [target for r, target in zip(requests, targets, strict=True) if r.kind == "image"]
        codes = iter(codes_of(self.model, self.processor, pictures) if pictures else ())
        for request, target in zip(requests, targets, strict=True):
            draws = request.kind == "image"
            ids = next(codes) if draws else torch.tensor([*self.encoder.text_ids(target), self.encoder.eos_id])
            seen = self.encoder.encode(request.context, draws=draws, with_null=request.blank, room=len(ids))
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
        with self._autocasting():
            return replay(self.model, self.embedder, acts, needs) if acts else []

    @torch.no_grad()
    def features(self, conversations: Sequence[Conversation]) -> list[Features]:
        """Last hidden states of conversations, and where their parts lie in them; see `motet.protocols.Features`."""
        with self._autocasting():
            return features(self.model, self.embedder, self.encoder, conversations)

    def cost(self, act: Act) -> int:
        """Tokens that replaying the act costs, the unconditional branch included."""
        tokens = len(act.encoding.ids) + act.num_actions
        return 2 * tokens if act.sampling.guidance == "guided" else tokens

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What can train, by the names that `policy.train` uses."""
        return {**dict(self.model.model.named_children()), "lm_head": self.model.lm_head}

    def train_parts(self, names: Sequence[str]) -> None:
        """Choose what trains; everything else is frozen."""
        if self.wrapped is not self.model:
            raise ConfigError("Adapters train already.", fix="choose policy.train or policy.lora, not both.")
        choose_parts(self.parts, names)
        if self.autocast is None:
            self.model.float()  # what trains is float32, and without autocast all must be of one type
        self._sampler = None

    def add_lora(self, config: LoraConfig) -> None:
        """Train adapters on the language model's linear layers instead of weights."""
        self.wrapped = wrap(self.model, config)
        self._sampler = None

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def freeze_reference(self) -> None:
        """Remember the present weights as the reference of the KL.

        Fresh adapters need no copy: they are switched off. A loaded adapter is copied, because the run starts from it.
        """
        fresh = self.wrapped is not self.model and is_identity(self.wrapped)
        self._reference = None if fresh else Reference(self.trainable())

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the policy answers with the reference's weights, without gradient."""
        if self._reference is None and self.wrapped is self.model:
            raise RuntimeError("freeze_reference() was never called")
        swapped = self.wrapped.disable_adapter() if self._reference is None else self._reference.active()
        sampler, self._sampler = self._sampler, None
        try:
            with swapped, torch.no_grad():
                yield
        finally:
            self._sampler = sampler

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.embedder.device

    def save(self, folder: Path) -> None:
        """Weights (or the adapter), config, tokenizer and processor, as `from_pretrained` reads them."""
        save_janus(Path(folder), self.wrapped, self.processor)

    def _autocasting(self) -> Any:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)


def _common(
    requests: Sequence[Request], encodings: Sequence[Encoding], decoded: Decoded, sampling: Sampling, version: int
) -> list[dict[str, Any]]:
    """What acts of both kinds remember."""
    scored, lengths = decoded.log_probs.cpu(), decoded.lengths.tolist()
    behaviour = None if decoded.behaviour_log_probs is None else decoded.behaviour_log_probs.cpu()
    return [
        {
            "name": request.name,
            "context": request.context,
            "encoding": encoding,
            "sampling": sampling,
            "log_probs": scored[n, :length].clone(),
            "behaviour_log_probs": None if behaviour is None else behaviour[n, :length].clone(),
            "trained": request.trained,
            "policy_version": version,
        }
        for n, (request, encoding, length) in enumerate(zip(requests, encodings, lengths, strict=True))
    ]


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
