"""Keys and values of contexts under a frozen language model, for whatever goes on from them.

They are computed without gradient and do not change, so that a context is encoded once however often it is continued:
in sampling, by the reference weights, and in every micro-batch of every pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from motet.core.trajectory import Encoding
from motet.numerics.transfers import index_on
from motet.policies.generation.adapter import LanguageModelAdapter
from motet.policies.generation.forward import KVCacheContinuation, PrefillOutput, prefill
from motet.policies.generation.shared_prefix import ReadOnlyPrefix, checkpointing_with_cache, without_checkpointing


@dataclass(frozen=True, eq=False)
class Prefix:
    """One context: of every layer its keys and values `[T, heads, features]`, and where text goes on."""

    layers: tuple[tuple[Float[Tensor, "T H D"], Float[Tensor, "T H D"]], ...]
    next_position: int
    axes: int | None


class PrefixCache:
    """Contexts that a frozen language model has encoded.

    One that is encoded without gradient (in sampling, or by the reference weights) will be needed again: `keep` caches
    it for the life of its encoding, which lives as long as the acts that share it.
    """

    def __init__(self, adapter: LanguageModelAdapter) -> None:
        self.adapter = adapter
        self._known: WeakKeyDictionary[Encoding, Prefix] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, encoding: Encoding) -> bool:
        return encoding in self._known

    def forget(self) -> None:
        """While the weights train: cached values would be stale."""
        self._known.clear()

    def hidden_after_prefix(
        self, encodings: Sequence[Encoding], appended: Float[Tensor, "Q D"], keep: bool
    ) -> Float[Tensor, "B Q D"]:
        """Hidden states of Q vectors appended to each of B distinct contexts, with gradient to the vectors alone."""
        language = self.adapter.language_model
        prefixes = self._read(language, encodings, keep and not torch.is_grad_enabled())
        tail = appended.to(language.embed_tokens.weight).expand(len(encodings), -1, -1)
        with checkpointing_with_cache(language):
            return _batch_prefixes(language, prefixes).extend(tail)

    @torch.no_grad()
    def _read(self, language: Any, encodings: Sequence[Encoding], keep: bool) -> list[Prefix]:
        """What is known of the contexts, and what one pass reads now."""
        found = {encoding: self._known[encoding] for encoding in encodings if encoding in self._known}
        missing = [encoding for encoding in encodings if encoding not in found]
        if missing:
            with without_checkpointing(language):
                read = dict(
                    zip(missing, _split_batch(prefill(language, self.adapter.embed_prompts(missing))), strict=True)
                )
            found |= read
            if keep:
                self._known.update(read)
        return [found[encoding] for encoding in encodings]


def _split_batch(read: PrefillOutput) -> list[Prefix]:
    """Each context on its own, without the padding of the batch that it was read in."""
    prefixes = []
    for n, (length, following) in enumerate(zip(read.lengths.tolist(), read.next_positions.tolist(), strict=True)):
        layers = [
            tuple(part[n, :, :length].transpose(0, 1).clone() for part in (layer.keys, layer.values))
            for layer in read.cache.layers
        ]
        prefixes.append(Prefix(tuple(layers), following, read.axes))
    return prefixes


def _batch_prefixes(language: Any, prefixes: Sequence[Prefix]) -> KVCacheContinuation:
    """A row for each context, padded on the right."""
    cache = DynamicCache()
    for number, parts in enumerate(zip(*(prefix.layers for prefix in prefixes), strict=True)):
        keys, values = (pad_sequence(list(part), batch_first=True).transpose(1, 2) for part in zip(*parts, strict=True))
        cache.update(keys, values, number)
    device = language.embed_tokens.weight.device
    lengths = [len(prefix.layers[0][0]) for prefix in prefixes]
    following = index_on(device, [prefix.next_position for prefix in prefixes])
    columns = torch.arange(max(lengths), device=device)
    seen = columns < index_on(device, lengths).unsqueeze(1) if min(lengths) < max(lengths) else None
    return KVCacheContinuation(language, ReadOnlyPrefix(cache), seen, following, prefixes[0].axes)
