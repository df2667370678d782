"""How much better a revision is than its draft, by any other reward."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any

from motet.config.schema import RewardConfig
from motet.core.protocols import Policy
from motet.rewards.arguments import GIVEN
from motet.rewards.base import BoundReward, ModelReward, bind_policy, reward
from motet.rewards.options import filled, refuse
from motet.rewards.resolving import resolve

Values = list[float | None]


@reward("improvement")
@dataclass(eq=False, kw_only=True)
class Improvement(ModelReward):
    """Score of the act `after` minus score of the act `before`, both by the reward `of` with its `options`.

    Name in `rewards.acts` whom it speaks for, and leave the draft out there: credited with it, a draft would learn to
    be bad (with credit `joint` or `summed` it is credited all the same). None where one of the two has no score.
    """

    of: Any = None
    options: Any = None
    before: Any = "draft"
    after: Any = "revision"
    _scorer: BoundReward = field(init=False)

    def __post_init__(self) -> None:
        filled("improvement", "of", self.of, "name of a reward")
        for option, act in (("before", self.before), ("after", self.after)):
            filled("improvement", option, act, "name of an act")
        if self.before == self.after:
            refuse("improvement", "after", self.after, "is the act before", fix="name two acts.")
        if self.options is not None and not isinstance(self.options, dict):
            refuse("improvement", "options", self.options, "is no mapping", fix="give the options of the other reward.")
        config = RewardConfig(name=self.of, options=self.options or {})
        self._scorer = resolve(config, {self.before: "image", self.after: "image"}, None)
        lacking = self._scorer.required & (set(GIVEN) - {"prompts", "completions", "completion_images"})
        if lacking:
            fix = "use that reward on its own."
            refuse("improvement", "of", self.of, f"asks for {', '.join(sorted(lacking))}, not known here", fix=fix)
        self.uses_reference = self._scorer.uses_reference

    @property
    def needs(self) -> tuple[str, ...]:
        return self._scorer.needs

    @property
    def sees(self) -> tuple[str, ...]:
        return (self.before, self.after)

    def prepare(self, policy: Policy) -> None:
        (self._scorer,) = bind_policy([self._scorer], policy)

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> Values | Awaitable[Values]:
        """One difference per completion; the other reward is called once, with both acts of all trajectories."""
        both = [
            [[message for message in completion if message.get("name") == act] for completion in completions]
            for act in (self.before, self.after)
        ]
        twice = {name: [*values, *values] for name, values in columns.items() if name not in GIVEN}
        scores = self._scorer(prompts=[*prompts, *prompts], completions=both[0] + both[1], **twice)
        return _awaited(scores) if isawaitable(scores) else _differences(scores)


async def _awaited(scores: Awaitable[Values]) -> Values:
    return _differences(await scores)


def _differences(scores: Values) -> Values:
    half = len(scores) // 2
    pairs = zip(scores[:half], scores[half:], strict=True)
    return [None if before is None or after is None else after - before for before, after in pairs]
