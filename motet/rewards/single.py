"""Score one completion by one reward, outside of any run: `motet reward test`."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from motet.config.schema import RewardConfig
from motet.core.conversation import Conversation, user
from motet.core.errors import ConfigError, RewardError
from motet.core.protocols import Policy
from motet.core.sampling import Sampling
from motet.core.task import Task
from motet.core.trajectory import Act, Group, ImageTokens, TextTokens, Trajectory
from motet.rewards.arguments import StepLog
from motet.rewards.base import BUILT_INS, BoundReward, BuiltIn, ModelReward, bind_policy
from motet.rewards.no_policy import NoPolicy
from motet.rewards.resolving import resolve
from motet.rewards.scoring import score_groups


class CompletionScorer:
    """Scores single completions, images or texts, by one reward; its models are loaded once.

    `what` is the kind of the completions, `image` or `answer`; `columns` are the names of the columns that their rows
    have. Raises as `score_one` does.
    """

    def __init__(self, config: RewardConfig, what: str, columns: Collection[str], policy: Policy | None = None) -> None:
        acts = _reads_acts(config) or [what]
        if len(acts) > 1:
            raise ConfigError(
                f"Reward {config.name!r} reads the acts {', '.join(acts)}, but one completion is scored here.",
                fix="score it with a recipe whose scenario has these acts: motet data RECIPE.",
            )
        self._act = acts[0]
        self._reward = _prepare(resolve(config, {acts[0]: what}, _names(columns)), policy)

    def score(
        self, contents: Sequence[Image.Image | str], columns: Mapping[str, Any]
    ) -> tuple[list[float | None], dict[str, float]]:
        """The reward of every completion for a row with these columns, and what the reward logs."""
        prompt = columns.get("prompt", columns.get("question"))
        context = user(str(prompt)) if prompt is not None else Conversation()
        task, log = Task(0, columns), StepLog(1, 1)
        groups = [Group(task, (Trajectory(task, (_act(self._act, content, context),)),)) for content in contents]
        scores = score_groups(groups, [self._reward], log)
        for one in scores:
            if one.dropped:
                raise RewardError(
                    f"{one.dropped[0].message}: it could not score this completion.",
                    fix="check the completion, and that what the reward asks (a model, an endpoint) works.",
                )
        return [one.values[self._reward.name][0] for one in scores], log.metrics


def score_one(
    config: RewardConfig,
    content: Image.Image | str,
    columns: Mapping[str, Any],
    policy: Policy | None = None,
) -> tuple[float | None, dict[str, float]]:
    """The reward of one image or text for a row with these columns, and what the reward logs.

    The value is None where the reward does not apply. `policy` is what rewards that ask the policy get; without one,
    models run on the CPU. Raises ConfigError for a reward that reads several acts or needs a policy that is not given,
    RewardError for a missing column or a value that is not finite, and what the reward raises.
    """
    what = "image" if isinstance(content, Image.Image) else "answer"
    values, metrics = CompletionScorer(config, what, columns, policy).score([content], columns)
    return values[0], metrics


def _reads_acts(config: RewardConfig) -> list[str]:
    found = BUILT_INS.find(config.name)
    function = found.function if isinstance(found, BuiltIn) else found
    if not (inspect.isclass(function) and issubclass(function, ModelReward)):
        return []
    known = inspect.signature(function).parameters
    made = function(**{name: value for name, value in config.options.items() if name in known})
    return list(made.reads_acts)


def _names(columns: Collection[str]) -> list[str]:
    """The columns that the data would have; a row with an image offers it as `image` and as `images`."""
    return [*columns, *(["image"] if "images" in columns else [])]


def _prepare(reward: BoundReward, policy: Policy | None) -> BoundReward:
    if policy is None and reward.needs_policy:
        raise ConfigError(
            f"Reward {reward.name!r} uses the policy, but none is given.",
            fix="add --policy CHECKPOINT, or choose other options (a model or an endpoint), if it has them.",
        )
    if policy is not None and reward.uses_reference:
        getattr(policy, "freeze_reference")()  # noqa: B009  # a policy that cannot be trained has no reference
    (bound,) = bind_policy([reward], policy or NoPolicy())
    return bound


def _act(name: str, content: Image.Image | str, context: Conversation) -> Act:
    ids = torch.zeros(0, dtype=torch.long)
    shared: dict[str, Any] = {"name": name, "context": context, "encoding": None, "sampling": Sampling()}
    shared |= {"log_probs": None, "ids": ids}
    if isinstance(content, str):
        return TextTokens(**shared, text=content, finished=True)
    return ImageTokens(**shared, image=content)
