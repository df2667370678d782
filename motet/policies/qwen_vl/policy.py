"""The vision-language policy: a Qwen2.5-VL or Qwen3-VL of transformers, as something that writes and replays."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from motet.core.errors import CheckpointError
from motet.core.protocols import Replay, Request
from motet.core.trajectory import Act, ActKind, Sampling, TextTokens
from motet.policies.checkpoints import save_checkpoint
from motet.policies.generation.acts import act_fields, text_acts
from motet.policies.generation.decode_loop import generate_from_state
from motet.policies.generation.noise import action_uniforms
from motet.policies.qwen_vl.embeddings import VlmEmbedder
from motet.policies.qwen_vl.forward import forward_rows, prefill, without_checkpointing
from motet.policies.qwen_vl.prefix_cache import PrefixCache
from motet.policies.qwen_vl.prompt_encoding import VlmEncoder, VlmEncoding
from motet.policies.qwen_vl.replay import replay
from motet.policies.transformers_policy import TransformersPolicy


class VlmPolicy(TransformersPolicy):
    """A Qwen2.5-VL or Qwen3-VL that writes about what it is shown. Implements `motet.core.protocols.TrainablePolicy`.

    `autocast` is the compute type of replay, `rollout_autocast` that of sampling; None computes in the weights' own.
    `rollout_batch` sequences are sampled at once; None: as many as are asked for.
    """

    kinds: frozenset[ActKind] = frozenset({"text"})

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
        self.encoder = VlmEncoder(processor, self.model.config)
        self.embedder = VlmEmbedder(self.model, self.encoder.image_id)
        self.prefixes = PrefixCache(self.embedder)
        self.stop_ids = _stop_ids(self.model, self.encoder)
        _refuse_sliding_windows(self.model)

    # ---- acting -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Perform text requests, in order. A context that several share is encoded and prefilled once.

        Text is never guided. Raises ContextError for a context that leaves no room for `sampling.max_tokens`.
        """
        _require_text(requests)
        if sampling.guidance != "none":
            sampling = replaced(sampling, guidance="none", guidance_scale=1.0)
        encodings = self.encoder.encode_all([request.context for request in requests], room=sampling.max_tokens)
        size = self.rollout_batch or len(requests)
        return [
            act
            for n in range(0, len(requests), size or 1)
            for act in self._write(requests[n : n + size], encodings[n : n + size], sampling)
        ]

    def _write(self, requests: Sequence[Request], encodings: Sequence[VlmEncoding], sampling: Sampling) -> list[Act]:
        """Requests that are sampled as one batch."""
        unique = {id(encoding): encoding for encoding in encodings}
        place = {key: number for number, key in enumerate(unique)}
        owner = torch.tensor([place[id(encoding)] for encoding in encodings], device=self.device)
        language = self.model.model.language_model
        with self._rollout_autocasting(), without_checkpointing(language):
            prefix = prefill(language, self.embedder.contexts(list(unique.values())))
            decoded = generate_from_state(
                prefix.last[owner],
                prefix.continued(owner),
                head=self.model.lm_head,
                embed=self.embedder.words,
                uniforms=action_uniforms([request.key for request in requests], sampling.max_tokens, self.device),
                sampling=sampling,
                stop_ids=self.stop_ids,
            )
        fields = act_fields(requests, encodings, decoded, sampling, self.version)
        return text_acts(decoded, fields, self.encoder.tokenizer, self.stop_ids)

    # ---- learning ---------------------------------------------------------------------------------------------------

    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts that demonstrate the targets, which are strings. Raises ContextError for one that does not fit."""
        _require_text(requests)
        acts: list[Act] = []
        for request, target in zip(requests, targets, strict=True):
            ids = torch.tensor([*self.encoder.text_ids(target), self.encoder.eos_id])
            acts.append(
                TextTokens(
                    name=request.name,
                    context=request.context,
                    encoding=self.encoder.encode(request.context, room=len(ids)),
                    sampling=Sampling(),
                    log_probs=None,
                    trained=request.trained,
                    ids=ids,
                    text=target,
                    finished=True,
                )
            )
        return acts

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """Log-probs of the acts' scoring distributions under the current weights, with gradient; one forward pass.

        Offers `entropy` of the scoring distribution.
        """
        with self._autocasting():
            return replay(self.model, self.embedder, acts, needs) if acts else []

    def hidden_after(
        self, encodings: Sequence[VlmEncoding], appended: Float[Tensor, "Q D"], keep: bool = False
    ) -> Float[Tensor, "B Q D"]:
        """Last hidden states, normed, of Q vectors appended to each of B contexts, with gradient to all that trains.

        The vectors look at the context and at those before them; their positions are those of text that goes on. One
        call for the batch, in which an encoding that occurs again (the same object) is read once; with `keep` once over
        the calls too, where nothing of the reading trains (see `PrefixCache`). Encode with
        `encoder.encode_all(..., room=Q + 1)`, which refuses what does not fit.
        """
        if not encodings:
            return appended.new_zeros(0, *appended.shape)
        unique = {id(encoding): encoding for encoding in encodings}
        place = {key: number for number, key in enumerate(unique)}
        with self._autocasting():
            if self.backbone_trains:
                self.prefixes.forget()
                hidden = self._read_whole(list(unique.values()), appended)
            else:
                hidden = self.prefixes.after(list(unique.values()), appended, keep)
        return hidden[torch.tensor([place[id(encoding)] for encoding in encodings], device=self.device)]

    def _read_whole(self, encodings: Sequence[VlmEncoding], appended: Float[Tensor, "Q D"]) -> Float[Tensor, "B Q D"]:
        """`hidden_after` with gradient to the contexts too."""
        language, contexts = self.model.model.language_model, self.embedder.contexts(encodings)
        tail = appended.to(contexts[0].vectors)
        if not language.gradient_checkpointing:
            each = torch.arange(len(contexts), device=self.device)
            return prefill(language, contexts).continued(each).extend(tail.expand(len(contexts), -1, -1))
        read = forward_rows(language, contexts, [tail] * len(contexts))  # a cache does not survive it
        starts = [len(context.vectors) for context in contexts]
        return torch.stack([row[n : n + len(tail)] for row, n in zip(read, starts, strict=True)])

    def num_tokens(self, act: Act) -> int:
        """Tokens that replaying the act costs: its context, merged patches included, and its own."""
        return len(act.encoding.ids) + act.num_actions

    def save(self, folder: Path) -> None:
        """Weights (or the adapter), config, tokenizer and image processor, as `from_pretrained` reads them."""
        save_checkpoint(Path(folder), self.wrapped, self.processor)


def _require_text(requests: Sequence[Request]) -> None:
    others = {request.kind for request in requests} - {"text"}
    if others:
        raise ValueError(f"A vision-language policy writes text; it cannot perform {sorted(others)}.")


def _stop_ids(model: Any, encoder: VlmEncoder) -> tuple[int, ...]:
    """Tokens that end a text: the end of the turn, and whatever else the model's own `generate` stops at."""
    declared = model.generation_config.eos_token_id
    listed = declared if isinstance(declared, list | tuple) else [] if declared is None else [declared]
    return tuple(dict.fromkeys([encoder.eos_id, *map(int, listed)]))


def _refuse_sliding_windows(model: Any) -> None:
    """Contexts are padded on the right, so columns are not distances: a window would be measured wrongly."""
    if "sliding_attention" in (getattr(model.config.text_config, "layer_types", None) or ()):
        raise CheckpointError(
            "config.json says use_sliding_window=true, which motet cannot sample with.",
            fix="set text_config.use_sliding_window=false; published Qwen-VL checkpoints do.",
        )
