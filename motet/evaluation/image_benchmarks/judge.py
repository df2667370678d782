"""The model that a benchmark asks about images: behind an OpenAI-compatible endpoint, or a checkpoint of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from PIL import Image
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from motet.config.section import Section
from motet.core.act_kinds import act_kind
from motet.core.errors import ConfigError
from motet.core.registry import first_line
from motet.evaluation.image_benchmarks.base import BenchmarkOptions
from motet.policies import load_policy
from motet.rewards.judge.endpoint import Endpoint, ask_each
from motet.rewards.judge.vqa import PolicyVQA
from motet.weights.locate import resolve_checkpoint

T = TypeVar("T")
Judge = Callable[[Sequence[Image.Image], Sequence[str]], "list[str | Exception]"]
"""(images, one question about each) -> the replies, or why there is none."""


class JudgeOptions(Section):
    """Either `base_url` and `model`, or `path`."""

    path: str | None = None
    """Folder or hub id of a checkpoint that answers questions about images, such as a Qwen-VL."""
    base_url: str | None = None
    """Address of an OpenAI-compatible endpoint, up to and with /v1."""
    model: str | None = None
    """Name of the endpoint's model."""
    key_variable: str | None = None
    """Environment variable with the endpoint's key; None: it needs none."""
    timeout: PositiveFloat = 60.0
    """Seconds until a request has failed."""
    retries: NonNegativeInt = 3
    """Further attempts of a request that failed."""
    concurrency: PositiveInt = 8
    """Requests at a time."""
    max_tokens: PositiveInt = 128
    """Most tokens of a reply."""
    batch_size: PositiveInt = 8
    """Images at a time for a checkpoint."""


class JudgedOptions(BenchmarkOptions):
    """Options of benchmarks with a judge."""

    judge: JudgeOptions
    """The model that is asked about the images."""


def open_judge(options: JudgeOptions, suite: str) -> Judge:
    """The judge, at temperature 0. Raises ConfigError for options that contradict each other."""
    endpoint = {key for key in ("base_url", "model") if getattr(options, key) is not None}
    if (options.path is None) != (len(endpoint) == 2) or (options.path is not None and endpoint):
        raise ConfigError(
            f"eval.suite.judge of {suite!r} must have either path, or base_url and model.",
            fix="set eval.suite.judge.path=CHECKPOINT, or eval.suite.judge.base_url=http://.../v1 and .model=NAME.",
        )
    if options.path is not None:
        sampling = act_kind("text").sampling(temperature=0.0, max_tokens=options.max_tokens)
        vqa = PolicyVQA(load_policy(resolve_checkpoint(options.path)), "current", sampling, options.batch_size)
        return lambda images, questions: list(vqa(images, questions))  # type: ignore[return-value]
    assert options.base_url is not None and options.model is not None
    if not options.base_url.startswith(("http://", "https://")):
        raise ConfigError(
            f"eval.suite.judge.base_url={options.base_url!r} is not an http(s) address.", fix="write http://..."
        )
    shared: dict[str, Any] = options.model_dump(include={"key_variable", "timeout", "retries", "concurrency"})
    server = Endpoint(options.base_url, options.model, max_tokens=options.max_tokens, **shared)
    return lambda images, questions: ask_each(server, images, questions, suite, "The suite", "eval.suite.judge")


def parse(reply: str | Exception, read: Callable[[str], T | None], expected: str) -> tuple[T | None, str | None]:
    """What `read` finds in a reply, and why there is nothing: a failed request, or a reply without it."""
    if isinstance(reply, Exception):
        return None, f"the request failed: {first_line(reply)}"
    found = read(reply)
    return found, None if found is not None else f"the reply is not {expected}: {reply.strip()[:80]!r}"
