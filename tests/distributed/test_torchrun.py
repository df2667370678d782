"""`torchrun ... -m motet train`: what several processes make of a run is what one makes of it."""

import re
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from motet.config import PolicyConfig
from motet.policies import load_policy
from tests.distributed.mixed_run import TRAIN
from tests.distributed.test_replicas import ROUNDING, assert_same_metrics, relative_difference
from tests.distributed.torchrun import mixed_checkpoint, saved_weights, torchrun, write_mixed_recipe
from tests.runs import metrics, write_recipe

pytestmark = pytest.mark.slow

BREAKS = """
import os, time

def hangs(completions, trainer_state, **columns):
    if os.environ["RANK"] == "1" and trainer_state.global_step == 1:
        time.sleep(600)
    return [0.1 * n for n in range(len(completions))]

def raises(completions, trainer_state, **columns):
    if os.environ["RANK"] == "1" and trainer_state.global_step == 2:
        raise ValueError("the server is down")
    return [0.1 * n for n in range(len(completions))]
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return mixed_checkpoint(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def one(checkpoint, tmp_path_factory) -> Path:
    """Five steps in one process."""
    folder = tmp_path_factory.mktemp("one")
    motet_train(write_mixed_recipe(folder / "recipe.yaml", checkpoint), folder / "run")
    return folder / "run"


def motet_train(recipe: Path, output: Path) -> None:
    from motet.api.runs import run_recipe
    from motet.config import load_recipe

    run_recipe(load_recipe(recipe, []), output, "resume")


def assert_same_run(run: Path, one: Path, checkpoint: Path) -> None:
    """Updates, metrics, and sampled tokens of every step."""
    policy = load_policy(checkpoint, PolicyConfig(path=str(checkpoint), device="cpu", train=tuple(TRAIN)))
    weights = saved_weights(one, 5)
    start = {name: weight.detach() for name, weight in policy.trainable().items() if name in weights}
    assert relative_difference(weights, saved_weights(run, 5), start) < ROUNDING
    assert_same_metrics(metrics(one), metrics(run))
    for path in sorted((one / "samples").iterdir()):
        other = run / "samples" / path.name
        if path.suffix == ".jsonl":  # texts, token by token
            assert other.read_text() == path.read_text(), path.name
        else:  # images of tokens, and images of denoising up to rounding
            with Image.open(path) as image, Image.open(other) as theirs:
                assert max(high for _, high in ImageChops.difference(image, theirs).getextrema()) <= 2, path.name


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_make_the_update_of_one(one, checkpoint, tmp_path, processes):
    """Of three prompts one of four processes has none. The KL and clipping are at work."""
    recipe = write_mixed_recipe(tmp_path / "recipe.yaml", checkpoint)
    ended = torchrun(processes, "train", recipe, "--output", tmp_path / "run", "--parallel", "replicas")
    assert ended.code == 0, ended.out
    assert_same_run(tmp_path / "run", one, checkpoint)
    lines = metrics(one)
    assert lines[-1]["text/kl"] > 0 and any(line["grad_norm"] > 0.5 for line in lines)
    assert len(re.findall("^train 5/5", ended.out, re.MULTILINE)) == 1, ended.out


def test_a_run_goes_on_with_fewer_processes_after_ctrl_c(one, checkpoint, tmp_path):
    recipe = write_mixed_recipe(tmp_path / "recipe.yaml", checkpoint)
    command = ("train", recipe, "--output", tmp_path / "run")
    lines = tmp_path / "run" / "metrics.jsonl"
    first = torchrun(4, *command, when=lambda: lines.is_file() and lines.read_text().count("\n") >= 1)
    assert "Saved after step" in first.out and len(metrics(tmp_path / "run")) < 5, first.out
    second = torchrun(2, *command, "--resume")
    assert second.code == 0, second.out
    assert_same_run(tmp_path / "run", one, checkpoint)


def breaking(tmp_path, tiny_checkpoint, name):
    (tmp_path / "breaking.py").write_text(BREAKS)
    reward = {"name": f"{tmp_path}/breaking.py:{name}"}
    return write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, rewards=[reward], eval={"suite": "none"})


def test_a_process_that_hangs_is_named_and_ends_the_run(tiny_checkpoint, tmp_path):
    recipe = breaking(tmp_path, tiny_checkpoint, "hangs")
    ended = torchrun(2, "train", recipe, "--output", tmp_path / "run", "--timeout", "4")
    assert ended.code != 0
    assert "motet: Process 1 in phase 'rewards' of step 1 did not finish within 4 s" in ended.out
    assert (tmp_path / "run" / "checkpoints" / "step_000001").is_dir(), "the last whole step is saved"


def test_an_error_of_one_process_ends_all_with_its_message(tiny_checkpoint, tmp_path):
    recipe = breaking(tmp_path, tiny_checkpoint, "raises")
    ended = torchrun(2, "train", recipe, "--output", tmp_path / "run")
    assert ended.code != 0
    assert "motet [rank 1]: Reward 'raises' raised ValueError: the server is down" in ended.out
    assert "motet: Process 1 failed in phase 'rewards' of step 2: RewardError: Reward 'raises' raised" in ended.out
    assert (tmp_path / "run" / "checkpoints" / "step_000002").is_dir()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
