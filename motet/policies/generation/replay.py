"""Replay: the log-probs of acts under the current weights, with gradient.

A *branch* is a prompt followed by actions; the hidden state before action n predicts it (the shift by one). An act has
one branch, or two when it was guided. Branches of text and image acts share the forward pass and part at the heads.

Generations of a group share their prompt. Where that pays, each distinct prompt is encoded once and its keys and
values are handed to the branches that continue it, gradient included; otherwise every branch is one row. Either way
each distinct prompt's images go through the vision tower once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from motet.core.protocols import Replay
from motet.core.trajectory import Act, ImageTokens, TextTokens
from motet.numerics.logprobs import Head, hidden_log_probs
from motet.numerics.transfers import index_on, to_device
from motet.policies.generation.adapter import EmbeddedPrompt, LanguageModelAdapter
from motet.policies.generation.forward import forward_rows, prefill
from motet.policies.generation.shared_prefix import checkpointing_with_cache
from motet.policies.same_passes import from_all_processes


@dataclass(frozen=True, eq=False)
class Branch:
    """Which distinct prompt, and what follows it: see `LanguageModelAdapter.embed_actions`."""

    prompt: int
    actions: Tensor
    predictors: Sequence[int]


@dataclass(frozen=True, eq=False)
class HiddenStates:
    """Hidden states `[M, D]` of one pass; `predictors[b]` are the rows that predict the actions of branch b."""

    hidden: Tensor
    predictors: Sequence[Sequence[int]]

    def predicting(self, branches: Sequence[int], num_actions: Sequence[int]) -> Tensor:
        """`[A, D]`: what predicts the actions of these branches, one after another.

        One gather for all: its gradient is one scatter, where a gather per branch would fill and add a tensor of the
        whole pass's size each.
        """
        pairs = zip(branches, num_actions, strict=True)
        rows = [row for branch, count in pairs for row in self.predictors[branch][:count]]
        return self.hidden[index_on(self.hidden.device, rows)]


def replay(adapter: LanguageModelAdapter, acts: Sequence[Act], needs: Collection[str]) -> list[Replay]:
    """One pass over all acts (and their unconditional branches); see `Policy.replay`."""
    prompts, branches, uncond_of = _branches(adapter, acts)
    language = adapter.language_model
    shares = len(branches) >= 2 * len(prompts)
    shares = _shares_everywhere(shares, any(len(branch.actions) for branch in branches))
    states = (_shared_pass if shares else _plain_pass)(language, prompts, branches)
    results: dict[int, Replay] = {}
    for members in group_by_sampling(acts):
        lengths = [acts[n].num_actions for n in members]
        hidden = states.predicting(members, lengths)
        guided = acts[members[0]].sampling.guidance == "guided"
        uncond_hidden = states.predicting([uncond_of[n] for n in members], lengths) if guided else None
        head = adapter.head(acts[members[0]].kind)
        scored = score(head, [acts[n] for n in members], hidden, uncond_hidden, "entropy" in needs)
        results |= dict(zip(members, scored, strict=True))
    return [results[n] for n in range(len(acts))]


def _shares_everywhere(shares: bool, continues: bool) -> bool:
    """Whether to share prompts, where all processes of a run must agree on the number of forward passes.

    Sharing takes two, or one if nothing continues the prompts: it needs all processes to want it, and all of them or
    none to have prompts that are continued.
    """
    shares_of, continues_of = zip(*from_all_processes((shares, continues)), strict=True)
    return all(shares_of) and len({*continues_of}) == 1


def _branches(
    adapter: LanguageModelAdapter, acts: Sequence[Act]
) -> tuple[list[EmbeddedPrompt], list[Branch], dict[int, int]]:
    """Distinct prompts, one branch per act then one per guided act, and act -> its unconditional branch."""
    unique = {id(act.encoding): act.encoding for act in acts}
    place = {key: number for number, key in enumerate(unique)}
    prompts = adapter.embed_prompts(list(unique.values()))
    ids = to_device(torch.cat([_ids(act) for act in acts]), adapter.device).split([act.num_actions for act in acts])
    embedded = [adapter.embed_actions(act, own) for act, own in zip(acts, ids, strict=True)]
    branches = [Branch(place[id(act.encoding)], *own) for act, own in zip(acts, embedded, strict=True)]
    uncond_of: dict[int, int] = {}
    uncond_prompts: dict[tuple[int, ...], int] = {}
    for number, act in enumerate(acts):
        if act.sampling.guidance == "guided":
            ids = tuple(act.encoding.null_ids.tolist())
            if ids not in uncond_prompts:
                uncond_prompts[ids] = len(prompts)
                prompts.append(adapter.embed_ids(act.encoding.null_ids))
            uncond_of[number] = len(branches)
            branches.append(Branch(uncond_prompts[ids], branches[number].actions, branches[number].predictors))
    return prompts, branches, uncond_of


def _plain_pass(language: Any, prompts: list[EmbeddedPrompt], branches: list[Branch]) -> HiddenStates:
    """Every branch as one row."""
    owners = [prompts[branch.prompt] for branch in branches]
    hidden = forward_rows(language, owners, [branch.actions for branch in branches])
    first = [n * hidden.shape[1] + len(owner.vectors) - 1 for n, owner in enumerate(owners)]
    return HiddenStates(hidden.flatten(0, 1), _predictors(branches, first, [place + 1 for place in first]))


def _shared_pass(language: Any, prompts: list[EmbeddedPrompt], branches: list[Branch]) -> HiddenStates:
    """Every prompt once, then every branch's actions over its keys and values."""
    with checkpointing_with_cache(language):
        return _prefill_and_extend(language, prompts, branches)


def _prefill_and_extend(language: Any, prompts: list[EmbeddedPrompt], branches: list[Branch]) -> HiddenStates:
    prefix = prefill(language, prompts)
    # In the prompts' type: an autocast aligner leaves images coarser than text, and padding takes the first one's.
    dtype = prompts[0].vectors.dtype
    tails: Tensor = pad_sequence([branch.actions.to(dtype) for branch in branches], batch_first=True)
    count, longest, width = prefix.hidden.shape
    hidden = prefix.hidden.reshape(-1, width)
    if tails.shape[1]:
        owner = index_on(hidden.device, [branch.prompt for branch in branches])
        hidden = torch.cat([hidden, prefix.extended(owner, tails).reshape(-1, width)])
    first = [b.prompt * longest + len(prompts[b.prompt].vectors) - 1 for b in branches]
    rest = [count * longest + n * tails.shape[1] for n in range(len(branches))]
    return HiddenStates(hidden, _predictors(branches, first, rest))


def _predictors(branches: Sequence[Branch], first: Sequence[int], rest: Sequence[int]) -> list[list[int]]:
    """Rows that predict each branch's actions: the prompt's last token, then its own behind row `rest[b]`."""
    return [
        [start, *(offset + place for place in branch.predictors)]
        for branch, start, offset in zip(branches, first, rest, strict=True)
    ]


def group_by_sampling(acts: Sequence[Act]) -> list[list[int]]:
    """Acts that one call of a head scores: same kind, same scoring distribution."""
    groups: dict[Any, list[int]] = {}
    for number, act in enumerate(acts):
        s = act.sampling
        scale = s.guidance_scale if s.guidance == "guided" else None
        groups.setdefault((act.kind, *s.scoring.values(), scale), []).append(number)
    return list(groups.values())


def score(
    head: Head, acts: Sequence[Act], hidden: Tensor, uncond_hidden: Tensor | None, with_entropy: bool
) -> list[Replay]:
    """Replays of acts that share a scoring distribution, from what predicts them `[A, D]` in their branches."""
    sampling = acts[0].sampling
    lengths = [act.num_actions for act in acts]
    log_probs, entropies = hidden_log_probs(
        hidden,
        head,
        to_device(torch.cat([_ids(act) for act in acts]), hidden.device),
        **sampling.scoring,
        unconditional=uncond_hidden,
        guidance_scale=sampling.guidance_scale,
        with_entropy=with_entropy,
    )
    extras = [{}] * len(acts) if entropies is None else [{"entropy": e} for e in entropies.split(lengths)]
    return [Replay(part, extra) for part, extra in zip(log_probs.split(lengths), extras, strict=True)]


def _ids(act: Act) -> Tensor:
    assert isinstance(act, TextTokens | ImageTokens)
    return act.ids
