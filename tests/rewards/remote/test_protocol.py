"""The protocol of reward services: round trips of arguments, and reasons for what is malformed."""

import base64
import io
import json
import math

import pytest
from PIL import Image

from motet.core.errors import DataError, RewardError
from motet.core.images import OversizedImage
from motet.rewards.remote.protocol import (
    ScoreRequest,
    check_encoded_image,
    decode_arguments,
    encode_arguments,
    encoded_images,
    parse_error,
    parse_reply,
    parse_request,
)

NOISE = Image.effect_noise((24, 16), 80).convert("RGB")
PROMPT = [{"role": "user", "content": "a red cross"}]


def _png(image: Image.Image, size: int | None = None) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()[:size]).decode()


def _generated(image: Image.Image) -> list[dict]:
    return [{"role": "assistant", "content": [{"type": "image", "image": image}]}]


def _request(data: object, **columns: list) -> ScoreRequest:
    image = [{"role": "assistant", "content": [{"type": "image", "image": {"type": "image", "data": data}}]}]
    text = [{"role": "assistant", "content": "yes"}]
    body = {"prompts": [PROMPT, PROMPT], "completions": [image, text], "columns": columns}
    return parse_request(json.dumps(body).encode())


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_arguments_arrive_as_they_were_sent(image_format: str) -> None:
    arguments = {
        "prompts": [PROMPT, PROMPT],
        "completions": [_generated(NOISE), [{"role": "assistant", "content": "yes"}]],
        "completion_ids": [[1, 2], [3]],
        "completion_images": [[NOISE], []],
        "images": [[NOISE, NOISE], None],
        "answer": ["4", None],
        "scene": [{"cells": [[0, 1.5], [True]]}, {}],
    }
    body = json.dumps(encode_arguments(arguments, image_format)).encode()
    decoded, errors = decode_arguments(parse_request(body))
    assert errors == [None, None]
    image = decoded["completions"][0][0]["content"][0]["image"]
    assert image.tobytes() == NOISE.tobytes() and image.size == NOISE.size
    assert [one.tobytes() for one in decoded["images"][0]] == [NOISE.tobytes()] * 2
    for name in ("prompts", "completion_ids", "answer", "scene"):
        assert decoded[name] == arguments[name]
    assert decoded["completions"][1] == arguments["completions"][1]
    assert "completion_images" not in decoded, "the server derives them"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "JSON cannot hold"),
        (b"bytes", "has a bytes"),
        ({1: "one"}, "keys that are not text"),
        ({"type": "image", "data": "text"}, "stands for an image"),
        (object(), "has a object"),
    ],
)
def test_values_that_cannot_be_sent_are_named(value: object, reason: str) -> None:
    arguments = {"prompts": [PROMPT], "completions": [PROMPT], "gold": [value]}
    with pytest.raises(RewardError, match=f"'gold' cannot be sent.*{reason}"):
        encode_arguments(arguments)


def test_a_list_that_contains_itself_cannot_be_sent() -> None:
    endless: list = []
    endless.append(endless)
    with pytest.raises(RewardError, match="nested too deeply"):
        encode_arguments({"prompts": [PROMPT], "completions": [PROMPT], "gold": [endless]})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_png(NOISE, 400), "cannot be read"),
        ("!!!", "not base64"),
        (base64.b64encode(b"GIF89a").decode(), "neither PNG nor WebP"),
        (17, "neither PNG nor WebP"),
        (["list"], "neither PNG nor WebP"),
    ],
)
def test_an_undecodable_image_is_an_error_of_its_completion_alone(data: object, reason: str) -> None:
    decoded, errors = decode_arguments(_request(data, answer=["a", "b"]))
    assert errors[1] is None and reason in str(errors[0])
    assert decoded["answer"] == ["a", "b"]


def test_a_nan_is_an_error_of_its_completion_alone() -> None:
    request = _request(_png(NOISE), score=[math.nan, 1.0])
    for sent in (request, parse_request(request.model_dump_json().encode())):
        assert decode_arguments(sent)[1] == ["score: nan is not JSON.", None]


def test_the_header_of_an_image_tells_that_it_is_too_large() -> None:
    (data,) = encoded_images(_request(_png(NOISE)))
    check_encoded_image(data, 24 * 16)
    with pytest.raises(OversizedImage, match="24 x 16 pixels are more than 383"):
        check_encoded_image(data, 24 * 16 - 1)
    with pytest.raises(DataError, match="neither PNG nor WebP"):
        check_encoded_image(5, 100)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"completions": []}, "completions"),
        ({"prompts": [PROMPT]}, "prompts has 1 entries for 2 completions"),
        ({"columns": {"answer": ["a"]}}, "answer has 1 entries for 2 completions"),
        ({"columns": {"trainer_state": [1, 2]}}, "'trainer_state' is not a column"),
        ({"completions": [[{"role": "user"}], []]}, "is not a message"),
        ({"completions": [[{"role": "user", "content": ["text"]}], []]}, "is not a message"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_malformed_request_is_rejected_with_its_place(change: dict, reason: str) -> None:
    body = {"prompts": [PROMPT, PROMPT], "completions": [PROMPT, PROMPT], "columns": {}} | change
    with pytest.raises(DataError, match=reason):
        parse_request(json.dumps(body).encode())


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[" * 100_000, b'{"prompts": "\\ud800"}', b"\xff\xfe", b"\x80\x04\x95"]
)
def test_what_is_not_json_is_rejected(body: bytes) -> None:
    with pytest.raises(DataError, match="The request is malformed"):
        parse_request(body)


@pytest.mark.parametrize(
    "reply",
    [
        b'{"values": [1.0], "errors": [null]}',
        b'{"values": [1.0, NaN], "errors": [null, null]}',
        b'{"values": [1.0, true], "errors": [null, null]}',
        b'{"values": [1.0, "2"], "errors": [null, null]}',
        b'{"values": [1.0, 0.0], "errors": [null, "raised"]}',
        b'{"values": [1.0, null], "errors": ["raised"]}',
        b'{"values": [1.0, 2.0], "err',
        b"<html>",
    ],
)
def test_a_malformed_reply_is_an_error(reply: bytes) -> None:
    with pytest.raises(RewardError, match="reply is malformed"):
        parse_reply(reply, 2)


def test_a_reply_has_values_and_errors() -> None:
    reply = parse_reply(b'{"values": [1, null, null], "errors": [null, null, "raised"], "metrics": {"length": 2}}', 3)
    assert reply.values == [1.0, None, None] and reply.errors == [None, None, "raised"]


def test_errors_of_any_server_are_safe_to_print() -> None:
    body = json.dumps({"error": {"problem": "No \x1b[31mreward.", "fix": "ask again.", "code": None}}).encode()
    assert parse_error(body) == r"No \x1b[31mreward. Fix: ask again."
    assert parse_error(b"<h1>\x1b[31m502</h1>") == r"<h1>\x1b[31m502</h1>"
    assert parse_error(b"") == "no text"
