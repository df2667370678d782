"""The sampling distribution of logits: sampling from it, log-probs and entropies.

Sampling and replay call the same functions, so the log-probs that are trained on are those of the sampled distribution
(invariant 1 of docs/algorithms.md). Everything is computed in float32, except the sums of `sample`, which have the
dtype of its uniforms.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from motet.numerics.liger import liger_log_probs, uses_liger
from motet.numerics.linear_head import SMALLEST_BUDGET, is_plain_linear, linear_head_log_probs, logits_budget

Head = Callable[[Tensor], Tensor]
"""Maps hidden states `[A, D]` to logits `[A, V]`: a language model's head."""

LOGITS_BUDGET = SMALLEST_BUDGET
"""Most logits that exist at once in `hidden_log_probs` on a CPU; on a GPU see `logits_budget`."""

SAMPLING_BLOCK = 256
"""Tokens per block of `sample`."""


def guide(
    conditional: Float[Tensor, "*B V"], unconditional: Float[Tensor, "*B V"], scale: float
) -> Float[Tensor, "*B V"]:
    """Classifier-free guidance on logits: `u + scale * (c - u)` (Ho & Salimans, arXiv 2207.12598; Janus: scale 5)."""
    return unconditional + scale * (conditional - unconditional)


def scoring_logits(
    logits: Float[Tensor, "*B V"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    keep: Int[Tensor, "*B"] | None = None,
) -> Float[Tensor, "*B V"]:
    """Logits of the distribution that is sampled and scored: divided by `temperature`, then top-k, top-p, min-p.

    `min_p` keeps the tokens at least `min_p` times as likely as the likeliest (arXiv 2407.01082). Excluded tokens get
    -inf. `keep` is a token per row that is never excluded: at replay the action, which was in the set when it was
    sampled but could be excluded by rounding.
    """
    scaled = logits.float() / temperature
    if top_k is None and top_p is None and min_p is None:
        return scaled
    allowed = torch.ones_like(scaled, dtype=torch.bool)
    if top_k is not None and top_k < scaled.shape[-1]:
        allowed = torch.zeros_like(allowed).scatter(-1, scaled.topk(top_k, dim=-1).indices, True)
    if top_p is not None:
        probs = torch.softmax(scaled.masked_fill(~allowed, -torch.inf), dim=-1)
        ordered, order = probs.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # mass of likelier tokens; the first token is always kept
        allowed = allowed & torch.zeros_like(allowed).scatter(-1, order, before < top_p)
    if min_p is not None:
        allowed = allowed & ((scaled - scaled.amax(dim=-1, keepdim=True)).exp() >= min_p)
    if keep is not None:
        allowed = allowed.scatter(-1, keep.unsqueeze(-1), True)
    return scaled.masked_fill(~allowed, -torch.inf)


def sample(logits: Float[Tensor, "B V"], uniforms: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """One token per row by inverting the cumulative distribution at `uniforms` in [0, 1).

    With one uniform per action, a row's tokens depend on its own noise only, not on the rest of the batch.
    Probabilities are summed in the dtype of `uniforms`: in float64 the sampled distribution equals the softmax to
    float32 rounding (1e-7 in total variation) for any vocabulary. A float32 cumulative sum is off by 1e-3 over 102,400
    tokens, and a float32 uniform never reaches tokens less likely than 2^-24. Summing in two levels (first select a
    block of tokens, then the token in it) is faster than one long sum.
    """
    probs = torch.softmax(logits, dim=-1)
    if probs.shape[-1] <= 2 * SAMPLING_BLOCK:
        tokens = _invert_cdf(probs.to(uniforms), uniforms.unsqueeze(-1))
    else:
        padding = -probs.shape[-1] % SAMPLING_BLOCK
        padded = torch.cat((probs, probs.new_zeros(len(probs), padding)), dim=-1) if padding else probs
        blocks = padded.reshape(len(probs), -1, SAMPLING_BLOCK)
        ends = blocks.sum(dim=-1).to(uniforms).cumsum(dim=-1)
        target = uniforms.unsqueeze(-1) * ends[:, -1:]
        block = torch.searchsorted(ends, target, right=True).clamp(max=ends.shape[-1] - 1)
        start = torch.cat((torch.zeros_like(ends[:, :1]), ends), dim=-1).gather(-1, block)
        fraction = ((target - start) / (ends.gather(-1, block) - start)).clamp(min=0)
        chosen = blocks.take_along_dim(block.unsqueeze(-1), dim=1).squeeze(1)
        tokens = block * SAMPLING_BLOCK + _invert_cdf(chosen.to(uniforms), fraction)
    # A uniform close to 1 can round to the very end, and a parallel cumulative sum need not be monotone to the last
    # bit: fall back to the likeliest token rather than one that is excluded or past the end.
    last = probs.shape[-1] - 1
    missed = (tokens > last) | (probs.gather(-1, tokens.clamp(max=last)) == 0)
    return torch.where(missed.squeeze(-1), logits.argmax(dim=-1), tokens.squeeze(-1))


def _invert_cdf(weights: Float[Tensor, "B V"], fractions: Float[Tensor, "B 1"]) -> Int[Tensor, "B 1"]:
    """The first index at which the cumulative sum of the weights exceeds a fraction of their total."""
    ends = weights.cumsum(dim=-1)
    return torch.searchsorted(ends, fractions * ends[:, -1:], right=True)


def action_log_probs(logits: Float[Tensor, "*B V"], actions: Int[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """`log softmax(logits)[action]`, in nats."""
    return logits.gather(-1, actions.unsqueeze(-1)).squeeze(-1) - torch.logsumexp(logits, dim=-1)


def entropy(logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B"]:
    """Entropy in nats of `softmax(logits)`; excluded tokens (-inf) contribute nothing."""
    log_probs = torch.log_softmax(logits, dim=-1)
    return -(log_probs.exp() * log_probs.masked_fill(log_probs == -torch.inf, 0.0)).sum(dim=-1)


def hidden_log_probs(
    hidden: Float[Tensor, "A D"],
    head: Head,
    actions: Int[Tensor, "A"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    unconditional: Float[Tensor, "A D"] | None = None,
    guidance_scale: float = 1.0,
    with_entropy: bool = False,
    budget: int | None = None,
) -> tuple[Float[Tensor, "A"], Float[Tensor, "A"] | None]:
    """Log-probs (and entropies, in nats) of actions from the hidden states that predict them, without full logits.

    Rows go through `head` in chunks of at most `budget` logits (None: `logits_budget` of the device). With more than
    one chunk the backward pass recomputes the logits, so only one chunk of them exists at a time; on a GPU a linear
    head then casts its weight and adds up its gradient itself (`motet.numerics.linear_head`), or Liger's kernel does
    where it is installed and knows the distribution (`motet.numerics.liger`). With `unconditional`
    (hidden states without the prompt) the distribution after classifier-free guidance is scored. Without
    `with_entropy` the entropies are None.
    """

    def score(logits: Tensor, unconditional_logits: Tensor | None, chosen: Tensor) -> tuple[Tensor, Tensor | None]:
        if unconditional_logits is not None:
            logits = guide(logits, unconditional_logits, guidance_scale)
        logits = scoring_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, keep=chosen)
        return action_log_probs(logits, chosen), entropy(logits) if with_entropy else None

    def apply(rows: Tensor, unconditional_rows: Tensor | None, chosen: Tensor) -> tuple[Tensor, Tensor | None]:
        logits = head(rows).float()
        return score(logits, None if unconditional_rows is None else head(unconditional_rows).float(), chosen)

    plain = all(limit is None for limit in (unconditional, top_k, top_p, min_p)) and not with_entropy
    if hidden.is_cuda and plain and is_plain_linear(head) and len(hidden) and uses_liger():
        return liger_log_probs(hidden, cast("nn.Linear", head), actions, temperature), None
    num_actions = hidden.shape[0]
    rows_per_chunk = max(1, (logits_budget(hidden.device) if budget is None else budget) // _head_width(head, hidden))
    if num_actions <= rows_per_chunk:
        return apply(hidden, unconditional, actions)
    if hidden.is_cuda and is_plain_linear(head):
        return linear_head_log_probs(hidden, unconditional, cast("nn.Linear", head), actions, score, rows_per_chunk)
    log_probs: list[Tensor] = []
    entropies: list[Tensor] = []
    for start in range(0, num_actions, rows_per_chunk):
        rows = slice(start, start + rows_per_chunk)
        unconditional_rows = None if unconditional is None else unconditional[rows]
        part_log_probs, part_entropies = cast(
            "tuple[Tensor, Tensor | None]",
            checkpoint(apply, hidden[rows], unconditional_rows, actions[rows], use_reentrant=False),
        )
        log_probs.append(part_log_probs)
        if part_entropies is not None:
            entropies.append(part_entropies)
    return torch.cat(log_probs), torch.cat(entropies) if with_entropy else None


def _head_width(head: Head, hidden: Tensor) -> int:
    """V; unless the head is a linear layer, found by applying it to one row, so that any callable can be used."""
    if is_plain_linear(head):
        return cast("nn.Linear", head).out_features
    if not len(hidden):
        return 1
    with torch.no_grad(), _without_cached_casts(hidden.device.type):
        return int(head(hidden[:1]).shape[-1])


def _without_cached_casts(device: str) -> AbstractContextManager[object]:
    """Autocast as it is, with no cast kept: the scores would use casts without gradient that torch 2.6 keeps."""
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return nullcontext()
    return torch.autocast(device, torch.get_autocast_dtype(device), cache_enabled=False)
