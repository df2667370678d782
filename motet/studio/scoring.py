"""The rewards that score images on the page: those that need an image and its prompt, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from motet.config.schema import RewardConfig
from motet.core.errors import ConfigError, MotetError
from motet.rewards import built_in_rewards
from motet.rewards.single import CompletionScorer
from motet.shapes.parse_prompt import parse_prompt
from motet.shapes.render import VOCABULARIES

_COLUMNS = ("prompt", "spec")


class ImageScorers:
    """Rewards by name; each loads its models when it first scores.

    Those that are offered are the built-in ones without a model and without options, found by a trial, and `chosen`,
    which may be any reward with its `options`. Raises ConfigError or RewardError where `chosen` cannot score an image
    of a prompt. `world` is the shapes world whose prompts `shapes` parses.
    """

    def __init__(
        self, chosen: str | None = None, options: Mapping[str, Any] | None = None, world: str = "small"
    ) -> None:
        if world not in VOCABULARIES:
            raise ConfigError(
                f"--world={world!r} is not a shapes world.", fix=f"use one of: {', '.join(VOCABULARIES)}."
            )
        self.world = world
        self._scorers: dict[str, CompletionScorer] = {}
        self.is_binary: dict[str, bool] = {}
        """Whether the values of a reward are 0 or 1."""
        if chosen is not None:
            self._add(chosen, options or {})
        for name, listed in built_in_rewards().items():
            if name != chosen and listed.info is not None and listed.info.model is None:
                try:
                    self._add(name, {}, trial=True)
                except (MotetError, TypeError):  # it needs more than an image and a prompt, or required options
                    continue

    @property
    def names(self) -> list[str]:
        """The rewards, the chosen one first."""
        return list(self._scorers)

    def score(self, name: str, prompt: str, images: Sequence[Image.Image]) -> list[float | None]:
        """The reward of every image; None where it does not apply: for `shapes`, a prompt that it cannot parse."""
        columns = {"prompt": prompt, "spec": parse_prompt(prompt, world=self.world)}
        return self._scorers[name].score(images, columns)[0] if images else []

    def _add(self, name: str, options: Mapping[str, Any], *, trial: bool = False) -> None:
        scorer = CompletionScorer(RewardConfig(name=name, options=dict(options)), "image", _COLUMNS)
        if trial:
            prompt = "a red circle"
            spec = parse_prompt(prompt, world=self.world)
            scorer.score([Image.new("RGB", (32, 32), "white")], {"prompt": prompt, "spec": spec})
        info = getattr(built_in_rewards().get(name), "info", None)
        self.is_binary[name] = info is not None and info.range.startswith("0 or 1")
        self._scorers[name] = scorer
