"""Any OpenAI-compatible chat endpoint as a VQA model: vLLM, SGLang, llama.cpp, a hosted service.

Requests are JSON with the image as a PNG data URL. The key is read from the environment variable that the recipe
names, when requests are made; it is never logged, and never follows a redirect to another host: redirects are rejected.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import random
import time
import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from PIL import Image

from motet.core.errors import ConfigError, RewardError
from motet.core.registry import did_you_mean, first_line
from motet.rewards.http import authorization, fetch, is_temporary
from motet.rewards.options import check_int, check_non_empty, check_number, raise_option_error
from motet.rewards.waiting import run_on_threads

LARGEST_REPLY = 1 << 20
"""Bytes of a reply that are read; a chat completion has a few thousand."""


@dataclass(frozen=True)
class Endpoint:
    """The address of an endpoint, with retries and limits. As a recipe's option: a mapping with these keys.

    `key_variable` names the environment variable that holds the key; None: no key. A request that has no whole reply
    after `timeout` seconds, whose reply is cut off, or that the server rejects for now (408, 429, 5xx), is tried
    `retries` times more, waiting `backoff`, then twice that, and so on in seconds, with jitter. `concurrency` requests
    run at a time.
    """

    base_url: str
    model: str
    key_variable: str | None = None
    timeout: float = 60.0
    retries: int = 3
    backoff: float = 1.0
    concurrency: int = 8
    max_tokens: int = 128
    temperature: float = 0.0


def read_endpoint(reward: str, value: Any) -> Endpoint:
    """Parse the endpoint of an option. Raises ConfigError naming the reward and the key."""
    known = [field.name for field in fields(Endpoint)]
    if not isinstance(value, Mapping):
        raise_option_error(
            reward, "endpoint", value, "is not a mapping", fix=f"give base_url and model; keys: {', '.join(known)}."
        )
    for key in value:
        if key not in known:
            problem = f"is not a key of an endpoint; the keys are: {', '.join(known)}.{did_you_mean(str(key), known)}"
            raise ConfigError(f"rewards.options.endpoint.{key} of {reward!r} {problem}", fix="correct the key.")
    settings: dict[str, Any] = {field.name: field.default for field in fields(Endpoint)} | dict(value)
    for key in ("base_url", "model"):
        check_non_empty(reward, f"endpoint.{key}", value.get(key), "text")
    if not settings["base_url"].startswith(("http://", "https://")):
        raise_option_error(
            reward,
            "endpoint.base_url",
            settings["base_url"],
            "is not an http(s) address",
            fix="write http://... or https://...",
        )
    if settings["key_variable"] is not None:
        check_non_empty(reward, "endpoint.key_variable", settings["key_variable"], "name of an environment variable")
    for key in ("timeout", "backoff", "temperature"):
        check_number(reward, f"endpoint.{key}", settings[key], low=0.001 if key == "timeout" else 0.0)
        settings[key] = float(settings[key])
    for key, low in (("retries", 0), ("concurrency", 1), ("max_tokens", 1)):
        check_int(reward, f"endpoint.{key}", settings[key], low)
    return Endpoint(**settings)


def ask(
    endpoint: Endpoint, images: Sequence[Image.Image | Sequence[Image.Image]], questions: Sequence[str], reward: str
) -> list[str | None]:
    """What the model says about each image (or several, shown in one request), in order; None where it could not be
    asked.

    Raises ConfigError when the key's variable is not set, RewardError when every single request failed.
    """
    replies = ask_each(endpoint, images, questions, reward)
    return [None if isinstance(reply, Exception) else reply for reply in replies]


def ask_each(
    endpoint: Endpoint,
    images: Sequence[Image.Image | Sequence[Image.Image]],
    questions: Sequence[str],
    name: str,
    what: str = "Reward",
    key: str = "rewards.options.endpoint",
) -> list[str | Exception]:
    """As `ask`, with the error of each failed request. Errors call whoever asks `what` `name`, and the endpoint `key`.

    Raises ConfigError when the key's variable is not set, RewardError when every single request failed.
    """
    if not images:
        return []
    headers = {"Content-Type": "application/json"} | authorization(endpoint.key_variable, f"{key}.key_variable", name)

    def one(asked: tuple[Image.Image | Sequence[Image.Image], str]) -> str | Exception:
        shown, question = asked
        try:
            several = [shown] if isinstance(shown, Image.Image) else shown
            return _request(endpoint, headers, _body(endpoint, several, question))
        except Exception as error:  # a failed request is data: it drops one trajectory
            return error

    replies = run_on_threads(one, zip(images, questions, strict=True), endpoint.concurrency)
    if all(isinstance(reply, Exception) for reply in replies):
        assert isinstance(replies[0], Exception)
        raise RewardError(
            f"{what} {name!r} sent {len(replies)} requests to {endpoint.base_url}, and all requests failed: "
            f"{first_line(replies[0])}.",
            fix=f"check that the server runs and serves the model; check {key}.",
        )
    return replies


def data_url(image: Image.Image) -> str:
    """The image as a PNG in a data URL."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _body(endpoint: Endpoint, images: Sequence[Image.Image], question: str) -> bytes:
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    content.append({"type": "text", "text": question})
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": endpoint.max_tokens,
        "temperature": endpoint.temperature,
    }
    return json.dumps(body).encode()


def _request(endpoint: Endpoint, headers: Mapping[str, str], body: bytes) -> str:
    """The text of one reply; raises the error of the last attempt."""
    url = endpoint.base_url.rstrip("/") + "/chat/completions"
    limits: dict[str, Any] = {"timeout": endpoint.timeout, "largest": LARGEST_REPLY}
    for attempt in range(endpoint.retries + 1):
        try:
            return _text_of(fetch(url, body, headers, too_large="lower endpoint.max_tokens.", **limits))
        except urllib.error.HTTPError as error:
            error.close()
            if attempt == endpoint.retries or not is_temporary(error):
                raise
        except (OSError, http.client.HTTPException):  # no connection or reply in time, or one that is cut off
            if attempt == endpoint.retries:
                raise
        time.sleep(endpoint.backoff * 2**attempt * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")


def _text_of(raw: bytes) -> str:
    """The message of a chat completion. Raises IncompleteRead if it is cut off, RewardError for anything else."""
    try:
        text = json.loads(raw)["choices"][0]["message"]["content"]
    except ValueError:
        if raw.lstrip().startswith(b"{") or not raw.strip():
            raise http.client.IncompleteRead(raw) from None
        text = None
    except (LookupError, TypeError):
        text = None
    if not isinstance(text, str):
        raise RewardError(
            f"The endpoint's reply is not a chat completion: {raw[:80]!r}.", fix="give base_url up to and with /v1."
        )
    return text
