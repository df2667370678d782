"""The vision-language policy: a Qwen2.5-VL or Qwen3-VL of transformers, generating and replaying text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from motet.core.trajectory import Encoding
from motet.numerics.transfers import index_on
from motet.policies.generation.forward import forward_rows, prefill
from motet.policies.generation.policy import LanguageModelPolicy
from motet.policies.generation.sampling import distinct
from motet.policies.qwen_vl.adapter import QwenVLAdapter
from motet.policies.qwen_vl.prefix_cache import PrefixCache


class VlmPolicy(LanguageModelPolicy):
    """A Qwen2.5-VL or Qwen3-VL. A diffusion transformer can be conditioned on its `hidden_after`."""

    adapter_type = QwenVLAdapter
    adapter: QwenVLAdapter

    def __init__(self, model: Any, processor: Any, **settings: Any) -> None:
        super().__init__(model, processor, **settings)
        self.prefixes = PrefixCache(self.adapter)

    def hidden_after(
        self, encodings: Sequence[Encoding], appended: Float[Tensor, "Q D"], keep: bool = False
    ) -> Float[Tensor, "B Q D"]:
        """Last hidden states, normed, of Q vectors appended to each of B contexts, with gradient to all that trains.

        The vectors attend to the context and to those before them; their positions are those of text that goes on. One
        call for the batch, in which an encoding that occurs again (the same object) is encoded once; with `keep` once
        over the calls too, where nothing of the language model trains (see `PrefixCache`). Encode with
        `encoder.encode_all(..., max_new_tokens=Q + 1)`, which raises ContextError for what does not fit.
        """
        if not encodings:
            return appended.new_zeros(0, *appended.shape)
        unique, places = distinct(encodings)
        with self._autocasting():
            if self.backbone_trains:
                self.prefixes.forget()
                hidden = self._hidden_after(unique, appended)
            else:
                hidden = self.prefixes.hidden_after_prefix(unique, appended, keep)
        return hidden[index_on(self.device, places)]

    def _hidden_after(self, encodings: Sequence[Encoding], appended: Float[Tensor, "Q D"]) -> Float[Tensor, "B Q D"]:
        """`hidden_after` with gradient to the contexts too."""
        language, prompts = self.adapter.language_model, self.adapter.embed_prompts(encodings)
        tail = appended.to(prompts[0].vectors)
        if not language.gradient_checkpointing:
            each = torch.arange(len(prompts), device=self.device)
            return prefill(language, prompts).continued(each).extend(tail.expand(len(prompts), -1, -1))
        rows = forward_rows(language, prompts, [tail] * len(prompts))  # a cache does not survive it
        starts = [len(prompt.vectors) for prompt in prompts]
        return torch.stack([row[n : n + len(tail)] for row, n in zip(rows, starts, strict=True)])
