"""The improvement of a revision over its draft, by any other reward."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any

from motet.config.schema import RewardConfig
from motet.core.protocols import Policy
from motet.rewards.arguments import MOTET_ARGUMENTS
from motet.rewards.base import BoundReward, ModelReward, bind_policy, reward
from motet.rewards.info import RewardInfo
from motet.rewards.options import check_non_empty, raise_option_error
from motet.rewards.resolving import resolve

Values = list[float | None]


@reward(
    "improvement",
    info=RewardInfo(
        range="[-1, 1] where `of` is in [0, 1]", model="that of the reward `of`", runs="as the reward `of`"
    ),
)
@dataclass(eq=False, kw_only=True)
class Improvement(ModelReward):
    """Score of the act `after` minus score of the act `before`, both by the reward `of` with its `options`.

    Name the acts that it is assigned to in `rewards.acts`, without the draft: otherwise the draft is rewarded for being
    worse (with advantage assignment `joint` or `summed` it is in any case). None where one of the two has no score.
    """

    of: Any = None
    options: Any = None
    before: Any = "draft"
    after: Any = "revision"
    _scorer: BoundReward = field(init=False)

    def __post_init__(self) -> None:
        check_non_empty("improvement", "of", self.of, "name of a reward")
        for option, act in (("before", self.before), ("after", self.after)):
            check_non_empty("improvement", option, act, "name of an act")
        if self.before == self.after:
            raise_option_error("improvement", "after", self.after, "is the same act as `before`", fix="name two acts.")
        if self.options is not None and not isinstance(self.options, dict):
            raise_option_error(
                "improvement", "options", self.options, "is not a mapping", fix="give the options of the other reward."
            )
        config = RewardConfig(name=self.of, options=self.options or {})
        self._scorer = resolve(config, {self.before: "image", self.after: "image"}, None)
        unavailable = self._scorer.required & (set(MOTET_ARGUMENTS) - {"prompts", "completions", "completion_images"})
        if unavailable:
            fix = "use that reward alone."
            raise_option_error(
                "improvement",
                "of",
                self.of,
                f"needs {', '.join(sorted(unavailable))}, which `improvement` cannot provide",
                fix=fix,
            )
        self.uses_reference, self.needs_policy = self._scorer.uses_reference, self._scorer.needs_policy

    @property
    def required_columns(self) -> tuple[str, ...]:
        return self._scorer.required_columns

    @property
    def reads_acts(self) -> tuple[str, ...]:
        return (self.before, self.after)

    def prepare(self, policy: Policy) -> None:
        (self._scorer,) = bind_policy([self._scorer], policy)

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> Values | Awaitable[Values]:
        """One difference per completion; the other reward is called once, for both acts of all trajectories."""
        both = [
            [[message for message in completion if message.get("name") == act] for completion in completions]
            for act in (self.before, self.after)
        ]
        doubled = {name: [*values, *values] for name, values in columns.items() if name not in MOTET_ARGUMENTS}
        scores = self._scorer(prompts=[*prompts, *prompts], completions=both[0] + both[1], **doubled)
        return _awaited(scores) if isawaitable(scores) else _differences(scores)


async def _awaited(scores: Awaitable[Values]) -> Values:
    return _differences(await scores)


def _differences(scores: Values) -> Values:
    half = len(scores) // 2
    pairs = zip(scores[:half], scores[half:], strict=True)
    return [None if before is None or after is None else after - before for before, after in pairs]
