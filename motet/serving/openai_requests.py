"""Requests of OpenAI's chat and images routes: their fields, and the conversation and sampling that they ask for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from motet.core.conversation import Conversation, ImagePart, Message, Part, Text
from motet.core.errors import DataError
from motet.core.images import MAX_PIXELS, read_image
from motet.serving.http import HttpError

_MAX_LISTED = 1000
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
StopString = Annotated[str, Field(min_length=1, max_length=1000)]

_WITHOUT_EFFECT = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
"""Fields about the account of whoever asks: they change nothing in the reply."""
_DEFAULTS_ONLY: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    # of images
    "background": ("auto", "opaque"),
    "moderation": ("auto", "low"),
    "output_compression": (100,),
    "output_format": ("png",),
    "partial_images": (0,),
    "quality": ("auto",),
    "style": (),
}
"""Fields that are accepted where they ask for what happens anyway. null is always accepted."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    model: str
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Seed | None = None
    """Equal seeds give equal replies; null: a new one for every request."""
    temperature: Annotated[Finite, Field(ge=0)] | None = None

    def check_extra_fields(self) -> None:
        """Raise HttpError for a field that the server does not support: nothing is ignored that changes a reply."""
        for name, value in (self.model_extra or {}).items():
            if value is None or name in _WITHOUT_EFFECT:
                continue
            if not any(value == allowed for allowed in _DEFAULTS_ONLY.get(name, ())):
                known = " with this value" if name in _DEFAULTS_ONLY else ""
                raise HttpError(
                    400,
                    f"The field {name[:80]!r} is not supported{known}.",
                    fix="remove it; /openapi.json lists the fields.",
                    param=name[:80],
                    code="unsupported_parameter",
                )

    @property
    def key_seed(self) -> int:
        """The seed of the noise."""
        return secrets.randbits(32) if self.seed is None else self.seed


class StreamOptions(BaseModel):
    """What a stream sends beside the text."""

    include_usage: bool = False


class ChatRequest(_Request):
    """A chat completion: text in, with images as data URLs, text out."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=_MAX_LISTED)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[Finite, Field(gt=0, le=1)] | None = None
    top_k: int | None = None
    """Not OpenAI's, as in vLLM: the most likely tokens to sample from; 0 or -1: all."""
    min_p: Annotated[Finite, Field(ge=0, le=1)] | None = None
    """Not OpenAI's, as in vLLM."""
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None
    """The text ends before the first of these."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def sampling_changes(self, max_tokens: int) -> dict[str, Any]:
        """Fields of `Sampling`; `max_tokens` where the request names none."""
        asked = {"temperature": 1.0 if self.temperature is None else self.temperature}
        asked |= {"top_p": self.top_p, "min_p": self.min_p, "top_k": self.top_k if (self.top_k or 0) > 0 else None}
        return {**asked, "max_tokens": self.max_completion_tokens or self.max_tokens or max_tokens}


class ImagesRequest(_Request):
    """An image generation: prompt in, PNG as base64 out."""

    prompt: str
    size: str | None = None
    response_format: Literal["b64_json"] | None = None
    guidance_scale: Annotated[Finite, Field(ge=1)] | None = None
    """Not OpenAI's: classifier-free guidance; 1: none."""
    num_steps: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Not OpenAI's: steps of a policy that denoises."""

    def sampling_changes(self) -> dict[str, Any]:
        """Fields of `Sampling` that the request names."""
        asked = {"temperature": self.temperature, "num_steps": self.num_steps}
        if self.guidance_scale is not None and self.guidance_scale > 1:
            asked |= {"guidance": "guided", "guidance_scale": self.guidance_scale}
        return {name: value for name, value in asked.items() if value is not None}


def read_messages(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """The conversation of a chat request. Images are decoded; only data URLs are read, neither paths nor addresses.

    Raises HttpError for what is not a chat, and for images of more than `motet.core.images.MAX_PIXELS` in all.
    """
    left, turns = MAX_PIXELS, []
    for number, message in enumerate(messages):
        param = f"messages[{number}]"
        role = {"developer": "system"}.get(str(message.get("role")), message.get("role"))
        if role not in ("system", "user", "assistant"):
            raise _invalid(f"{param}.role", f"{role!r:.40} is not a role", "use system, user or assistant.")
        for name, value in message.items():
            if name not in ("role", "content", "name") and value not in (None, [], {}):
                raise _invalid(f"{param}.{name[:80]}", "it is not supported", "send role and content only.")
        parts: list[Part] = []
        for part in _parts(message.get("content"), f"{param}.content"):
            parts.append(part)
            if isinstance(part, ImagePart):
                left -= part.image.width * part.image.height
                if left < 0:
                    fix = "send smaller or fewer images."
                    raise HttpError(413, f"The images have more than {MAX_PIXELS:,} pixels in all.", fix=fix)
        turns.append(Message(role, tuple(parts)))
    if turns[-1].role != "user":
        raise _invalid("messages", "the last message is not the user's", "end the chat with a user turn.")
    return Conversation(tuple(turns))


def _parts(content: Any, param: str) -> Any:
    """The parts of a message, one after another: an image is decoded when its turn comes."""
    if isinstance(content, str):
        yield _text(content, param)
        return
    if not isinstance(content, list) or not content or len(content) > _MAX_LISTED:
        raise _invalid(param, "it is neither a text nor a list of parts", "send a text, or text and image_url parts.")
    for number, part in enumerate(content):
        where = f"{param}[{number}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            yield _text(part["text"], where)
        elif kind == "image_url":
            address = part.get("image_url")
            yield ImagePart(_image(address.get("url") if isinstance(address, Mapping) else address, where))
        else:
            raise _invalid(where, "it is not a text or image_url part", "send text and image_url parts only.")


def _text(text: str, param: str) -> Text:
    try:
        return Text(text)
    except DataError as error:
        raise HttpError(400, error.problem, fix=error.fix, param=param) from error


def _image(url: Any, param: str) -> Image.Image:
    fix = "send the image itself: data:image/png;base64,..."
    if not isinstance(url, str) or not url.startswith("data:"):
        why = "addresses are not downloaded, and files are not read"
        raise _invalid(f"{param}.image_url", f"only data URLs are supported: {why}", fix)
    try:
        return read_image(url, Path(), f"{param}.image_url")
    except DataError as error:
        raise HttpError(400, error.problem, fix=fix, param=f"{param}.image_url", code="invalid_image") from error


def _invalid(param: str, why: str, fix: str) -> HttpError:
    return HttpError(400, f"{param}: {why}.", fix=fix, param=param, code="invalid_value")
