"""Rollouts in actors: equal to those in this process, whatever dies; with the weights of the right version."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from motet.config import parse_recipe
from motet.core.errors import ProcessError
from motet.policies import load_policy
from motet.training.remote_rollout import Piece, RemoteRollout, RolloutWorker, Snapshot, to_array, to_tensor
from motet.training.rollout import RolloutRequest, rollout_tracks
from motet.training.setup import sampling_params, setup_rl
from tests.distributed.fake_backend import FakeBackend
from tests.runs import mapping, metrics, run_loop, run_remote


@pytest.fixture(scope="module")
def recipe(tiny_checkpoint):
    return parse_recipe(mapping(tiny_checkpoint))


@pytest.fixture(scope="module")
def session(recipe):
    return setup_rl(recipe)


def settings(recipe, step=0):
    return {"samplings": sampling_params(recipe, step), "seed": recipe.run.seed, "step": step}


def ids(sampled):
    return [
        [act.token_ids.tolist() for act in trajectory.acts]
        for groups in sampled
        for group in groups
        for trajectory in group.trajectories
    ]


def piece(recipe, session, version):
    tasks = [(0, task) for task in session.tracks[0].cursor.next(1)]
    return Piece(version, tasks, 2, sampling_params(recipe, 0), 0, 0)


@pytest.mark.parametrize("size", [1, 3])
def test_actors_sample_what_this_process_samples(recipe, session, size):
    track = session.tracks[0]
    tasks = track.cursor.next(5)
    requests = [RolloutRequest(track.scenario, tasks[:3], 0), RolloutRequest(track.scenario, tasks[3:], 0)]
    backend = FakeBackend(dies=lambda actor, calls: actor.number == 0 and calls == 0)
    rollout = RemoteRollout.of(backend, recipe, size)
    sampled = rollout(session.policy, requests, 2, **settings(recipe))
    local = rollout_tracks(session.policy, requests, 2, **settings(recipe))
    assert [len(groups) for groups in sampled] == [3, 2]
    assert ids(sampled) == ids(local)
    assert rollout.pool.num_deaths == 1
    rollout(session.policy, requests, 2, **settings(recipe))
    assert len(backend.stored) == 1, "weights of one version are stored once"


def test_a_run_whose_actors_die_equals_a_run_in_one_process(tiny_checkpoint, tmp_path):
    recipe = mapping(tiny_checkpoint, run={"steps": 3})
    backend = FakeBackend(dies=lambda actor, calls: (actor.number, calls) in ((0, 1), (2, 0)))
    run_loop(recipe, tmp_path / "local")
    run_remote(recipe, tmp_path / "remote", backend, size=2)
    assert len(backend.actors) == 4
    keys = ("reward", "image/loss", "text/loss", "grad_norm")
    local, remote = metrics(tmp_path / "local"), metrics(tmp_path / "remote")
    assert len(local) == len(remote) == 3
    for one, other in zip(local, remote, strict=True):
        for key in keys:
            assert other[key] == pytest.approx(one[key], rel=1e-4, abs=1e-6), key


def test_a_snapshot_makes_another_policy_the_same(recipe, session, tiny_checkpoint):
    policy = load_policy(str(tiny_checkpoint), recipe.policy)
    with torch.no_grad():
        for parameter in session.policy.trainable().values():
            parameter.add_(0.25)
    session.policy.version = 7
    Snapshot.of(session.policy).load_into(policy)
    assert policy.version == 7
    for name, parameter in session.policy.trainable().items():
        assert torch.equal(policy.trainable()[name], parameter)
    session.policy.version = 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_pass_unchanged(dtype):
    weight = torch.tensor([0.1, -1.5], dtype=dtype)
    assert torch.equal(to_tensor(to_array(weight), dtype), weight)


def test_stale_and_foreign_weights_are_rejected(recipe, session):
    policy = session.policy
    policy.version = 5
    snapshot = Snapshot.of(policy)
    with pytest.raises(ProcessError, match=r"version 5 and was sent version 3"):
        replace(snapshot, version=3).load_into(policy)
    with pytest.raises(ProcessError, match="names or shapes differ"):
        replace(snapshot, arrays={}).load_into(policy)
    policy.version = 0


def test_a_rollout_needs_the_weights_of_its_version(recipe, session):
    worker = RolloutWorker(recipe)
    with pytest.raises(ProcessError, match="no weights of the run, but was asked for a rollout with version 0"):
        worker.roll_out(piece(recipe, session, 0))
    worker.roll_out(piece(recipe, session, 0), Snapshot.of(session.policy))
    with pytest.raises(ProcessError, match="weights of version 0, but was asked for a rollout with version 1"):
        worker.roll_out(piece(recipe, session, 1))


def test_acts_of_other_weights_are_rejected(recipe, session):
    class Wrong(RolloutWorker):
        def roll_out(self, piece, snapshot=None):
            groups = super().roll_out(piece, snapshot)
            for act in groups[-1].trajectories[-1].acts:
                object.__setattr__(act, "policy_version", 4)
            return groups

    rollout = RemoteRollout(FakeBackend(), partial(Wrong, recipe), 1)
    request = RolloutRequest(session.tracks[0].scenario, session.tracks[0].cursor.next(1), 0)
    with pytest.raises(ProcessError, match="version 4, but the step trains on samples of version 0"):
        rollout(session.policy, [request], 2, **settings(recipe))
