"""Answers to the tasks of reasoning-gym, by the scorer of the task."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, ClassVar

from motet.core.errors import ConfigError, RewardError
from motet.core.registry import first_line
from motet.rewards.base import ModelReward, reward
from motet.rewards.info import UNIT, RewardInfo
from motet.rewards.options import check_bool
from motet.rewards.text.exact_match import RewardValues, answer_of


@reward(
    "reasoning_gym",
    info=RewardInfo(range=UNIT, model="reasoning-gym (no weights)", license="Apache-2.0", extra="reasoning"),
)
@dataclass(eq=False, kw_only=True)
class ReasoningGym(ModelReward):
    """The score of an answer by the task's own scorer, in [0, 1]: 1 for correct, part of it for near misses.

    For rows of `data.source: reasoning_gym` (Stojanovski et al. 2025, arXiv 2505.24760): the column `reasoning_gym`
    says how to generate the row's entry again, which the scorer needs. A text without an `<answer>` block gets 0; with
    `answer_tags` False the whole completion is the answer. A row without the column gets None.
    """

    name: ClassVar[str] = "reasoning_gym"

    answer_tags: Any = True

    def __post_init__(self) -> None:
        check_bool(self.name, "answer_tags", self.answer_tags)
        if find_spec("reasoning_gym") is None:
            raise ConfigError(
                "rewards.name='reasoning_gym' needs the package reasoning-gym.", fix='pip install "motet[reasoning]".'
            )

    def __call__(self, completions: list[Any], reasoning_gym: list[Any]) -> RewardValues:
        """One score per completion."""
        values: RewardValues = []
        for completion, made_of in zip(completions, reasoning_gym, strict=True):
            if made_of is None or not completion:
                values.append(None)
                continue
            said = answer_of(completion, self.answer_tags, self.name)
            values.append(0.0 if said is None else _score(said, made_of))
        return values


def _score(said: str, made_of: Mapping[str, Any]) -> float:
    try:
        task, index = made_of["task"], made_of["index"]
        generator = _generator(task, json.dumps(made_of["settings"], sort_keys=True))
        score = float(generator.score_answer(said, generator[index]))
    except Exception as error:  # scorers parse what a model wrote, and generators check their options by assertions
        raise RewardError(
            f"Reward 'reasoning_gym' cannot score {said!r:.60} for the row {made_of!r:.120}: {first_line(error)}.",
            fix="check that the rows are those of data.source=reasoning_gym; set rewards.on_failure to drop such rows.",
        ) from error
    if not math.isfinite(score):
        raise RewardError(
            f"Reward 'reasoning_gym': the scorer of {task!r} returned {score}.", fix="leave this task out."
        )
    return score


@lru_cache(maxsize=64)
def _generator(task: str, settings: str) -> Any:
    from reasoning_gym import create_dataset

    return create_dataset(task, **json.loads(settings))
