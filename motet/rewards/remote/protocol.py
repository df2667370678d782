"""The HTTP protocol of reward services: JSON, with images as base64 of PNG or WebP; no pickle.

    POST /v1/score/{reward}  ScoreRequest -> ScoreReply
    GET  /v1/rewards         -> RewardList
    GET  /health             200 when every reward is ready, else 503
    GET  /metrics            Prometheus' text format

A status other than 200 has an ErrorBody, and is the error of every completion of the request: 400 and 422 malformed,
401 token, 404 unknown reward, 413 too large, 429 queue full, 503 not ready or the reward's process died, 504 the reward
took longer than its limit. 429 and 503 have a Retry-After header.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from motet.core.errors import DataError, MotetError, RewardError
from motet.core.images import check_image, read_image, to_rgb
from motet.core.printable import printable
from motet.rewards.arguments import TRAINER

SCORE_PATH = "/v1/score/{reward}"
REWARDS_PATH = "/v1/rewards"
HEALTH_PATH = "/health"
METRICS_PATH = "/metrics"

ImageFormat = Literal["png", "webp"]
NOT_COLUMNS = ("prompts", "completions", "completion_images", "policy", *TRAINER)
"""Arguments of rewards that are not sent as columns: the server derives them, or has none."""
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"RIFF")
_MAX_DEPTH = 32
_MAX_ERROR = 500
_REMOVE_IMAGE = "send base64 of a whole PNG or WebP file."

Number = Annotated[float, Field(allow_inf_nan=False)]
Chat = list[dict[str, Any]]


class _Body(BaseModel):
    # NaN in a column stays one on the way to another process: `decode_arguments` rejects it
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, ser_json_inf_nan="constants")


class ScoreRequest(_Body):
    """Arguments of a reward function (`motet.rewards.arguments`), one entry per completion.

    An image anywhere in it is `{"type": "image", "data": BASE64}`; in a chat it is the `image` of an image part:
    `{"type": "image", "image": {"type": "image", "data": BASE64}}`.
    """

    prompts: list[Chat]
    """Chats: messages `{"role", "content"}`, the content a text or a list of parts."""
    completions: list[Chat] = Field(min_length=1)
    """Chats that the reward scores; an empty one where a trajectory has none of the reward's acts."""
    columns: dict[str, list[Any]] = Field(default_factory=dict)
    """Columns of the data, `completion_ids` and `images`."""

    @model_validator(mode="after")
    def _check(self) -> ScoreRequest:
        count = len(self.completions)
        for name, entries in {"prompts": self.prompts, **self.columns}.items():
            if len(entries) != count:
                raise ValueError(f"{name} has {len(entries)} entries for {count} completions")
        for name in self.columns:
            if name in NOT_COLUMNS:
                raise ValueError(f"{name!r} is not a column")
        for message in (message for chat in (*self.prompts, *self.completions) for message in chat):
            content = message.get("content")
            parts = content if isinstance(content, list) else None
            known = isinstance(content, str) or (parts is not None and all(isinstance(part, dict) for part in parts))
            if not isinstance(message.get("role"), str) or not known:
                raise ValueError(f"{message!r:.80} is not a message: expected role, and content: a text or parts")
        return self


class ScoreReply(_Body):
    """What a reward returned, one entry per completion."""

    values: list[Number | None]
    """Finite numbers; null where the reward does not apply (it returned None), or failed: then `errors` says why."""
    errors: list[str | None]
    """Why a completion could not be scored; null for all others."""
    metrics: dict[str, Number] = Field(default_factory=dict)
    """Means of what the reward logged with log_metric."""
    extra: dict[str, list[Any]] = Field(default_factory=dict)
    """Columns that the reward logged with log_extra."""

    @model_validator(mode="after")
    def _check(self) -> ScoreReply:
        for name, entries in {"errors": self.errors, **self.extra}.items():
            if len(entries) != len(self.values):
                raise ValueError(f"{name} has {len(entries)} entries for {len(self.values)} values")
        for place, (value, error) in enumerate(zip(self.values, self.errors, strict=True)):
            if value is not None and error is not None:
                raise ValueError(f"completion {place} has the value {value:g} and an error")
        return self


class ServedRewardInfo(_Body):
    """A reward that a server has, and what to send to it."""

    name: str
    """Its name in the path."""
    required_columns: list[str]
    """Columns of the data that it requires."""
    accepts: list[str] | None
    """Arguments and columns that it takes; null: all."""
    reads_acts: list[str]
    """Acts that it reads besides those that it is assigned to."""
    info: str
    """What it measures, in one line."""


class RewardList(_Body):
    """All rewards of a server."""

    rewards: list[ServedRewardInfo]


class Error(_Body):
    """What is wrong, and how to fix it; other keys are for other clients."""

    model_config = ConfigDict(extra="allow")

    problem: str
    fix: str


class ErrorBody(_Body):
    """The body of every status other than 200."""

    error: Error


# --- images and arguments


def encode_arguments(arguments: Mapping[str, Any], image_format: ImageFormat = "png") -> dict[str, Any]:
    """The body of a request: `prompts` and `completions` of a reward's arguments, and all others as columns.

    What the server derives or has not (`NOT_COLUMNS`) is left out. Images are sent losslessly, as RGB. Raises
    RewardError for a value that JSON cannot hold.
    """
    encode = _Encoder(image_format)
    columns = {name: entries for name, entries in arguments.items() if name not in NOT_COLUMNS}
    return {
        "prompts": encode(arguments["prompts"], "prompts"),
        "completions": encode(arguments["completions"], "completions"),
        "columns": {name: encode(list(entries), name) for name, entries in columns.items()},
    }


def decode_arguments(request: ScoreRequest) -> tuple[dict[str, Any], list[str | None]]:
    """The arguments of the reward, and why an image (or a NaN) of a completion cannot be decoded, per completion.

    The entries of such a completion are left encoded: it must not be scored.
    """
    columns = {"prompts": request.prompts, "completions": request.completions, **request.columns}
    arguments: dict[str, list[Any]] = {name: list(entries) for name, entries in columns.items()}
    errors: list[str | None] = [None] * len(request.completions)
    known: dict[str, Image.Image] = {}
    for place in range(len(errors)):
        try:
            decoded = {name: _decode(entries[place], known, name) for name, entries in columns.items()}
        except DataError as error:
            errors[place] = error_text(error)
        else:
            for name, value in decoded.items():
                arguments[name][place] = value
    return arguments, errors


def encoded_images(request: ScoreRequest) -> Iterator[Any]:
    """The base64 of every image of a request; an image that occurs several times comes several times."""
    return _find_images([request.prompts, request.completions, request.columns])


def check_encoded_image(data: Any, max_pixels: int) -> None:
    """Raise OversizedImage if an image's header gives more pixels, DataError if the header cannot be read."""
    check_image({"bytes": _image_bytes(data, "The image")}, Path(), "The image", max_pixels)


def encode_value(value: Any, where: str) -> Any:
    """A value as JSON holds it. Raises RewardError, naming `where`, for one that it cannot hold."""
    return _Encoder("png")(value, where)


class _Encoder:
    """Plain values for JSON; each image is compressed once."""

    def __init__(self, image_format: ImageFormat) -> None:
        self._format: ImageFormat = image_format
        self._known: dict[int, tuple[Image.Image, str]] = {}  # the image too: an id is reused once its object is gone

    def __call__(self, value: Any, where: str, depth: int = 0) -> Any:
        if depth > _MAX_DEPTH:
            raise _not_sendable(where, "is nested too deeply, or contains itself", "flatten it.")
        if isinstance(value, Image.Image):
            return {"type": "image", "data": self._data(value)}
        if isinstance(value, Mapping):
            if _is_image(value):
                raise _not_sendable(
                    where, "has {'type': 'image', 'data': ...}, which stands for an image", "rename it."
                )
            if not all(isinstance(key, str) for key in value):
                raise _not_sendable(where, "has keys that are not text", "make them text.")
            return {key: self(inner, where, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self(inner, where, depth + 1) for inner in value]
        if isinstance(value, float) and not math.isfinite(value):
            raise _not_sendable(where, f"has {value}, which JSON cannot hold", "write null.")
        if value is None or type(value) in (str, bool, int, float):
            return value
        raise _not_sendable(
            where, f"has a {type(value).__name__}", "convert it to text, numbers, lists, mappings or images."
        )

    def _data(self, image: Image.Image) -> str:
        if id(image) not in self._known:
            file = io.BytesIO()
            if self._format == "png":
                to_rgb(image).save(file, "PNG", compress_level=1)  # images are sent once, often to the same machine
            else:
                to_rgb(image).save(file, "WEBP", lossless=True)
            self._known[id(image)] = image, base64.b64encode(file.getvalue()).decode()
        return self._known[id(image)][1]


def _not_sendable(where: str, problem: str, fix: str) -> RewardError:
    return RewardError(f"{where!r} cannot be sent to a reward service: it {problem}.", fix=fix)


def _is_image(value: Mapping[Any, Any]) -> bool:
    return value.keys() == {"type", "data"} and value["type"] == "image"


def _decode(value: Any, known: dict[str, Image.Image], where: str) -> Any:
    """The value with its images decoded, each once."""
    if isinstance(value, list):
        return [_decode(inner, known, where) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where}: {value} is not JSON.", fix="send null.")
    if not isinstance(value, dict):
        return value
    if not _is_image(value):
        return {name: _decode(inner, known, where) for name, inner in value.items()}
    data = value["data"]
    if not isinstance(data, str) or data not in known:
        known[data] = read_image({"bytes": _image_bytes(data, where)}, Path(), where)
    return known[data]


def _image_bytes(data: Any, where: str) -> bytes:
    try:
        content = base64.b64decode(data, validate=True) if isinstance(data, str) else b""
    except (binascii.Error, ValueError):
        raise DataError(f"{where}: the data of an image is not base64.", fix=_REMOVE_IMAGE) from None
    if not content.startswith(_SIGNATURES):
        raise DataError(f"{where}: the data of an image is neither PNG nor WebP.", fix=_REMOVE_IMAGE)
    return content


def _find_images(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for inner in value:
            yield from _find_images(inner)
    elif isinstance(value, dict) and _is_image(value):
        yield value["data"]
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _find_images(inner)


# --- bodies


def error_text(error: MotetError) -> str:
    """The problem of an error as one line of a reply."""
    return printable(error.problem, lines=False)[:_MAX_ERROR]


def parse_request(body: bytes) -> ScoreRequest:
    """The request in a body. Raises DataError saying what is malformed."""
    try:
        return ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        raise DataError(
            f"The request is malformed: {_first_problem(error)}.", fix="send the JSON that /docs describes."
        ) from None


def parse_reply(body: bytes, count: int) -> ScoreReply:
    """The reply to a request with `count` completions. Raises RewardError for anything else."""
    try:
        reply = ScoreReply.model_validate_json(body)
    except ValidationError as error:
        problem = _first_problem(error)
    else:
        if len(reply.values) == count:
            return reply
        problem = f"it has {len(reply.values)} values for {count} completions"
    raise RewardError(
        f"The reward service's reply is malformed: {problem}.",
        fix="check that the address is that of motet serve-rewards, and that both run the same version of motet.",
    )


def parse_error(body: bytes) -> str:
    """What the body of an error says, for a message; also of a server that is not motet's."""
    try:
        error = ErrorBody.model_validate_json(body).error
        return printable(f"{error.problem} Fix: {error.fix}", lines=False)
    except ValidationError:
        return printable(body[:_MAX_ERROR].decode(errors="replace"), lines=False) or "no text"


def _first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, with its place."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    text = first["msg"].removeprefix("Value error, ").rstrip(".")
    return printable(f"{place}: {text}" if place else text, lines=False)[:_MAX_ERROR]
