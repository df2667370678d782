"""The file of `motet serve-rewards`: which rewards, where, and within what limits. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from motet.config.error_messages import Root
from motet.config.load import apply_overrides, config_error, read_mapping, read_section
from motet.config.problem import Problem
from motet.config.section import Section

_MEGABYTE = 1_000_000
_ROUTE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_OF_RECIPES = ("weight", "acts", "on_failure")


class LimitsConfig(Section):
    """What a server accepts; more is rejected with status 413 or 429."""

    request_mb: PositiveFloat = 64.0
    """Megabytes of one request, with its images in base64."""
    held_mb: PositiveFloat = 1024.0
    """Megabytes of all requests under way."""
    images: PositiveInt = 1024
    """Images of one request."""
    pixels: PositiveInt = 4_194_304
    """Pixels of one image, 2048 x 2048 by default; more than 50 million are never decoded."""
    queue: PositiveInt = 128
    """Requests that may wait for one reward."""

    @property
    def request_bytes(self) -> int:
        """`request_mb` in bytes."""
        return int(self.request_mb * _MEGABYTE)

    @property
    def held_bytes(self) -> int:
        """`held_mb` in bytes, and at least one request."""
        return max(int(self.held_mb * _MEGABYTE), self.request_bytes)


class BatchingConfig(Section):
    """How requests for one reward are joined into one call."""

    max_batch: PositiveInt = 64
    """Completions of a call, above which no further request joins; a request is never split. 1: none is joined."""
    wait_ms: NonNegativeFloat = 5.0
    """Milliseconds that the first request waits for others while the reward is idle."""


class ServedReward(Section):
    """One reward of a server."""

    name: str
    """A built-in name or a path, as in a recipe."""
    serve_as: str | None = None
    """Its name in the path /v1/score/NAME; default: the name, of a path its last part."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the reward, as in a recipe."""
    device: str = "auto"
    """Where its model is: auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    timeout: PositiveFloat = 60.0
    """Seconds that one call may take."""
    process: bool = False
    """Whether it runs in a process of its own, which is killed when it hangs and started again when it dies."""
    python: str | None = None
    """The Python of a virtual environment that has motet and the reward's packages; implies `process`."""

    @property
    def route(self) -> str:
        """Its name in the path."""
        return self.serve_as or self.name.rpartition(":")[2]

    @property
    def own_process(self) -> bool:
        """Whether it runs in a process of its own."""
        return self.process or self.python is not None


class ServiceConfig(Section):
    """A reward service."""

    rewards: tuple[ServedReward, ...] = Field(min_length=1)
    """The rewards that it has."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's own needs a token."""
    port: int = Field(default=8642, ge=0, le=65535)
    """Port to listen on; 0: any free one."""
    token_variable: str | None = None
    """Environment variable that has the bearer token of requests."""
    limits: LimitsConfig = LimitsConfig()
    """Sizes of requests."""
    batching: BatchingConfig = BatchingConfig()
    """Joining of requests."""


def load_service(path: Path, overrides: Sequence[str] = ()) -> ServiceConfig:
    """The service that a YAML file describes, changed by overrides such as `port=9000`. Raises ConfigError."""
    content = apply_overrides(read_mapping(path), overrides, str(path), ServiceConfig)
    problems = list(_keys_of_recipes(content))
    config = problems or read_section(content, Root(ServiceConfig, what="a reward service"))
    if isinstance(config, ServiceConfig):
        problems = list(_wrong_routes(config))
        if not problems:
            return config
    raise config_error(problems or config, overrides, str(path))  # pyright: ignore[reportArgumentType]


def _keys_of_recipes(content: Mapping[str, Any]) -> Iterator[Problem]:
    """Keys of a recipe's rewards that the training side reads."""
    rewards = content.get("rewards")
    for place, reward in enumerate(rewards if isinstance(rewards, list) else ()):
        for key in _OF_RECIPES:
            if isinstance(reward, dict) and key in reward:
                problem = "is read where the reward is used, not where it is served."
                yield Problem(f"rewards.{place}.{key}", problem, "move it to the recipe that uses the service.")


def _wrong_routes(config: ServiceConfig) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for place, reward in enumerate(config.rewards):
        first = seen.setdefault(reward.route, place)
        if first != place:
            problem = f"is served as {reward.route!r}, and so is rewards.{first}."
            yield Problem(f"rewards.{place}", problem, "give one of them another name with serve_as.")
        if not _ROUTE.fullmatch(reward.route):
            problem = f"is served as {reward.route!r}; a name in a path has letters, digits, and the signs . _ -"
            yield Problem(f"rewards.{place}", f"{problem}.", "give it another name with serve_as.")
