"""Replay: the log-probs of acts under the current weights, with gradient.

A *branch* is a context followed by actions; the hidden state before action n predicts it (the shift by one). An act has
one branch, or two when it was guided. Branches of text and image acts share the forward pass and part at the heads.

Siblings share their context. Where that pays, each distinct context is read once and its keys and values are handed to
the branches that continue it, gradient included; otherwise every branch is one row. Rows are padded on the right.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from motet.numerics.logprobs import hidden_log_probs
from motet.policies.janus.embeddings import Embedder
from motet.protocols import Replay
from motet.trajectory import Act, ImageTokens, TextTokens


@dataclass(frozen=True, eq=False)
class Branch:
    """Which distinct context, and the embeddings `[N - 1, D]` of its actions but the last."""

    context: int
    actions: Tensor


@dataclass(frozen=True, eq=False)
class Read:
    """Hidden states `[M, D]` of one pass; branch b's first action is predicted at `first[b]`, the next at `rest[b]`."""

    hidden: Tensor
    first: Sequence[int]
    rest: Sequence[int]

    def predictors(self, branches: Sequence[int], actions: Sequence[int]) -> Tensor:
        """`[A, D]`: what predicts the actions of these branches, one after another; `actions[k]` are branch k's.

        A branch's first action is predicted by the last of its context. One gather for all: its gradient is one
        scatter, where a gather per branch would fill and add a tensor of the whole pass's size each.
        """
        places: list[int] = []
        for branch, count in zip(branches, actions, strict=True):
            rest = self.rest[branch]
            places += [self.first[branch], *range(rest, rest + count - 1)][:count]
        return self.hidden[torch.tensor(places, dtype=torch.long, device=self.hidden.device)]


def replay(model: Any, embedder: Embedder, acts: Sequence[Act], needs: Collection[str]) -> list[Replay]:
    """One pass over all acts (and their unconditional branches); see `Policy.replay`."""
    contexts, branches, null_of = _branches(embedder, acts)
    language = model.model.language_model
    shares = len(branches) >= 2 * len(contexts) and not language.gradient_checkpointing
    read = (_shared_pass if shares else _plain_pass)(language, contexts, branches)
    results: dict[int, Replay] = {}
    for members in _alike(acts):
        lengths = [acts[n].num_actions for n in members]
        rows = read.predictors(members, lengths)
        guided = acts[members[0]].sampling.guidance == "guided"
        nulls = read.predictors([null_of[n] for n in members], lengths) if guided else None
        scored = _score(model, [acts[n] for n in members], rows, nulls, "entropy" in needs)
        results |= dict(zip(members, scored, strict=True))
    return [results[n] for n in range(len(acts))]


def _branches(embedder: Embedder, acts: Sequence[Act]) -> tuple[list[Tensor], list[Branch], dict[int, int]]:
    """Embedded distinct contexts, one branch per act then one per guided act, and act -> its unconditional branch."""
    unique = {id(act.encoding): act.encoding for act in acts}
    place = {key: number for number, key in enumerate(unique)}
    contexts = embedder.contexts(list(unique.values()))
    branches = [Branch(place[id(act.encoding)], embedder.actions(act)) for act in acts]
    null_of: dict[int, int] = {}
    nulls: dict[tuple[int, ...], int] = {}
    for number, act in enumerate(acts):
        if act.sampling.guidance == "guided":
            ids = tuple(act.encoding.null_ids.tolist())
            if ids not in nulls:
                nulls[ids] = len(contexts)
                contexts.append(embedder.text(act.encoding.null_ids.to(embedder.device)))
            null_of[number] = len(branches)
            branches.append(Branch(nulls[ids], branches[number].actions))
    return contexts, branches, null_of


def _plain_pass(language: Any, contexts: list[Tensor], branches: list[Branch]) -> Read:
    """Every branch as one row."""
    rows = pad_sequence([torch.cat([contexts[b.context], b.actions]) for b in branches], batch_first=True)
    hidden = language(inputs_embeds=rows, use_cache=False).last_hidden_state.flatten(0, 1)
    first = [n * rows.shape[1] + len(contexts[b.context]) - 1 for n, b in enumerate(branches)]
    return Read(hidden, first, [place + 1 for place in first])


def _shared_pass(language: Any, contexts: list[Tensor], branches: list[Branch]) -> Read:
    """Every context once, then every branch's actions over its keys and values."""
    prefixes = pad_sequence(contexts, batch_first=True)
    suffixes = pad_sequence([b.actions for b in branches], batch_first=True)
    device, (count, longest, width) = prefixes.device, prefixes.shape
    lengths = torch.tensor([len(c) for c in contexts], device=device)
    read = language(inputs_embeds=prefixes, use_cache=True, past_key_values=DynamicCache())
    owner = torch.tensor([b.context for b in branches], device=device)
    cache = DynamicCache()
    for number, layer in enumerate(read.past_key_values.layers):
        cache.update(layer.keys[owner], layer.values[owner], number)
    steps = torch.arange(suffixes.shape[1], device=device)
    seen = torch.arange(longest, device=device) < lengths[owner].unsqueeze(1)
    hidden = read.last_hidden_state.reshape(-1, width)
    if len(steps):
        continued = language(
            inputs_embeds=suffixes,
            attention_mask=torch.cat([seen, seen.new_ones(suffixes.shape[:2])], dim=1).long(),
            position_ids=lengths[owner].unsqueeze(1) + steps,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        hidden = torch.cat([hidden, continued.reshape(-1, width)])
    first = [b.context * longest + len(contexts[b.context]) - 1 for b in branches]
    return Read(hidden, first, [count * longest + n * len(steps) for n in range(len(branches))])


def _alike(acts: Sequence[Act]) -> list[list[int]]:
    """Acts that one call of a head scores: same kind, same scoring distribution."""
    groups: dict[Any, list[int]] = {}
    for number, act in enumerate(acts):
        s = act.sampling
        scale = s.guidance_scale if s.guidance == "guided" else None
        groups.setdefault((act.kind, s.scoring_temperature, s.top_k, s.top_p, scale), []).append(number)
    return list(groups.values())


def _score(model: Any, acts: list[Act], rows: Tensor, nulls: Tensor | None, with_entropy: bool) -> list[Replay]:
    """Replays of acts that share a scoring distribution, from what predicts them `[A, D]` in their branches."""
    sampling = acts[0].sampling
    head = model.lm_head if acts[0].kind == "text" else model.model.generation_head
    lengths = [act.num_actions for act in acts]
    log_probs, entropies = hidden_log_probs(
        rows,
        head,
        torch.cat([_ids(act) for act in acts]).to(rows.device),
        temperature=sampling.scoring_temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        unconditional=nulls,
        guidance_scale=sampling.guidance_scale,
        with_entropy=with_entropy,
    )
    spread = [{}] * len(acts) if entropies is None else [{"entropy": e} for e in entropies.split(lengths)]
    return [Replay(part, extras) for part, extras in zip(log_probs.split(lengths), spread, strict=True)]


def _ids(act: Act) -> Tensor:
    assert isinstance(act, TextTokens | ImageTokens)
    return act.ids
