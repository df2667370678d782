"""The Janus policy: `JanusForConditionalGeneration` itself, as something that writes, draws and replays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from motet.config import LoraConfig
from motet.conversation import Conversation, user
from motet.errors import CheckpointError, DataError
from motet.policies.decoding.loop import Decoded, Prefixes, decode
from motet.policies.decoding.snapshot import LanguageSnapshot
from motet.policies.janus.contexts import ContextEncoder
from motet.policies.janus.pictures import to_pictures
from motet.policies.janus.replay import Embedder, replay
from motet.policies.noise import uniforms
from motet.policies.parts import Reference, choose_parts
from motet.protocols import Replay, Request
from motet.trajectory import Act, ActKind, Encoding, ImageTokens, Sampling, TextTokens

Prompt = str | Conversation


class JanusPolicy:
    """A Janus or Janus-Pro checkpoint that acts. Implements `motet.protocols.Policy`."""

    kinds: frozenset[ActKind] = frozenset({"text", "image"})

    def __init__(self, model: Any, processor: Any, *, autocast: torch.dtype | None = None) -> None:
        self.wrapped = model  # a peft model when adapters train, else the model itself
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.processor = processor
        self.autocast = autocast
        self.version = 0
        text_config = self.model.config.text_config
        self.encoder = ContextEncoder(processor, text_config.max_position_embeddings)
        self.embedder = Embedder(self.model, self.encoder.image_id)
        self._snapshot: tuple[int, LanguageSnapshot] | None = None
        self._reference: Reference | None = None
        side = self.model.config.vq_config.num_patches
        tokens = self.model.config.vision_config.num_image_tokens
        if side * side != tokens:
            raise CheckpointError(
                f"vision_config.num_image_tokens is {tokens}, but pictures of this model have {side} x {side} tokens.",
                fix=f"set num_image_tokens to {side * side} in config.json and in the processor's config.",
            )
        self.num_image_tokens = tokens
        self.model.eval()

    # ---- acting -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Perform requests of one kind in order. Identical contexts are encoded and prefilled once."""
        if not requests:
            return []
        draws = requests[0].kind == "image"
        room = self.num_image_tokens if draws else sampling.max_tokens
        if not draws and sampling.guidance != "none":
            sampling = replaced(sampling, guidance="none", guidance_scale=1.0)  # text is never guided
        encodings = self._encode(requests, draws=draws, with_null=sampling.guidance != "none", room=room)
        prefixes, rows, null_rows = self._prefixes(encodings)
        head: Callable[[Tensor], Tensor] = self.model.model.generation_head if draws else self.model.lm_head
        with self._autocasting():
            decoded = decode(
                self._language(),
                prefixes,
                rows,
                null_rows,
                head,
                self.embedder.image if draws else self.embedder.text,
                uniforms([request.key for request in requests], room).to(self.device),
                sampling,
                None if draws else self.encoder.eos_id,
            )
            pictures = to_pictures(self.model.model.vqmodel.decode(decoded.ids)) if draws else []
        if draws:
            return [
                ImageTokens(
                    ids=decoded.ids[n].cpu(), image=pictures[n], **self._common(r, encodings[n], decoded, n, sampling)
                )
                for n, r in enumerate(requests)
            ]
        return [self._text_act(r, encodings[n], decoded, n, sampling) for n, r in enumerate(requests)]

    def _common(
        self, request: Request, encoding: Encoding, decoded: Decoded, number: int, sampling: Sampling
    ) -> dict[str, Any]:
        length = int(decoded.lengths[number])
        behaviour = decoded.behaviour_log_probs
        return {
            "name": request.name,
            "context": request.context,
            "encoding": encoding,
            "sampling": sampling,
            "log_probs": decoded.log_probs[number, :length].float().cpu(),
            "behaviour_log_probs": None if behaviour is None else behaviour[number, :length].float().cpu(),
            "trained": request.trained,
            "policy_version": self.version,
        }

    def _text_act(
        self, request: Request, encoding: Encoding, decoded: Decoded, number: int, sampling: Sampling
    ) -> TextTokens:
        ids = decoded.ids[number, : int(decoded.lengths[number])].cpu()
        finished = bool(len(ids)) and int(ids[-1]) == self.encoder.eos_id
        return TextTokens(
            ids=ids,
            text=self.encoder.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=False),
            finished=finished,
            **self._common(request, encoding, decoded, number, sampling),
        )

    def _encode(self, requests: Sequence[Request], *, draws: bool, with_null: bool, room: int) -> list[Encoding]:
        known: dict[int, Encoding] = {}
        for request in requests:
            if id(request.context) not in known:
                known[id(request.context)] = self.encoder.encode(
                    request.context, draws=draws, with_null=with_null, room=room
                )
        return [known[id(request.context)] for request in requests]

    def _prefixes(self, encodings: Sequence[Encoding]) -> tuple[Prefixes, Tensor, Tensor | None]:
        """Distinct contexts, then distinct unconditional branches, left-padded; and each sequence's rows in them."""
        unique = list({id(e): e for e in encodings}.values())
        place = {id(e): n for n, e in enumerate(unique)}
        embedded = self.embedder.contexts(unique)
        null_rows = None
        if encodings[0].null_ids is not None:
            nulls: dict[tuple[int, ...], int] = {}
            null_place = {}
            for encoding in unique:
                assert encoding.null_ids is not None
                null_place[id(encoding)] = nulls.setdefault(tuple(encoding.null_ids.tolist()), len(nulls))
            embedded += [self.embedder.text(torch.tensor(ids, device=self.device)) for ids in nulls]
            null_rows = torch.tensor([len(unique) + null_place[id(e)] for e in encodings], device=self.device)
        longest = max(len(e) for e in embedded)
        table = embedded[0].new_zeros(len(embedded), longest, embedded[0].shape[-1])
        mask = torch.zeros(len(embedded), longest, dtype=torch.bool, device=self.device)
        for row, vectors in enumerate(embedded):
            table[row, longest - len(vectors) :] = vectors
            mask[row, longest - len(vectors) :] = True
        rows = torch.tensor([place[id(e)] for e in encodings], device=self.device)
        return Prefixes(table, mask), rows, null_rows

    def _language(self) -> LanguageSnapshot:
        if self._snapshot is None or self._snapshot[0] != self.version:
            self._snapshot = None  # free the old one first
            self._snapshot = (self.version, LanguageSnapshot.take(self.model.model.language_model, self.autocast))
        return self._snapshot[1]

    # ---- a notebook's door ------------------------------------------------------------------------------------------

    def draw(
        self, prompts: Prompt | Sequence[Prompt], n: int = 1, *, seed: int = 0, **sampling: Any
    ) -> list[ImageTokens]:
        """Draw `n` pictures for each prompt, in prompt order; each act has `.image`. Keywords as in `Sampling`."""
        return self._ask("image", prompts, n, seed, Sampling(**sampling))  # type: ignore[return-value]

    def write(
        self,
        prompts: Prompt | Sequence[Prompt],
        images: Sequence[Image.Image] | None = None,
        n: int = 1,
        *,
        seed: int = 0,
        **sampling: Any,
    ) -> list[TextTokens]:
        """Write `n` texts for each prompt, each about its picture if `images` are given; each act has `.text`."""
        asked = [prompts] if isinstance(prompts, str | Conversation) else list(prompts)
        if images is not None:
            if len(images) != len(asked):
                raise DataError(f"{len(images)} images for {len(asked)} prompts.", fix="give one image per prompt.")
            asked = [user(i, p) if isinstance(p, str) else user(i) + p for i, p in zip(images, asked, strict=True)]
        sampling.setdefault("max_tokens", 128)
        return self._ask("text", asked, n, seed, Sampling(**sampling))  # type: ignore[return-value]

    def _ask(
        self, kind: ActKind, prompts: Prompt | Sequence[Prompt], n: int, seed: int, sampling: Sampling
    ) -> list[Act]:
        asked = [prompts] if isinstance(prompts, str | Conversation) else list(prompts)
        contexts = [user(p) if isinstance(p, str) else p for p in asked]
        return self.act(
            [Request(kind, kind, c, (seed, k, g)) for k, c in enumerate(contexts) for g in range(n)], sampling
        )

    @torch.no_grad()
    def log_probs(self, acts: Sequence[Act]) -> list[Tensor]:
        """Log-probs `[N]` of each act under the current weights, without gradient."""
        return [r.log_probs.cpu() for r in self.replay(acts)]

    # ---- learning ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def transcribe(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts that demonstrate the targets: a string for a text request, a picture for an image request."""
        acts: list[Act] = []
        pictures = [t for r, t in zip(requests, targets, strict=True) if r.kind == "image"]
        codes = iter(self._codes(pictures)) if pictures else iter(())
        for request, target in zip(requests, targets, strict=True):
            draws = request.kind == "image"
            common: dict[str, Any] = {
                "name": request.name,
                "context": request.context,
                "sampling": Sampling(),
                "log_probs": None,
            }
            if draws:
                ids = next(codes)
            else:
                ids = torch.tensor([*self.encoder.text_ids(str(target)), self.encoder.eos_id])
            common["encoding"] = self._encode([request], draws=draws, with_null=False, room=len(ids))[0]
            if draws:
                acts.append(ImageTokens(ids=ids, image=target, **common))
            else:
                acts.append(TextTokens(ids=ids, text=str(target), finished=True, **common))
        return acts

    def _codes(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Codebook indices `[B, N]` of pictures, resized to the model's own size first."""
        pixels = self.processor.image_processor(images=[p.convert("RGB") for p in pictures], return_tensors="pt")
        vq = self.model.model.vqmodel
        tokens = vq.encode(pixels["pixel_values"].to(self.device, vq.dtype)).image_tokens
        return tokens.view(len(pictures), -1).cpu()

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs of the acts' scoring distributions under the current weights, with gradient; one forward pass."""
        with self._autocasting():
            return replay(self.model, self.embedder, acts, needs) if acts else []

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
        choose_parts(self.parts, names)

    def add_lora(self, config: LoraConfig) -> None:
        """Train adapters on the language model's linear layers instead of weights."""
        from motet.policies.lora import wrap

        self.wrapped = wrap(self.model, config)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def freeze_reference(self) -> None:
        """Remember the present weights as the reference of the KL. Adapters need no copy: they are switched off."""
        self._reference = None if self.wrapped is not self.model else Reference(self.trainable())

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, replay answers with the reference's weights."""
        if self.wrapped is not self.model:
            with self.wrapped.disable_adapter(), torch.no_grad():
                yield
        elif self._reference is None:
            raise RuntimeError("freeze_reference() was never called")
        else:
            with self._reference.active():
                yield

    @property
    def device(self) -> torch.device:
        return self.model.lm_head.weight.device

    def _autocasting(self) -> Any:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)

    def save(self, folder: Path) -> None:
        """Weights (or the adapter), config, tokenizer and processor, as `from_pretrained` reads them."""
        self.wrapped.save_pretrained(folder)
        self.processor.save_pretrained(folder)
