"""Bounded staleness: which weights sample which step, whatever dies, and after a resumption."""

import pytest
import torch
from safetensors.torch import save_file

from motet.config import parse_recipe
from motet.core.errors import ConfigError
from motet.training.remote_rollout import RemoteRollout
from motet.training.rollout import RolloutRequest
from motet.training.rollout_pipeline import (
    Drawn,
    RolloutPipeline,
    check_resumed_staleness,
    check_staleness,
)
from motet.training.setup import setup_rl
from motet.weights.locate import ROLLOUT_WEIGHTS
from tests.distributed.fake_backend import FakeBackend
from tests.runs import mapping, metrics, run_remote

STEPS = 6


@pytest.fixture
def session(tiny_checkpoint):
    return setup_rl(parse_recipe(mapping(tiny_checkpoint, run={"steps": STEPS})))


@pytest.fixture(autouse=True)
def closed_rollouts(monkeypatch):
    """Every rollout of a test is closed after it, also one with work under way."""
    made, of = [], RemoteRollout.of

    def remembered(*args, **settings):
        made.append(of(*args, **settings))
        return made[-1]

    monkeypatch.setattr(RemoteRollout, "of", remembered)
    yield
    for rollout in made:
        rollout.close()
        thread = rollout._background._thread
        assert thread is None or not thread.is_alive()


class Prompts:
    """Draws the prompts of steps, and remembers of which."""

    def __init__(self, session) -> None:
        self.session, self.steps = session, []

    def __call__(self, step):
        self.steps.append(step)
        track = self.session.tracks[0]
        request = RolloutRequest(track.scenario, track.cursor.next(1), 0)
        placed = [(0, task) for task in request.tasks]
        return Drawn([request], placed, [track.cursor.epoch], self.session.data_state())


def learn(policy):
    """Stands for the update of a step: other weights, under the next version."""
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.mul_(1.1)
    policy.version += 1


def ids(groups):
    return [act.token_ids.tolist() for group in groups for one in group.trajectories for act in one.acts]


def run(session, max_staleness, steps, pipeline=None, backend=None):
    """The versions and tokens of some steps, and the pipeline after them."""
    if pipeline is None:
        rollout = RemoteRollout.of(backend or FakeBackend(), session.recipe, 1)
        pipeline = RolloutPipeline(rollout, session.recipe, max_staleness, Prompts(session))
    seen = []
    for step in steps:
        taken = pipeline.take(step, session.policy)
        drawn, (groups,) = taken.drawn, taken.groups
        versions = {act.policy_version for group in groups for one in group.trajectories for act in one.acts}
        seen.append((drawn.requests[0].tasks[0].index, sorted(versions), ids(groups)))
        learn(session.policy)
    return seen, pipeline


@pytest.mark.parametrize("max_staleness", [0, 1, 2])
def test_step_t_has_samples_of_the_weights_before_step_t_minus_k(session, max_staleness):
    seen, pipeline = run(session, max_staleness, range(STEPS))
    assert [versions for _, versions, _ in seen] == [[max(0, t - max_staleness)] for t in range(STEPS)]
    assert pipeline.draw.steps == list(range(STEPS)), "prompts are drawn in the order of steps, and none beyond the end"


def test_deaths_change_no_sample(session, tiny_checkpoint):
    again = setup_rl(session.recipe)
    expected, _ = run(session, 1, range(4))
    backend = FakeBackend(dies=lambda actor, calls: calls == 1)
    got, pipeline = run(again, 1, range(4), backend=backend)
    assert got == expected
    assert pipeline.rollout.pool.num_deaths >= 2


@pytest.mark.parametrize(("max_staleness", "stop"), [(1, 3), (2, 1), (2, 3)])
def test_a_resumed_pipeline_goes_on_as_the_undisturbed_one(session, tmp_path, max_staleness, stop):
    expected, _ = run(session, max_staleness, range(STEPS))
    first = setup_rl(session.recipe)
    _, stopped = run(first, max_staleness, range(stop - 1))
    stopped.take(stop - 1, first.policy)
    learn(first.policy)
    data_state, weights = stopped.where()
    save_file(weights, tmp_path / ROLLOUT_WEIGHTS)

    resumed = setup_rl(session.recipe)
    for name, parameter in first.policy.trainable().items():
        resumed.policy.trainable()[name].data.copy_(parameter)
    resumed.policy.version = first.policy.version
    resumed.load_data_state(data_state)
    rollout = RemoteRollout.of(FakeBackend(), session.recipe, 1)
    pipeline = RolloutPipeline(rollout, session.recipe, max_staleness, Prompts(resumed))
    pipeline.resume(tmp_path, stop)
    got, _ = run(resumed, max_staleness, range(stop, STEPS), pipeline)
    assert got == expected[stop:]


CORRECTED = {"algorithm": {"loss": {"name": "grpo", "rollout_is": "token"}}, "run": {"steps": 5}}


def test_a_run_that_is_stopped_and_whose_actors_die_equals_the_undisturbed_one(tiny_checkpoint, tmp_path):
    recipe = mapping(tiny_checkpoint, **CORRECTED)
    dies = FakeBackend(dies=lambda actor, calls: calls == 2)
    run_remote(recipe, tmp_path / "undisturbed", FakeBackend(), 2, max_staleness=2)
    run_remote(recipe, tmp_path / "stopped", dies, 2, max_staleness=2, stop_after=3)
    assert len(metrics(tmp_path / "stopped")) == 3
    run_remote(recipe, tmp_path / "stopped", dies, 2, max_staleness=2)
    assert any(not actor.alive for actor in dies.actors)
    got = metrics(tmp_path / "stopped")
    assert got == metrics(tmp_path / "undisturbed")
    assert [line["policy_version_lag"] for line in got] == [0.0, 1.0, 2.0, 2.0, 2.0]


def test_a_run_needs_the_staleness_that_it_had(tiny_checkpoint, tmp_path):
    recipe = mapping(tiny_checkpoint, **CORRECTED)
    run_remote(recipe, tmp_path / "run", FakeBackend(), 1, max_staleness=1, stop_after=1)
    with pytest.raises(ConfigError, match="with --max-staleness 1, not 0"):
        run_remote(recipe, tmp_path / "run", FakeBackend(), 1)


def test_another_staleness_cannot_resume(session, tmp_path):
    check_resumed_staleness(tmp_path, 0)
    with pytest.raises(ConfigError, match="with --max-staleness 0, not 1"):
        check_resumed_staleness(tmp_path, 1)
    _, pipeline = run(session, 2, range(1))
    save_file(pipeline.where()[1], tmp_path / ROLLOUT_WEIGHTS)
    check_resumed_staleness(tmp_path, 2)
    with pytest.raises(ConfigError, match="with --max-staleness 2, not 1"):
        check_resumed_staleness(tmp_path, 1)


def test_staleness_needs_losses_that_correct_for_it(session):
    with pytest.raises(ConfigError, match=r"loss of text acts does not correct.*algorithm.loss.rollout_is to token"):
        check_staleness(session.recipe, ["text"])
    corrected = parse_recipe(
        mapping(session.recipe.policy.path, algorithm={"loss": {"name": "grpo", "rollout_is": "token"}})
    )
    check_staleness(corrected, ["text", "image"])
    dynamic = corrected.model_copy(update={"algorithm": corrected.algorithm.model_copy(update={"dynamic_sampling": 1})})
    with pytest.raises(ConfigError, match="dynamic_sampling rolls out further prompts"):
        check_staleness(dynamic, ["text"])
