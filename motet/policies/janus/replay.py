"""Replay: the log-probs of acts under the current weights, with gradient.

An act has one branch (see `motet.policies.generation.replay`), or two when it was guided. Branches of text and image
acts share the forward pass and part at the heads.

Siblings share their context. Where that pays, each distinct context is read once and its keys and values are handed to
the branches that continue it, gradient included; otherwise every branch is one row. Rows are padded on the right.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from motet.core.protocols import Replay
from motet.core.trajectory import Act
from motet.policies.generation.replay import Branch, Read, alike, score
from motet.policies.janus.embeddings import Embedder
from motet.policies.versions import read_with_cache


def replay(model: Any, embedder: Embedder, acts: Sequence[Act], needs: Collection[str]) -> list[Replay]:
    """One pass over all acts (and their unconditional branches); see `Policy.replay`."""
    contexts, branches, null_of = _branches(embedder, acts)
    language = model.model.language_model
    shares = len(branches) >= 2 * len(contexts) and not language.gradient_checkpointing
    read = (_shared_pass if shares else _plain_pass)(language, contexts, branches)
    results: dict[int, Replay] = {}
    for members in alike(acts):
        lengths = [acts[n].num_actions for n in members]
        rows = read.predictors(members, lengths)
        guided = acts[members[0]].sampling.guidance == "guided"
        uncond_hidden = read.predictors([null_of[n] for n in members], lengths) if guided else None
        head = model.lm_head if acts[members[0]].kind == "text" else model.model.generation_head
        scored = score(head, [acts[n] for n in members], rows, uncond_hidden, "entropy" in needs)
        results |= dict(zip(members, scored, strict=True))
    return [results[n] for n in range(len(acts))]


def _branches(embedder: Embedder, acts: Sequence[Act]) -> tuple[list[Tensor], list[Branch], dict[int, int]]:
    """Embedded distinct contexts, one branch per act then one per guided act, and act -> its unconditional branch."""
    unique = {id(act.encoding): act.encoding for act in acts}
    place = {key: number for number, key in enumerate(unique)}
    contexts = embedder.contexts(list(unique.values()))
    branches = [Branch(place[id(act.encoding)], embedder.actions(act)) for act in acts]
    null_of: dict[int, int] = {}
    uncond_hidden: dict[tuple[int, ...], int] = {}
    for number, act in enumerate(acts):
        if act.sampling.guidance == "guided":
            ids = tuple(act.encoding.null_ids.tolist())
            if ids not in uncond_hidden:
                uncond_hidden[ids] = len(contexts)
                contexts.append(embedder.text(act.encoding.null_ids.to(embedder.device)))
            null_of[number] = len(branches)
            branches.append(Branch(uncond_hidden[ids], branches[number].actions))
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
    # In the contexts' type: an autocast aligner leaves pictures coarser than words, and padding takes the first one's.
    suffixes = pad_sequence([b.actions.to(prefixes.dtype) for b in branches], batch_first=True)
    device, (count, longest, width) = prefixes.device, prefixes.shape
    lengths = torch.tensor([len(c) for c in contexts], device=device)
    of_contexts: Any = DynamicCache()
    cache = DynamicCache()
    read = read_with_cache(language, of_contexts, inputs_embeds=prefixes)
    owner = torch.tensor([b.context for b in branches], device=device)
    for number, layer in enumerate(of_contexts.layers):
        cache.update(layer.keys[owner], layer.values[owner], number)
    steps = torch.arange(suffixes.shape[1], device=device)
    seen = torch.arange(longest, device=device) < lengths[owner].unsqueeze(1)
    hidden = read.last_hidden_state.reshape(-1, width)
    if len(steps):
        continued = read_with_cache(
            language,
            cache,
            inputs_embeds=suffixes,
            attention_mask=torch.cat([seen, seen.new_ones(suffixes.shape[:2])], dim=1).long(),
            position_ids=lengths[owner].unsqueeze(1) + steps,
        ).last_hidden_state
        hidden = torch.cat([hidden, continued.reshape(-1, width)])
    first = [b.context * longest + len(contexts[b.context]) - 1 for b in branches]
    return Read(hidden, first, [count * longest + n * len(steps) for n in range(len(branches))])
