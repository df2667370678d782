"""The options of --ray: how GPUs are divided, and the command that resumes."""

import pytest

from motet.cli.ray_options import ray_options
from motet.core.errors import ConfigError
from motet.distributed.ray_options import RayOptions


@pytest.mark.parametrize(
    ("settings", "available", "worker", "actor"),
    [
        ({}, 0, 0.0, 0.0),
        ({}, 1, 0.5, 0.5),
        ({}, 2, 1.0, 1.0),
        ({"rollout_actors": 2}, 2, 0.5, 0.5),  # parts of which whole ones fit on a GPU
        ({"train_workers": 2, "rollout_actors": 1, "reward_actors": 1}, 8, 1.0, 1.0),
        ({"gpus_per_actor": 0.25}, 1, 0.75, 0.25),
        ({"gpus_per_actor": 0.25}, 2, 1.0, 0.25),
        ({"gpus_per_actor": 0.0}, 1, 1.0, 0.0),
    ],
)
def test_gpus_are_divided(settings, available, worker, actor):
    options = RayOptions("auto", **settings).with_gpus(float(available))
    assert (options.gpus_per_worker, options.gpus_per_actor) == (worker, actor)


@pytest.mark.parametrize(("per_actor", "available"), [(1.0, 1), (0.5, 0)])
def test_more_gpus_than_there_are_is_an_error(per_actor, available):
    with pytest.raises(ConfigError, match=r"1 training workers, and 2 actors .* need more than the"):
        RayOptions("auto", rollout_actors=2, gpus_per_actor=per_actor).with_gpus(float(available))


def test_the_resume_command_has_the_options_that_were_given():
    options = ray_options("auto", {"rollout_actors": 2, "max_staleness": None, "gpus_per_actor": 0.5}, 60.0)
    assert options == RayOptions("auto", rollout_actors=2, gpus_per_actor=0.5, timeout=60.0)
    assert options.arguments == ["--ray", "auto", "--rollout-actors", "2", "--gpus-per-actor", "0.5", "--timeout", "60"]


def test_options_without_ray_are_an_error():
    assert ray_options(None, {"rollout_actors": None}, 60.0) is None
    with pytest.raises(ConfigError, match="--rollout-actors has no effect without --ray"):
        ray_options(None, {"rollout_actors": 2}, None)
