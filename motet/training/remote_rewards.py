"""Rewards in actors: each reward of a recipe is called in the same actor every time, whole steps at once.

What a reward returns is checked here, as if it had been called here. Rewards that need the policy stay beside it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from inspect import isawaitable
from typing import Any

from motet.config import Recipe
from motet.core.errors import MotetError, RewardError
from motet.distributed.actor_pool import TIMEOUT, ActorPool, Backend
from motet.policies.loading import choose_device
from motet.rewards import BoundReward, bind_policy, resolve_all
from motet.rewards.arguments import TRAINER, StepLog
from motet.rewards.calling import as_list, as_reward_error
from motet.rewards.no_policy import NoPolicy
from motet.scenarios import resolve_scenario
from motet.training.setup import Track


@dataclass(frozen=True)
class RewardCall:
    """One call of a track's reward; `arguments` as `BoundReward` takes them, without what logs."""

    track: int
    reward: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class RewardAnswer:
    """What the reward returned and what it logged, as `StepLog` keeps it."""

    values: Any
    metrics: Mapping[str, list[float]]
    extra: Mapping[str, list[Any]]


class RewardWorker:
    """What an actor holds: the recipe's rewards; models are loaded for those that it is asked for."""

    def __init__(self, recipe: Recipe) -> None:
        self.tracks = list(recipe.resolved_tracks().values())
        self.device = choose_device(recipe.policy.device)
        self._ready: dict[tuple[int, str], BoundReward] = {}

    def score(self, call: RewardCall, _: Any = None) -> RewardAnswer:
        """Call a reward. Raises RewardError for what it raises."""
        reward, log = self._reward(call), StepLog()
        arguments = dict(call.arguments)
        if any(reward.takes(name) for name in TRAINER):
            arguments = {**log.arguments(reward.name), **arguments}
        count = max((len(value) for value in arguments.values() if isinstance(value, list)), default=0)
        try:
            values = reward(**arguments)
            values = as_list(asyncio.run(_awaited(values)) if isawaitable(values) else values)
        except MotetError:
            raise
        except (Exception, SystemExit) as error:
            raise as_reward_error(reward, error, count) from error
        return RewardAnswer(values, log.values, log.extra.get(reward.name, {}))

    def _reward(self, call: RewardCall) -> BoundReward:
        key = call.track, call.reward
        if key not in self._ready:
            config = self.tracks[call.track]
            scenario = resolve_scenario(config.scenario.name).with_options(config.scenario.options)
            rewards = {one.name: one for one in resolve_all(config.rewards, scenario.acts, None)}
            error = RewardError(
                f"Reward {call.reward!r} uses the policy in prepare(), but runs in a reward actor, which has none.",
                fix="set `needs_policy = True` in its class, or leave out --reward-actors.",
            )
            policy = NoPolicy(self.device, error)
            (self._ready[key],) = bind_policy([rewards[call.reward]], policy)
        return self._ready[key]


async def _awaited(values: Any) -> Any:
    return await values


class RemoteReward:
    """The function of a reward that an actor calls. `lock`: an actor has one call at a time."""

    def __init__(self, pool: ActorPool, lock: AbstractContextManager[Any], track: int, reward: BoundReward) -> None:
        self.pool, self.lock, self.track, self.reward = pool, lock, track, reward

    async def __call__(self, **arguments: Any) -> Any:
        """The values of a step. Other rewards run meanwhile."""
        log_metric, log_extra = (arguments.pop(name, None) for name in ("log_metric", "log_extra"))
        call = RewardCall(self.track, self.reward.name, arguments)
        answer: RewardAnswer = await asyncio.to_thread(self._call, call)
        for name, values in answer.metrics.items():
            for value in values:
                log_metric(name.removeprefix(f"{self.reward.name}/"), value)
        for column, values in answer.extra.items():
            log_extra(column, values)
        return answer.values

    def _call(self, call: RewardCall) -> RewardAnswer:
        with self.lock:
            (answer,) = self.pool.map("score", [call])
        return answer


class RemoteRewards:
    """`size` actors among which the rewards of all tracks are divided, in their order."""

    def __init__(
        self, backend: Backend, recipe: Recipe, size: int, *, num_gpus: float = 0.0, timeout: float = TIMEOUT
    ) -> None:
        make, settings = partial(RewardWorker, recipe), {"num_gpus": num_gpus, "timeout": timeout}
        self._actors = [
            (ActorPool(backend, make, 1, name="reward", first=n, **settings), threading.Lock()) for n in range(size)
        ]
        self.local: list[str] = []
        """Rewards that need the policy, and so are called where it is."""

    def place(self, tracks: Sequence[Track]) -> list[Track]:
        """The tracks, with rewards that are called in actors."""
        placed, number = [], 0
        for track in tracks:
            rewards = []
            for reward in track.rewards:
                if reward.needs_policy:
                    self.local.append(reward.name)
                    rewards.append(reward)
                    continue
                pool, lock = self._actors[number % len(self._actors)]
                number += 1
                remote = RemoteReward(pool, lock, track.number, reward)
                failure = replace(reward.failure, process=False)  # the actor has the process
                rewards.append(replace(reward, function=remote, options={}, trusted=True, failure=failure))
            placed.append(replace(track, rewards=rewards))
        return placed

    def close(self) -> None:
        """End the actors."""
        for pool, _ in self._actors:
            pool.close()
