"""Replay: the log-probs of texts under the current weights, with gradient.

Siblings share their context. Where that pays, each distinct context is read once and its keys and values are handed to
the acts that continue it, gradient included; otherwise every act is one row. Either way each distinct context's
pictures go through the vision tower once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from motet.core.protocols import Replay
from motet.core.trajectory import Act
from motet.policies.generation.replay import Branch, Read, alike, score
from motet.policies.qwen_vl.embeddings import Context, VlmEmbedder
from motet.policies.qwen_vl.forward import forward_rows, prefill


def replay(model: Any, embedder: VlmEmbedder, acts: Sequence[Act], needs: Collection[str]) -> list[Replay]:
    """One pass over all acts; see `Policy.replay`."""
    unique = {id(act.encoding): act.encoding for act in acts}
    place = {key: number for number, key in enumerate(unique)}
    contexts = embedder.contexts(list(unique.values()))
    branches = [Branch(place[id(act.encoding)], embedder.actions(act)) for act in acts]
    language = model.model.language_model
    shares = len(branches) >= 2 * len(contexts) and not language.gradient_checkpointing
    read = (_shared_pass if shares else _plain_pass)(language, contexts, branches)
    results: dict[int, Replay] = {}
    for members in alike(acts):
        rows = read.predictors(members, [acts[n].num_actions for n in members])
        scored = score(model.lm_head, [acts[n] for n in members], rows, None, "entropy" in needs)
        results |= dict(zip(members, scored, strict=True))
    return [results[n] for n in range(len(acts))]


def _plain_pass(language: Any, contexts: list[Context], branches: list[Branch]) -> Read:
    """Every act as one row."""
    owners = [contexts[branch.context] for branch in branches]
    hidden = forward_rows(language, owners, [branch.actions for branch in branches])
    first = [n * hidden.shape[1] + len(owner.vectors) - 1 for n, owner in enumerate(owners)]
    return Read(hidden.flatten(0, 1), first, [place + 1 for place in first])


def _shared_pass(language: Any, contexts: list[Context], branches: list[Branch]) -> Read:
    """Every context once, then every act over its keys and values."""
    prefix = prefill(language, contexts)
    tails: Tensor = pad_sequence([branch.actions for branch in branches], batch_first=True)
    count, longest, width = prefix.hidden.shape
    hidden = prefix.hidden.reshape(-1, width)
    if tails.shape[1]:
        owner = torch.tensor([branch.context for branch in branches], device=hidden.device)
        hidden = torch.cat([hidden, prefix.continued(owner).extend(tails).reshape(-1, width)])
    first = [b.context * longest + len(contexts[b.context].vectors) - 1 for b in branches]
    return Read(hidden, first, [count * longest + n * tails.shape[1] for n in range(len(branches))])
