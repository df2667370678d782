"""The decode loop of text and image tokens alike: prefill once per distinct context, then one step per action.

`decode` runs it over a snapshot of a Llama language model; `generate_from_state` over any KV-cache implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from motet.core.errors import ContextError, NumericsError
from motet.core.trajectory import Sampling
from motet.numerics.logprobs import action_log_probs, guide, sample, scoring_logits
from motet.policies.generation.fused_forward import Cache, prefill, step
from motet.policies.generation.fused_weights import FusedLlama
from motet.policies.generation.token_listener import token_listener

COMPACT_BELOW = 0.85
"""Finished sequences leave the batch when less than this share of it is still being written.

Measured on lengths spread over 1..64 and 1..128: 0.8-0.9 halves the time of never leaving; 2/3 is 5-10 % behind."""

STOP_CHECK_EVERY = {"cpu": 1}
"""Steps between two looks at who has finished, by device type; 8 elsewhere, where each look waits for the device."""

Head = Callable[[Float[Tensor, "R D"]], Float[Tensor, "R V"]]
Embed = Callable[[Int[Tensor, "B"]], Float[Tensor, "B D"]]


@dataclass(frozen=True, eq=False)
class PromptEmbeddings:
    """U distinct contexts as embeddings, left-padded: `mask` is False at padding and True in the last column."""

    embeddings: Float[Tensor, "U T D"]
    mask: Bool[Tensor, "U T"]


@dataclass(frozen=True, eq=False)
class Decoded:
    """What B sequences became. After a sequence's end, ids and log-probs are 0; `lengths` include the stop token.

    `log_probs` are those of the scoring distribution, float32; `behaviour_log_probs` those of the distribution that was
    sampled from, where it differs (guidance `conditional`).
    """

    ids: Int[Tensor, "B N"]
    log_probs: Float[Tensor, "B N"]
    behaviour_log_probs: Float[Tensor, "B N"] | None
    lengths: Int[Tensor, "B"]


@dataclass(frozen=True, eq=False)
class Separator:
    """What stands after every `every`-th action without being sampled, as the end of a row of image tokens does."""

    every: int
    vector: Float[Tensor, "1 D"]


@runtime_checkable
class DecodingState(Protocol):
    """A language model plus its KV cache: R rows, F for each of B slots."""

    def step(self, embeddings: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
        """Append one token to every row; returns its hidden state, normed."""
        ...

    def compact(self, active: Int[Tensor, "B2"]) -> Int[Tensor, "B2"]:
        """Drop all slots but `active` (ascending). Returns for every remaining slot the slot it was before."""
        ...


def decode(
    snapshot: FusedLlama,
    prefixes: PromptEmbeddings,
    rows: Int[Tensor, "B"],
    null_rows: Int[Tensor, "B"] | None,
    *,
    head: Head,
    embed: Embed,
    uniforms: Float[Tensor, "B N"],
    sampling: Sampling,
    stop_ids: Sequence[int] = (),
    separator: Separator | None = None,
) -> Decoded:
    """Continue prefix `rows[b]` for up to N actions, sequence b sampling its n-th action with `uniforms[b, n]`.

    With guidance, `null_rows[b]` is the prefix of sequence b's unconditional branch; both branches go through the
    layers as one batch. A sequence's actions depend on its own prefix and noise only, up to rounding. `head` gets
    hidden states in the snapshot's dtype; it and `embed` run in inference mode and must not keep what they compute.
    """
    guided = sampling.guidance != "none"
    if guided and null_rows is None:
        raise ValueError(f"guidance={sampling.guidance!r} needs null_rows.")
    if snapshot.stale:
        raise RuntimeError("The model changed after this snapshot was taken; take a new one.")
    if 0 in uniforms.shape:
        return empty_decoded(uniforms, sampling)
    num_columns = uniforms.shape[1] - 1  # the last action is never fed back
    num_columns += num_columns // separator.every if separator else 0
    if not bool(prefixes.mask[:, -1].all()):
        raise ValueError("Prefixes must be padded on the left: the last column of the mask is not all True.")
    check_context_length(int(prefixes.mask.sum(dim=1).max()), uniforms.shape[1], num_columns, snapshot.max_positions)
    branches = torch.stack([rows, null_rows] if guided and null_rows is not None else [rows], dim=1)
    capacity = prefixes.embeddings.shape[1] + num_columns
    with torch.inference_mode():
        hidden, cache = prefill(snapshot, prefixes.embeddings, prefixes.mask, branches, capacity)
    return generate_from_state(
        hidden,
        _FusedState(snapshot, cache),
        head=head,
        embed=embed,
        uniforms=uniforms,
        sampling=sampling,
        stop_ids=stop_ids,
        separator=separator,
    )


def generate_from_state(
    hidden: Float[Tensor, "R D"],
    state: DecodingState,
    *,
    head: Head,
    embed: Embed,
    uniforms: Float[Tensor, "B N"],
    sampling: Sampling,
    stop_ids: Sequence[int] = (),
    separator: Separator | None = None,
) -> Decoded:
    """Continue sequences for up to N actions from the hidden states of their last tokens; see `decode`.

    Sequence b ends after the first of `stop_ids` that it samples. `state` is used up.
    """
    if 0 in uniforms.shape:
        return empty_decoded(uniforms, sampling)
    with torch.inference_mode():
        loop = _DecodeLoop(hidden, state, head=head, embed=embed, uniforms=uniforms, sampling=sampling)
        loop.stop_ids = torch.tensor(stop_ids, dtype=torch.long, device=hidden.device) if stop_ids else None
        loop.separator = separator
        decoded = loop.run()
    # Clones made outside inference mode may meet autograd: losses take the ids and the old log-probs.
    return Decoded(
        ids=decoded.ids.clone(),
        log_probs=decoded.log_probs.clone(),
        behaviour_log_probs=None if decoded.behaviour_log_probs is None else decoded.behaviour_log_probs.clone(),
        lengths=decoded.lengths.clone(),
    )


@dataclass(frozen=True, eq=False)
class _FusedState:
    """A `DecodingState` of a snapshot."""

    snapshot: FusedLlama
    cache: Cache

    def step(self, embeddings: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
        return step(self.snapshot, self.cache, embeddings)

    def compact(self, active: Int[Tensor, "B2"]) -> Int[Tensor, "B2"]:
        return self.cache.compact(active)


class _DecodeLoop:
    """One batch being decoded. A *slot* is a place in the shrinking batch; `slots` says whose sequence is in it."""

    def __init__(
        self,
        hidden: Float[Tensor, "R D"],
        state: DecodingState,
        *,
        head: Head,
        embed: Embed,
        uniforms: Float[Tensor, "B N"],
        sampling: Sampling,
    ) -> None:
        self.hidden, self.state, self.head, self.embed = hidden, state, head, embed
        self.sampling = sampling
        batch, self.num_actions = uniforms.shape
        self.num_branches = len(hidden) // batch
        self.stop_ids: Tensor | None = None
        self.separator: Separator | None = None
        self.uniforms = uniforms.t().contiguous()
        self.ids = torch.zeros(self.num_actions, batch, dtype=torch.long, device=hidden.device)
        self.log_probs = torch.zeros(self.num_actions, batch, device=hidden.device)
        self.behaviour = torch.zeros_like(self.log_probs) if sampling.guidance == "conditional" else None
        self.slots: Tensor | slice = slice(None)  # identity mapping until the first compaction
        self.finished = torch.zeros(batch, dtype=torch.bool, device=hidden.device)
        self.listener = token_listener()

    def run(self) -> Decoded:
        """Step until every sequence has stopped or has N actions."""
        for n in range(self.num_actions):
            tokens = self._act(n)
            if self.stop_ids is not None:
                tokens = self._drop_finished(n, tokens, self.stop_ids)
            if self.listener is not None:
                unfinished = torch.arange(self.ids.shape[1], device=self.ids.device)[self.slots][~self.finished]
                for sequence in unfinished.tolist():
                    self.listener(sequence, self.ids[: n + 1, sequence])
            if n + 1 == self.num_actions or not len(tokens):
                break
            embedded = self.embed(tokens)
            if self.num_branches > 1:
                embedded = embedded.repeat_interleave(self.num_branches, dim=0)
            self.hidden = self.state.step(embedded)
            if self.separator is not None and (n + 1) % self.separator.every == 0:
                self.hidden = self.state.step(self.separator.vector.expand(len(embedded), -1))
        return self._result()

    def _act(self, n: int) -> Int[Tensor, "S"]:
        """Draw action n of every slot and write it down."""
        logits = self.head(self.hidden).float()
        logits = logits.view(-1, self.num_branches, logits.shape[-1])
        tokens, log_probs, behaviour = choose_actions(logits, self.uniforms[n, self.slots], self.sampling)
        self.ids[n, self.slots] = tokens
        self.log_probs[n, self.slots] = log_probs
        if self.behaviour is not None:
            self.behaviour[n, self.slots] = behaviour
        return tokens

    def _drop_finished(self, n: int, tokens: Int[Tensor, "S"], stop_ids: Int[Tensor, "E"]) -> Int[Tensor, "S2"]:
        """Note who has stopped and, when it pays, drop them; returns the tokens of the slots that remain."""
        self.finished |= torch.isin(tokens, stop_ids)
        if (n + 1) % STOP_CHECK_EVERY.get(tokens.device.type, 8):
            return tokens
        active = (~self.finished).nonzero().squeeze(1)
        if len(active) >= COMPACT_BELOW * len(tokens):
            return tokens  # finished slots decode on; what they sample is erased at the end
        if not len(active):
            return tokens[:0]
        order = self.state.compact(active)
        self.slots = order if isinstance(self.slots, slice) else self.slots[order]
        self.finished = self.finished[order]
        return tokens[order]

    def _result(self) -> Decoded:
        lengths = torch.full_like(self.ids[0], self.num_actions)
        if self.stop_ids is not None:
            stops = torch.isin(self.ids, self.stop_ids).int()
            lengths = torch.where(stops.any(dim=0), stops.argmax(dim=0) + 1, lengths)
        beyond = torch.arange(self.num_actions, device=lengths.device)[:, None] >= lengths
        log_probs = self.log_probs.masked_fill_(beyond, 0.0)
        check_finite(log_probs)
        behaviour = None if self.behaviour is None else self.behaviour.masked_fill_(beyond, 0.0).t()
        return Decoded(self.ids.masked_fill_(beyond, 0).t(), log_probs.t(), behaviour, lengths)


def choose_actions(
    logits: Float[Tensor, "S F V"], uniforms: Float[Tensor, "S"], sampling: Sampling
) -> tuple[Int[Tensor, "S"], Float[Tensor, "S"], Float[Tensor, "S"]]:
    """One action per slot from the logits of its F branches.

    Also its log-prob in the scoring distribution, and in the one that it was drawn from.
    """
    conditional = logits[:, 0]
    mixture = conditional if logits.shape[1] == 1 else guide(conditional, logits[:, 1], sampling.guidance_scale)
    drawn = scoring_logits(mixture, **sampling.scoring)
    tokens = sample(drawn, uniforms) if sampling.temperature else drawn.argmax(dim=-1)
    behaviour = action_log_probs(drawn, tokens)
    if sampling.guidance != "conditional":
        return tokens, behaviour, behaviour
    # The mixture may draw what the conditional branch's own limits exclude; replay keeps it too.
    own = scoring_logits(conditional, **sampling.scoring, keep=tokens)
    return tokens, action_log_probs(own, tokens), behaviour


def check_context_length(longest: int, num_actions: int, num_columns: int, max_positions: int) -> None:
    """Raise ContextError for a prompt after which `num_columns` positions do not fit."""
    if longest + num_columns > max_positions:
        raise ContextError(
            f"A prompt of {longest} tokens and {num_actions} new ones exceed the model's {max_positions} positions.",
            fix=f"shorten the prompt, or sample at most {max(0, max_positions + 1 - longest)} tokens.",
        )


def check_finite(log_probs: Float[Tensor, "*B"]) -> None:
    """Raise NumericsError for log-probs of sampled tokens that are NaN or infinite."""
    if not bool(log_probs.isfinite().all()):
        raise NumericsError(
            "Log-probs of sampled tokens are not finite: the model's logits are NaN or infinite.",
            fix="look for NaN in the weights, lower the learning rate, or set policy.rollout_dtype to float32.",
        )


def empty_decoded(uniforms: Float[Tensor, "B N"], sampling: Sampling) -> Decoded:
    """What no sequences, or sequences of no actions, become."""
    ids = torch.zeros(uniforms.shape, dtype=torch.long, device=uniforms.device)
    zeros = torch.zeros(uniforms.shape, device=uniforms.device)
    behaviour = zeros.clone() if sampling.guidance == "conditional" else None
    return Decoded(ids, zeros, behaviour, ids.new_zeros(len(ids)))
