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
from motet.protocols import Replay
from motet.trajectory import Act, Encoding, ImageTokens, TextTokens


class Embedder:
    """Embeddings of contexts and of actions, with gradient. Context ids and action ids never share a road."""

    def __init__(self, model: Any, image_id: int) -> None:
        self.model, self.image_id = model, image_id

    def contexts(self, encodings: Sequence[Encoding], ids: Sequence[Tensor] | None = None) -> list[Tensor]:
        """`[T, D]` for each encoding (or for other ids of it, such as the unconditional branch)."""
        inner, device = self.model.model, self.model.lm_head.weight.device
        embed = inner.language_model.embed_tokens
        features = self._features(encodings, device)
        embedded = []
        for number, encoding in enumerate(encodings):
            row = (encoding.ids if ids is None else ids[number]).to(device)
            vectors = embed(row)
            places = row == self.image_id
            if encoding.pixels is not None and bool(places.any()):
                vectors = vectors.masked_scatter(places.unsqueeze(-1), features[number].to(vectors.dtype))
            embedded.append(vectors)
        return embedded

    def _features(self, encodings: Sequence[Encoding], device: torch.device) -> dict[int, Tensor]:
        """Aligned picture features of the encodings that have pictures, all in one pass of the tower."""
        holders = [(number, e.pixels) for number, e in enumerate(encodings) if e.pixels is not None]
        if not holders:
            return {}
        pixels = torch.cat([p for _, p in holders]).to(device, self.model.model.vision_model.dtype)
        inner = self.model.model
        aligned = inner.aligner(inner.vision_model(pixels).last_hidden_state)
        split = aligned.split([len(p) for _, p in holders])
        return {number: part.flatten(0, 1) for (number, _), part in zip(holders, split, strict=True)}

    def text(self, ids: Tensor) -> Tensor:
        """`[..., D]` for text actions."""
        return self.model.model.language_model.embed_tokens(ids)

    def image(self, ids: Tensor) -> Tensor:
        """`[..., D]` for image actions."""
        return self.model.prepare_embeddings_for_image_generation(ids)


@dataclass(frozen=True)
class Branch:
    """Which distinct context, and the embeddings `[N - 1, D]` of its actions but the last."""

    context: int
    actions: Tensor


def replay(model: Any, embedder: Embedder, acts: Sequence[Act], needs: Collection[str]) -> list[Replay]:
    """One pass over all acts (and their unconditional branches); see `Policy.replay`."""
    contexts, branches, null_of = _branches(embedder, acts)
    language = model.model.language_model
    shares = len(branches) >= 2 * len(contexts) and not getattr(language, "gradient_checkpointing", False)
    hidden, first, rest = (_shared_pass if shares else _plain_pass)(language, contexts, branches)
    results: dict[int, Replay] = {}
    for members in _alike(acts):
        places = [_places(first[n], rest[n], acts[n].num_actions) for n in members]
        nulls = [_places(first[k], rest[k], acts[n].num_actions) for n in members if (k := null_of.get(n)) is not None]
        results |= _score(model, acts, members, hidden, places, nulls, needs)
    return [results[n] for n in range(len(acts))]


def _branches(embedder: Embedder, acts: Sequence[Act]) -> tuple[list[Tensor], list[Branch], dict[int, int]]:
    """Embedded distinct contexts, one branch per act then one per guided act, and act -> its unconditional branch."""
    unique = {id(act.encoding): act.encoding for act in acts}
    place = {key: number for number, key in enumerate(unique)}
    contexts = embedder.contexts(list(unique.values()))
    branches = [Branch(place[id(act.encoding)], _action_embeddings(embedder, act)) for act in acts]
    null_of: dict[int, int] = {}
    nulls: dict[tuple[int, ...], int] = {}
    for number, act in enumerate(acts):
        if act.sampling.guidance == "guided":
            ids = tuple(act.encoding.null_ids.tolist())
            if ids not in nulls:
                nulls[ids] = len(contexts)
                contexts.append(embedder.text(act.encoding.null_ids.to(contexts[0].device)))
            null_of[number] = len(branches)
            branches.append(Branch(nulls[ids], branches[number].actions))
    return contexts, branches, null_of


def _plain_pass(language: Any, contexts: list[Tensor], branches: list[Branch]) -> tuple[Tensor, list[int], list[int]]:
    """Every branch as one row. Returns hidden states `[M, D]`, and where each branch's first and later predictors lie."""
    rows = pad_sequence([torch.cat([contexts[b.context], b.actions]) for b in branches], batch_first=True)
    hidden = language(inputs_embeds=rows, use_cache=False).last_hidden_state.flatten(0, 1)
    first = [n * rows.shape[1] + len(contexts[b.context]) - 1 for n, b in enumerate(branches)]
    return hidden, first, [place + 1 for place in first]


def _shared_pass(language: Any, contexts: list[Tensor], branches: list[Branch]) -> tuple[Tensor, list[int], list[int]]:
    """Every context once, then every branch's actions over its keys and values; returns as `_plain_pass` does."""
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
    return hidden, first, [count * longest + n * len(steps) for n in range(len(branches))]


def _places(first: int, rest: int, actions: int) -> Tensor:
    """Indices of the hidden states that predict an act's actions: the context's last, then those of the actions."""
    return torch.cat([torch.tensor([first]), torch.arange(rest, rest + actions - 1)])


def _action_embeddings(embedder: Embedder, act: Act) -> Tensor:
    device = embedder.model.lm_head.weight.device
    if isinstance(act, ImageTokens):
        return embedder.image(act.ids[:-1].to(device))
    assert isinstance(act, TextTokens)
    return embedder.text(act.ids[:-1].to(device))


def _alike(acts: Sequence[Act]) -> list[list[int]]:
    """Acts that one call of a head scores: same kind, same scoring distribution."""
    groups: dict[Any, list[int]] = {}
    for number, act in enumerate(acts):
        s = act.sampling
        scale = s.guidance_scale if s.guidance == "guided" else None
        groups.setdefault((act.kind, s.scoring_temperature, s.top_k, s.top_p, scale), []).append(number)
    return list(groups.values())


def _score(
    model: Any,
    acts: Sequence[Act],
    members: list[int],
    hidden: Tensor,
    places: list[Tensor],
    nulls: list[Tensor],
    needs: Collection[str],
) -> dict[int, Replay]:
    """Replays of acts that share a scoring distribution, from the hidden states `[M, D]` of the pass."""
    first = acts[members[0]]
    lengths = [acts[n].num_actions for n in members]
    log_probs, entropies = hidden_log_probs(
        hidden[torch.cat(places).to(hidden.device)],
        model.lm_head if first.kind == "text" else model.model.generation_head,
        torch.cat([_ids(acts[n]) for n in members]).to(hidden.device),
        temperature=first.sampling.scoring_temperature,
        top_k=first.sampling.top_k,
        top_p=first.sampling.top_p,
        unconditional=hidden[torch.cat(nulls).to(hidden.device)] if nulls else None,
        guidance_scale=first.sampling.guidance_scale,
        with_entropy="entropy" in needs,
    )
    parts = log_probs.split(lengths)
    spread = [{}] * len(members) if entropies is None else [{"entropy": e} for e in entropies.split(lengths)]
    return {n: Replay(part, extras) for n, part, extras in zip(members, parts, spread, strict=True)}


def _ids(act: Act) -> Tensor:
    assert isinstance(act, TextTokens | ImageTokens)
    return act.ids
