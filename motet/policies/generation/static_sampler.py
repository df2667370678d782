"""From encoded prompts to sampled tokens through the static engine: one sampler for every family of language models."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from motet.core.errors import NumericsError
from motet.core.trajectory import Encoding, Sampling
from motet.numerics.transfers import index_on
from motet.policies.generation.adapter import EmbeddedPrompt, LanguageModelAdapter
from motet.policies.generation.decode_loop import (
    Decoded,
    check_context_length,
    check_finite,
    empty_decoded,
)
from motet.policies.generation.fused_weights import FusedLlama
from motet.policies.generation.sampling import FusedModel
from motet.policies.generation.static_cache import StaticCache, cache_shape
from motet.policies.generation.static_engine import BUCKET, DecodeStep, StaticEngine
from motet.policies.generation.static_prefill import ContextStore
from motet.policies.generation.static_step import SlotState, StepModel, decode_step


class StaticSampler:
    """Samples from one set of fused weights; on CUDA with one captured graph per length of the cache that is read.

    Engines of different kinds of act share the storage of their caches, and are kept from call to call where shapes and
    settings are the same. `step` is `decode_step`, or what `torch.compile` makes of it. Good until the model's next
    update: new weights mean a new sampler, whose graphs are captured again, because during training the memory of
    cache and graphs is worth more than the capture.
    """

    def __init__(self, model: FusedModel, *, step: DecodeStep = decode_step, bucket: int = BUCKET) -> None:
        self.model, self.step, self.bucket = model, step, bucket
        self.storage: Tensor | None = None
        self.engines: dict[str, tuple[Hashable, StaticEngine]] = {}

    @property
    def language(self) -> FusedLlama:
        """The fused weights."""
        return self.model.language

    @torch.no_grad()
    def sample(
        self,
        adapter: LanguageModelAdapter,
        encodings: Sequence[Encoding],
        kind: str,
        uniforms: Float[Tensor, "B N"],
        sampling: Sampling,
        *,
        slots: int | None = None,
        autocasting: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Decoded:
        """Up to N actions after each of B prompts, `slots` at once, None: all of them.

        Equal prompts (the same object) are encoded once; prompts are embedded under `autocasting()`.
        """
        if 0 in uniforms.shape:
            return empty_decoded(uniforms, sampling)
        if self.language.stale:
            raise RuntimeError("The model changed after this snapshot was taken; take a new one.")
        contexts = _Contexts(adapter, encodings, sampling.guidance != "none", autocasting)
        needed = adapter.num_positions(kind, uniforms.shape[1])
        check_context_length(contexts.longest, uniforms.shape[1], needed - 1, self.language.max_positions)
        engine = self._engine(adapter, kind, uniforms, sampling, (slots or len(encodings), contexts.longest + needed))
        store = ContextStore(self.language, [key for own in contexts.keys for key in own], contexts.embed)
        decoded = engine.run(store, contexts.keys, uniforms)
        try:
            check_finite(decoded.log_probs)
        except NumericsError:
            self.engines.clear()
            self.storage = None  # it holds NaN, which reaches whoever attends to it, however small the weight
            raise
        return decoded

    def _engine(
        self,
        adapter: LanguageModelAdapter,
        kind: str,
        uniforms: Tensor,
        sampling: Sampling,
        most: tuple[int, int],
    ) -> StaticEngine:
        """The engine of the last call of this kind, if it fits, or a new one: for so many slots and tokens per row."""
        slots, capacity = min(most[0], len(uniforms)), -(-most[1] // self.bucket) * self.bucket
        key = (slots, capacity, uniforms.shape[1], uniforms.dtype, sampling)
        known = self.engines.pop(kind, None)
        if known is None or known[0] != key:
            stops = index_on(uniforms.device, adapter.stop_ids) if kind == "text" else None
            model = StepModel(self.language, *self.model.modules[kind], sampling, stops)
            rows = slots * (1 if sampling.guidance == "none" else 2)
            known = (
                key,
                StaticEngine(
                    model,
                    StaticCache.over(self.language, self._storage(rows, capacity), rows, capacity),
                    SlotState.empty(slots, uniforms.shape[1], uniforms),
                    separator=adapter.separator(kind),
                    step=self.step,
                    bucket=self.bucket,
                ),
            )
        self.engines[kind] = known
        return known[1]

    def _storage(self, rows: int, capacity: int) -> Tensor:
        """A flat tensor that is large enough; the engines over a smaller one go with it."""
        size = cache_shape(self.language, rows, capacity).numel()
        if self.storage is None or self.storage.numel() < size:
            self.engines.clear()
            self.storage = None  # free it first
            self.storage = torch.zeros(size, dtype=self.language.dtype, device=self.language.device)
        return self.storage


class _Contexts:
    """The contexts that B sequences continue: the prompt, and with guidance the prompt of the unconditional branch."""

    def __init__(
        self,
        adapter: LanguageModelAdapter,
        encodings: Sequence[Encoding],
        guided: bool,
        autocasting: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.adapter, self.autocasting = adapter, autocasting
        self.prompts: dict[Hashable, Encoding | Tensor] = {}
        self.keys: list[tuple[Hashable, ...]] = []
        for encoding in encodings:
            own: list[Hashable] = [id(encoding)]
            self.prompts[id(encoding)] = encoding
            if guided:
                assert encoding.null_ids is not None
                own.append(tuple(encoding.null_ids.tolist()))
                self.prompts[own[1]] = encoding.null_ids
            self.keys.append(tuple(own))

    @property
    def longest(self) -> int:
        """Tokens of the longest context."""
        return max(len(prompt.ids if isinstance(prompt, Encoding) else prompt) for prompt in self.prompts.values())

    def embed(self, keys: Sequence[Hashable]) -> list[EmbeddedPrompt]:
        """The contexts of some keys as input of the language model; all their images in one pass."""
        chosen = [self.prompts[key] for key in keys]
        encodings = [prompt for prompt in chosen if isinstance(prompt, Encoding)]
        with self.autocasting():
            embedded = iter(self.adapter.embed_prompts(encodings) if encodings else ())
            return [next(embedded) if isinstance(p, Encoding) else self.adapter.embed_ids(p) for p in chosen]
