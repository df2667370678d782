"""Replay's bookkeeping: branches of contexts, where their predictors lie, and the scores of acts that are alike.

A *branch* is a context followed by actions; the hidden state before action n predicts it (the shift by one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motet.core.protocols import Replay
from motet.core.trajectory import Act, ImageTokens, TextTokens
from motet.numerics.logprobs import Head, hidden_log_probs


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


def alike(acts: Sequence[Act]) -> list[list[int]]:
    """Acts that one call of a head scores: same kind, same scoring distribution."""
    groups: dict[Any, list[int]] = {}
    for number, act in enumerate(acts):
        s = act.sampling
        scale = s.guidance_scale if s.guidance == "guided" else None
        groups.setdefault((act.kind, *s.scoring.values(), scale), []).append(number)
    return list(groups.values())


def score(
    head: Head, acts: Sequence[Act], rows: Tensor, uncond_hidden: Tensor | None, with_entropy: bool
) -> list[Replay]:
    """Replays of acts that share a scoring distribution, from what predicts them `[A, D]` in their branches."""
    sampling = acts[0].sampling
    lengths = [act.num_actions for act in acts]
    log_probs, entropies = hidden_log_probs(
        rows,
        head,
        torch.cat([_ids(act) for act in acts]).to(rows.device),
        **sampling.scoring,
        unconditional=uncond_hidden,
        guidance_scale=sampling.guidance_scale,
        with_entropy=with_entropy,
    )
    spread = [{}] * len(acts) if entropies is None else [{"entropy": e} for e in entropies.split(lengths)]
    return [Replay(part, extras) for part, extras in zip(log_probs.split(lengths), spread, strict=True)]


def _ids(act: Act) -> Tensor:
    assert isinstance(act, TextTokens | ImageTokens)
    return act.ids
