"""Bytes that a forward pass keeps for its backward pass: exact for the decoders, by what each operation saves.

Letters: D width, H heads, K key/value heads, E width of a head, I width of the MLP, L layers; e bytes of an element in
the compute type (4, or 2 under bfloat16 autocast). Residual stream and norms are float32 in both.
"""

from __future__ import annotations

from dataclasses import dataclass

from motet.estimation.model_size import BFLOAT16, FLOAT32, LanguageSize, element_size


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of one forward pass: `queries` go through the layers, `keys` are attended to (with a shared prefix each
    row has its own copy of the prefix's keys), `scores` is the sum over rows of queries x keys.
    """

    queries: int
    keys: int
    scores: int

    @classmethod
    def of_rows(cls, rows: int, length: int) -> TokenCounts:
        """Rows of equal length, each on its own."""
        return cls(rows * length, rows * length, rows * length * length)

    @classmethod
    def with_shared_prefix(cls, prompts: int, context: int, rows: int, tail: int) -> TokenCounts:
        """Every prompt once, then every row's own tokens over the keys of its prompt."""
        first = cls.of_rows(prompts, context)
        whole = context + tail
        return cls(first.queries + rows * tail, first.keys + rows * whole, first.scores + rows * tail * whole)


def layer_bytes(size: LanguageSize, dtype: str, tokens: TokenCounts) -> int:
    """What one decoder layer of Llama's kind keeps, casts of its weights apart.

    Per query token, two RMS norms keep their input and the normed values, 4 D of float32, and 2 of float32 for the
    root mean squares. The linear layers keep their inputs: in float32 one copy for queries, keys and values, one for
    gate and up, and the attention's output, (2 D + H E); under autocast each casts its own, (5 D + H E) e. The MLP
    keeps the gate, its SiLU, the up projection and their product, 4 I e. Attention keeps queries H E e, and per key
    token 2 K E e of keys and values (in `eager` repeated to all heads, 2 H E e); `flash` also 4 H of log-sums, `eager`
    the softmax, 4 H per pair of query and key, and its cast under autocast, 2 H. Norms of queries and keys (Qwen3)
    keep (E (4 + e) + 4) for each of the H + K heads.
    """
    d, h, k, e_head, element = size.width, size.heads, size.kv_heads, size.head_dim, element_size(dtype)
    halved = dtype == "bfloat16"
    norms = FLOAT32 * (4 * d + 2)
    if size.qk_norm:
        norms += (h + k) * (e_head * (FLOAT32 + element) + FLOAT32)
    inputs = ((5 if halved else 2) * d + h * e_head) * element
    mlp = 4 * size.intermediate * element
    eager = size.attention == "eager"
    queries = h * e_head * element + (0 if eager else FLOAT32 * h)
    keys = 2 * (h if eager else k) * e_head * element
    scores = h * (FLOAT32 + (BFLOAT16 if halved else 0)) if eager else 0
    return tokens.queries * (norms + inputs + mlp + queries) + tokens.keys * keys + tokens.scores * scores


@dataclass(frozen=True)
class Kept:
    """Bytes of activations, and of copies of trainable weights in the compute type."""

    activations: int
    casts: int


def language_bytes(
    size: LanguageSize, dtype: str, tokens: TokenCounts, *, checkpointing: bool, cast: int = 0
) -> tuple[Kept, Kept]:
    """What the decoder keeps when its forward pass ends, and at most during the backward pass.

    That is all layers, and the last norm's input and output, 2 D + 1 of float32 per token; under autocast also a copy
    of the `cast` parameters that train, 2 bytes each, which forward and backward pass share. With gradient
    checkpointing the forward pass keeps each layer's float32 input, 4 D per token, and autocast's copies live until it
    ends; the backward pass makes one layer's activations and copies again. A frozen decoder with adapters keeps
    slightly less, as its norms keep no normed values; below the first gradient (`trains` False) nothing is kept.
    """
    copies = BFLOAT16 * cast if dtype == "bfloat16" else 0
    if not size.trains:
        return Kept(0, 0), Kept(0, 0)
    one, last = layer_bytes(size, dtype, tokens), tokens.queries * FLOAT32 * (2 * size.width + 1)
    if not checkpointing:
        kept = Kept(size.layers * one + last, copies)
        return kept, kept
    inputs = size.layers * FLOAT32 * size.width * tokens.queries + last
    return Kept(inputs, copies), Kept(inputs + one, copies // size.layers)


def logits_bytes(actions: int, vocabulary: int, dtype: str, budget: int, *, guided: bool = False) -> tuple[int, int]:
    """Logits of one chunk of `hidden_log_probs`, of at most `budget` of them: in its forward and backward pass.

    Per logit, forward: the head's output in float32, 4, under autocast also in bfloat16, 2, of both branches with
    guidance. Backward: these, their gradients, as many again, and the softmax in the gradient of the log-sum, 4.
    """
    chunk = min(actions * vocabulary, max(budget, vocabulary))
    forward = chunk * (FLOAT32 + (BFLOAT16 if dtype == "bfloat16" else 0)) * (2 if guided else 1)
    return forward, 2 * forward + FLOAT32 * chunk
