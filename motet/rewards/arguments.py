"""The arguments of a reward besides the columns of the data: TRL's, and the generated images.

    prompts            chats, one per trajectory: the context of the first act that the reward is assigned to
    completions        chats of the acts that the reward reads
    completion_ids     their token ids, image tokens included, act after act
    completion_images  their generated images, a list per trajectory (`images` are the images of the data)
    trainer_state      transformers' TrainerState; of it `global_step`, `max_steps` and `epoch` are filled in
    log_extra          f(column, values): one value per completion, for the samples of the run folder
    log_metric         f(name, value): a number for the metrics of the step

The names, and the form of prompts and completions, are those of TRL 1.16 (`GRPOTrainer._calculate_rewards`).
"""

from __future__ import annotations

import copy
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from motet.core.errors import RewardError
from motet.core.trajectory import Act

TRAINER = ("trainer_state", "log_extra", "log_metric")
MOTET_ARGUMENTS = ("prompts", "completions", "completion_ids", "completion_images", *TRAINER)

FOREIGN_ARGUMENTS = {
    "environments": "part of TRL's tool calling, which motet does not support",
    "solution_str": "verl's name for the text of one completion; a reward gets `completions`, all at once",
}
"""Arguments of other frameworks that no column can provide."""


@dataclass(eq=False)
class StepLog:
    """The training state that rewards receive, and what they log in one step.

    `step` of `steps` steps and `epoch` passes over the data are done. `metrics` are means by `REWARD/NAME`; `extra` is
    reward -> column -> one value per completion of that step.
    """

    step: int = 0
    steps: int = 1
    epoch: float = 0.0
    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    extra: dict[str, dict[str, list[Any]]] = field(default_factory=dict[str, dict[str, list[Any]]])

    @property
    def metrics(self) -> dict[str, float]:
        """The mean of what was logged under each name."""
        return {name: sum(values) / len(values) for name, values in self.values.items()}

    def arguments(self, reward: str) -> dict[str, Any]:
        """`trainer_state`, `log_extra` and `log_metric` for one reward."""
        from transformers import TrainerState  # takes seconds, which reading a recipe need not

        def log_extra(column: str, values: Any) -> None:
            self.extra.setdefault(reward, {}).setdefault(str(column), []).extend(map(_plain, _plain(values)))

        def log_metric(name: str, value: Any) -> None:
            number = value.item() if hasattr(value, "item") else value
            if not isinstance(number, numbers.Real) or name in ("mean", "std"):
                problem = "which is motet's own name" if name in ("mean", "std") else "which is not a number"
                raise RewardError(
                    f"Reward {reward!r} called log_metric({name!r}, {value!r}), {problem}.",
                    fix="log one number under another name." if name in ("mean", "std") else "log a number.",
                )
            self.values.setdefault(f"{reward}/{name}", []).append(float(number))

        state = TrainerState(global_step=self.step, max_steps=self.steps, epoch=self.epoch)
        return {"trainer_state": state, "log_extra": log_extra, "log_metric": log_metric}

    def merge(self, log: StepLog, reward: str, places: Sequence[int], count: int) -> None:
        """Add what one call of a reward logged with the completions at `places`, out of `count` of the step."""
        for name, values in log.values.items():
            self.values.setdefault(name, []).extend(values)
        for column, values in log.extra.get(reward, {}).items():
            own = self.extra.setdefault(reward, {}).setdefault(column, [None] * count)
            for place, value in zip(places, values, strict=True):
                own[place] = value

    def check(self, reward: str, count: int) -> None:
        """Raise RewardError unless every column that a reward logged has `count` values."""
        for column, values in self.extra.get(reward, {}).items():
            if len(values) != count:
                raise RewardError(
                    f"Reward {reward!r} called log_extra({column!r}, ...) with {len(values)} values for {count} "
                    "completions.",
                    fix="log one value per completion, in their order.",
                )


def _plain(value: Any) -> Any:
    """A tensor or an array as a number or a list, which JSON can hold; anything else unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value


def plain_chat(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A chat as TRL gives it to rewards: with string contents, unless it contains an image."""
    parts = [message["content"] for message in chat]
    if all(len(content) == 1 and content[0]["type"] == "text" for content in parts):
        return [{**message, "content": message["content"][0]["text"]} for message in chat]
    return chat


def token_ids(acts: Sequence[Act]) -> list[int] | None:
    """The ids of all acts, one after the other; None if one of them is denoising, which has no tokens."""
    ids: list[int] = []
    for act in acts:
        if act.token_ids is None:
            return None
        ids += act.token_ids.tolist()
    return ids


def images_of(completions: Sequence[Any]) -> list[list[Image.Image]]:
    """The images of every completion, in order."""
    return [
        [
            part["image"]
            for message in completion
            for part in (message["content"] if not isinstance(message["content"], str) else ())
            if part.get("type") == "image"
        ]
        for completion in completions
    ]


def deep_copies(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of all arguments, so that a reward that edits them does not affect others.

    Each object is copied once: the generations of a group share the copies of their row's images. What cannot be copied
    (a column that holds a lock or an open file) is shared.
    """
    memo: dict[int, Any] = {}
    copies: dict[str, Any] = {}
    for name, value in arguments.items():
        try:
            copies[name] = value if name in TRAINER else copy.deepcopy(value, memo)
        except Exception:  # objects that cannot be copied raise errors of any type
            copies[name] = value
    return copies
