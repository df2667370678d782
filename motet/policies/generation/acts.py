"""From a decoded batch to acts: what sampled acts of all kinds remember, and texts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from motet.core.protocols import Request
from motet.core.trajectory import Act, Sampling, TextTokens
from motet.policies.generation.decode_loop import Decoded


def act_fields(
    requests: Sequence[Request], encodings: Sequence[Any], decoded: Decoded, sampling: Sampling, version: int
) -> list[dict[str, Any]]:
    """What acts of all kinds remember: the fields of `Act`, one dictionary per request."""
    scored, lengths = decoded.log_probs.cpu(), decoded.lengths.tolist()
    behaviour = None if decoded.behaviour_log_probs is None else decoded.behaviour_log_probs.cpu()
    return [
        {
            "name": request.name,
            "context": request.context,
            "encoding": encoding,
            "sampling": sampling,
            "log_probs": scored[n, :length].clone(),
            "behaviour_log_probs": None if behaviour is None else behaviour[n, :length].clone(),
            "trained": request.trained,
            "policy_version": version,
        }
        for n, (request, encoding, length) in enumerate(zip(requests, encodings, lengths, strict=True))
    ]


def text_acts(
    decoded: Decoded, fields: Sequence[dict[str, Any]], tokenizer: Any, stop_ids: Collection[int]
) -> list[Act]:
    """The texts of a decoded batch; one that ends with a stop token is finished, and is read without it."""
    acts: list[Act] = []
    for row, length, remembered in zip(decoded.ids.cpu(), decoded.lengths.tolist(), fields, strict=True):
        ids = row[:length].clone()
        finished = bool(length) and int(ids[-1]) in stop_ids
        text = tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=False)
        acts.append(TextTokens(ids=ids, text=text, finished=finished, **remembered))
    return acts
