"""Rewards in actors: the same scores, metrics and errors as in this process."""

from dataclasses import dataclass

import pytest

from motet.config import parse_recipe
from motet.core.errors import RewardError
from motet.core.sampling import Sampling
from motet.core.trajectory import Scores
from motet.rewards import ModelReward, StepLog, score_groups
from motet.training.remote_rewards import RemoteRewards, RewardCall, RewardWorker
from motet.training.rollout import rollout
from motet.training.setup import build_rl_tracks, sampling_params, setup_rl
from tests.distributed.fake_backend import FakeBackend
from tests.runs import REWARDS, mapping

HERE = f"{__file__}:"


def logging_reward(completions, log_extra, log_metric, **columns):
    """Logs numbers and a column."""
    log_metric("answers", len(completions))
    log_extra("place", list(range(len(completions))))
    return [0.25] * len(completions)


async def waiting_reward(completions, **columns):
    """Async."""
    return (n / 10 for n in range(len(completions)))


@dataclass(eq=False)
class UsesPolicy(ModelReward):
    """Uses more of the policy than its device, and does not say so."""

    def prepare(self, policy):
        policy.act([], Sampling())


@dataclass(eq=False)
class SaysSo(ModelReward):
    needs_policy = True


def with_policy(completions, policy, **columns):
    return [0.0] * len(completions)


NAMES = ("logging_reward", "waiting_reward")


def recipe(checkpoint, *names, more=()):
    return parse_recipe(mapping(checkpoint, rewards=[*({"name": f"{HERE}{name}"} for name in names), *more]))


@pytest.fixture(scope="module")
def groups(tiny_checkpoint):
    session = setup_rl(parse_recipe(mapping(tiny_checkpoint)))
    track = session.tracks[0]
    settings = {"samplings": sampling_params(session.recipe), "seed": 0, "step": 0}
    return rollout(session.policy, track.scenario, track.cursor.next(2), 2, **settings)


def values(scores: list[Scores]):
    return [(dict(one.values), dict(one.dropped), one.logged) for one in scores]


@pytest.mark.parametrize("size", [1, 2])
def test_scores_and_logs_are_those_of_this_process(tiny_checkpoint, groups, size):
    config = recipe(tiny_checkpoint, *NAMES, more=[{"name": f"{REWARDS}reddish", "acts": ["image"]}])
    tracks = build_rl_tracks(config)
    backend = FakeBackend(dies=lambda actor, calls: actor.number == 0 and calls == 0)
    remote = RemoteRewards(backend, config, size)
    (placed,) = remote.place(tracks)
    logs = StepLog(), StepLog()
    local = score_groups(groups, tracks[0].rewards, logs[0])
    assert values(score_groups(groups, placed.rewards, logs[1])) == values(local)
    assert logs[0].values == logs[1].values == {"logging_reward/answers": [4.0]}
    assert sorted(one.name for one in backend.actors if one.alive) == [f"reward actor {n}" for n in range(size)]
    assert remote.local == []


def test_every_reward_has_its_own_actor(tiny_checkpoint, groups):
    config = recipe(tiny_checkpoint, *NAMES)
    backend = FakeBackend()
    (placed,) = RemoteRewards(backend, config, 2).place(build_rl_tracks(config))
    for _ in range(2):
        score_groups(groups, placed.rewards)
    asked = {(answer.arguments[0].reward, answer.actor.name) for answer in backend.calls}
    assert asked == {("logging_reward", "reward actor 0"), ("waiting_reward", "reward actor 1")}


def test_rewards_that_need_the_policy_stay_beside_it(tiny_checkpoint):
    config = recipe(tiny_checkpoint, "with_policy", "SaysSo", "waiting_reward")
    tracks = build_rl_tracks(config)
    remote = RemoteRewards(FakeBackend(), config, 1)
    (placed,) = remote.place(tracks)
    assert remote.local == ["with_policy", "SaysSo"]
    assert placed.rewards[:2] == tracks[0].rewards[:2]


def test_a_reward_that_does_not_say_that_it_needs_the_policy_is_named(tiny_checkpoint):
    worker = RewardWorker(recipe(tiny_checkpoint, "UsesPolicy"))
    with pytest.raises(RewardError, match=r"'UsesPolicy' uses the policy in prepare.*needs_policy = True"):
        worker.score(RewardCall(0, "UsesPolicy", {}))


def test_an_error_of_a_reward_names_it(tiny_checkpoint, groups):
    config = parse_recipe(mapping(tiny_checkpoint, rewards=[{"name": f"{REWARDS}broken"}]))
    (placed,) = RemoteRewards(FakeBackend(), config, 1).place(build_rl_tracks(config))
    with pytest.raises(RewardError, match="Reward 'broken' raised TypeError") as raised:
        score_groups(groups, placed.rewards)
    (local,) = build_rl_tracks(config)
    with pytest.raises(RewardError) as here:
        score_groups(groups, local.rewards)
    assert str(raised.value) == str(here.value)
