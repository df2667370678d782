"""The forward pass over contexts whose continuations are decoded in a static cache: once for each distinct context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from motet.policies.generation.adapter import EmbeddedPrompt
from motet.policies.generation.fused_forward import finish, project, rms_norm
from motet.policies.generation.fused_weights import FusedLlama
from motet.policies.generation.static_cache import PrefilledContext

PREFILL_TOKENS = 16384
"""Most tokens, padding included, of one forward pass over contexts: what bounds its activations."""


class ContextStore:
    """Contexts by key, each prefilled when it is first needed and kept until the last sequence that continues it.

    `needed` lists the key of every use; `embed` embeds the contexts of some keys.
    """

    def __init__(
        self,
        snapshot: FusedLlama,
        needed: Sequence[Hashable],
        embed: Callable[[Sequence[Hashable]], list[EmbeddedPrompt]],
    ) -> None:
        self.snapshot, self.embed = snapshot, embed
        self.uses = Counter(needed)
        self.known: dict[Hashable, PrefilledContext] = {}

    def take(self, keys: Sequence[Hashable]) -> list[PrefilledContext]:
        """The contexts of keys, one use of each; those that are not known yet are prefilled together."""
        missing = [key for key in dict.fromkeys(keys) if key not in self.known]
        if missing:
            self.known.update(zip(missing, prefill_contexts(self.snapshot, self.embed(missing)), strict=True))
        taken = [self.known[key] for key in keys]
        self.uses.subtract(keys)
        for key in set(keys):
            if self.uses[key] <= 0:
                del self.known[key]
        return taken


def prefill_contexts(snapshot: FusedLlama, prompts: Sequence[EmbeddedPrompt]) -> list[PrefilledContext]:
    """Encode contexts in batches of at most `PREFILL_TOKENS` tokens."""
    return [context for batch in _batches(prompts) for context in _prefill(snapshot, batch)]


def _batches(prompts: Sequence[EmbeddedPrompt]) -> Iterator[list[EmbeddedPrompt]]:
    batch: list[EmbeddedPrompt] = []
    for prompt in prompts:
        longest = max(len(one.vectors) for one in [*batch, prompt])
        if batch and longest * (len(batch) + 1) > PREFILL_TOKENS:
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def _prefill(snapshot: FusedLlama, prompts: Sequence[EmbeddedPrompt]) -> list[PrefilledContext]:
    """One forward pass. Contexts are padded on the right, where a causal model never looks."""
    vectors = pad_sequence([prompt.vectors for prompt in prompts], batch_first=True)
    count, longest, width = vectors.shape
    cos, sin = (table.expand(count, -1, -1, -1).flatten(0, 1) for table in _angles(snapshot, prompts, longest))
    hidden = vectors.to(snapshot.norm.dtype).reshape(-1, width)
    deep = _deep_features(prompts, longest)
    layers: list[Tensor] = []
    for number, layer in enumerate(snapshot.layers):
        qkv = project(snapshot, layer, hidden, cos, sin).view(count, longest, -1, snapshot.head_dim).transpose(1, 2)
        queries, keys, values = qkv.split([snapshot.heads, snapshot.kv_heads, snapshot.kv_heads], dim=1)
        layers.append(torch.stack([keys, values]))
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, enable_gqa=snapshot.kv_heads < snapshot.heads
        )
        hidden = finish(snapshot, layer, hidden, mixed.transpose(1, 2).flatten(0, 1).flatten(1))
        if number < len(deep):
            hidden = hidden + deep[number].to(hidden.dtype)
    hidden = rms_norm(snapshot, hidden, snapshot.norm).view(count, longest, width)
    keys_values = torch.stack(layers, dim=1)
    lengths = [len(prompt.vectors) for prompt in prompts]
    return [
        PrefilledContext(keys_values[:, :, row, :, :length], hidden[row, length - 1], prompt.next_position)
        for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]


def _angles(snapshot: FusedLlama, prompts: Sequence[EmbeddedPrompt], longest: int) -> tuple[Tensor, Tensor]:
    """Rotary angles of every token, `[U, T, 1, E]`; U is 1 where all contexts count their tokens."""
    given = [prompt.positions.T for prompt in prompts if prompt.positions is not None]
    if not given:
        return snapshot.angles(torch.arange(longest, device=snapshot.device)[None])
    return snapshot.angles(pad_sequence(given, batch_first=True).permute(2, 0, 1))


def _deep_features(prompts: Sequence[EmbeddedPrompt], longest: int) -> list[Float[Tensor, "M D"]]:
    """What Qwen3-VL adds to the hidden states after each of its first layers: 0 but at image tokens."""
    depth = max(len(prompt.deep) for prompt in prompts)
    added = [prompts[0].vectors.new_zeros(len(prompts), longest, prompts[0].vectors.shape[1]) for _ in range(depth)]
    for row, prompt in enumerate(prompts):
        for level, features in enumerate(prompt.deep):
            assert prompt.visual is not None
            added[level][row].index_copy_(0, prompt.visual, features.to(added[level].dtype))
    return [level.flatten(0, 1) for level in added]
