"""A run of text, image-token and denoising acts, KL on and clipping at work, with FSDP2 in 1, 2 and 4 processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from motet.config import parse_recipe
from motet.distributed.fully_sharded import FullySharded
from motet.distributed.parallel import Parallel
from motet.distributed.processes import Processes
from motet.policies import load_policy
from motet.policies.shards import full_data
from motet.report.run_dir import FollowerFolder, RunFolder
from motet.training.run_loop import Run
from motet.training.setup import setup_rl
from motet.training.signals import Interrupt
from motet.training.trainer import train
from motet.weights.locate import LEARNER_SHARDS
from tests.distributed.mixed_run import TRAIN, mixed_policy
from tests.distributed.spawned import run_in_processes
from tests.distributed.test_replicas import ROUNDING, relative_difference
from tests.runs import REWARDS, RecordingCallback, mapping, metrics, save_tiny_janus

pytestmark = pytest.mark.slow
STEPS = 5


def recipe_of(checkpoint: Path) -> dict[str, Any]:
    return mapping(
        checkpoint,
        policy={"train": TRAIN, "dtype": "float32", "rollout_dtype": "float32"},
        scenario="think_tokens_then_flow",
        rewards=[{"name": f"{REWARDS}reddish", "acts": ["tokens", "image"]}, {"name": f"{REWARDS}spacious"}],
        algorithm={"num_generations": 2, "per_kind": {k: {"beta": 0.1} for k in ("text", "image", "denoising")}},
        sampling={"text": {"max_tokens": 6}, "denoising": {"num_steps": 4}},
        optimizer={"learning_rate": 0.001, "max_grad_norm": 0.3, "max_tokens_per_microbatch": 300},
        run={"steps": STEPS, "prompts_per_step": 4, "save_every": 100, "threads": 1},
    )


def run(parallel: Parallel, content: dict[str, Any], folder: Path, stop_after: int | None = None) -> dict[str, Any]:
    """The run, or the rest of it, in this process; the trained weights at its end."""
    session = setup_rl(parse_recipe(content), parallel)
    main = parallel.processes.is_main
    own = (RunFolder if main else FollowerFolder)(folder, resume=(folder / "recipe.yaml").is_file())
    parallel.processes.all_gather(None)
    interrupt = Interrupt()
    with own.held():
        own.create("")
        train(session, Run(session, own, RecordingCallback(interrupt, stop_after), interrupt))
    return {name: full_data(parameter).clone() for name, parameter in session.policy.trainable().items()}


def run_sharded(processes: Processes, content: dict[str, Any], folder: Path, stop_after: int | None) -> dict[str, Any]:
    return run(FullySharded(processes), content, folder, stop_after)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A run of one process: its folder, its recipe, the weights before and after."""
    folder = tmp_path_factory.mktemp("run")
    checkpoint = folder / "model"
    mixed_policy(save_tiny_janus(folder / "janus")).save(checkpoint)
    content = recipe_of(checkpoint)
    start = {name: p.detach().clone() for name, p in setup_rl(parse_recipe(content)).policy.trainable().items()}
    return folder / "one", content, start, run(Parallel(), content, folder / "one")


@pytest.mark.parametrize("size", [2, 4])
def test_the_update_is_that_of_one_process(whole_run, tmp_path, size):
    one, content, start, weights = whole_run
    lines = metrics(one)
    assert all(line["grad_norm"] > 0.3 and line["image/kl"] >= 0 for line in lines) and lines[-1]["denoising/kl"] > 0
    ends = run_in_processes(run_sharded, size, tmp_path / "spawned", content, tmp_path / "run", None)
    assert all(relative_difference(weights, end, start) < ROUNDING for end in ends)
    for line, other in zip(lines, metrics(tmp_path / "run"), strict=True):
        assert other == pytest.approx(line, rel=1e-3, abs=1e-5)


def test_a_run_goes_on_in_any_number_of_processes(whole_run, tmp_path):
    """Stopped in four, resumed in two, and finished in one without sharding."""
    one, content, start, weights = whole_run
    folder = tmp_path / "run"
    run_in_processes(run_sharded, 4, tmp_path / "four", content, folder, 2)
    (step,) = (folder / "checkpoints").iterdir()
    assert (step / LEARNER_SHARDS).is_dir() and load_policy(step).kinds == {"text", "image", "denoising"}
    run_in_processes(run_sharded, 2, tmp_path / "two", content, folder, 4)
    end = run(Parallel(), content, folder)
    assert relative_difference(weights, end, start) < ROUNDING
    assert [line["step"] for line in metrics(folder)] == [line["step"] for line in metrics(one)]
