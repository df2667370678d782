"""Replies of OpenAI's chat and images routes as JSON."""

from __future__ import annotations

import base64
import io
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from motet.core.trajectory import Act, Encoding, ImageAct, TextAct
from motet.serving.openai_text import finished_text


def chat_completion(model: str, acts: Sequence[Act], stops: Sequence[str]) -> dict[str, Any]:
    """A whole chat completion."""
    choices = []
    for index, act in enumerate(acts):
        assert isinstance(act, TextAct)
        text, reason = finished_text(act, stops)
        message = {"role": "assistant", "content": text, "refusal": None}
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": reason})
    return {**_head(model, "chat.completion"), "choices": choices, "usage": usage(acts)}


def usage(acts: Sequence[Act]) -> dict[str, int]:
    """Tokens of the prompt, counted once, and of all replies, end-of-sequence tokens included."""
    encoding = acts[0].encoding
    prompt = len(encoding.ids) if isinstance(encoding, Encoding) else 0
    completion = sum(act.num_actions for act in acts)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def images_reply(acts: Sequence[Act]) -> dict[str, Any]:
    """Generated images as base64 of PNG files."""
    return {"created": int(time.time()), "output_format": "png", "data": [{"b64_json": _png(act)} for act in acts]}


class ChunkWriter:
    """The events of one streamed chat completion."""

    def __init__(self, model: str) -> None:
        self._head = _head(model, "chat.completion.chunk")

    def first(self, index: int) -> str:
        """A reply begins."""
        return self._choice(index, {"role": "assistant", "content": ""}, None)

    def text(self, index: int, piece: str) -> str:
        """The next piece of a reply."""
        return self._choice(index, {"content": piece}, None)

    def last(self, index: int, reason: str) -> str:
        """A reply ends."""
        return self._choice(index, {}, reason)

    def usage(self, acts: Sequence[Act]) -> str:
        """The counts of tokens, where the request asks for them."""
        return event({**self._head, "choices": [], "usage": usage(acts)})

    def _choice(self, index: int, delta: dict[str, Any], reason: str | None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**self._head, "choices": [choice]})


END = "data: [DONE]\n\n"


def event(content: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(content)}\n\n"


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _png(act: Act) -> str:
    assert isinstance(act, ImageAct)
    file = io.BytesIO()
    act.image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
