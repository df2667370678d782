"""Two processes of torchrun, killed and resumed: each goes on with its own random state, to the bit."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.distributed.torchrun import torchrun
from tests.runs import metrics, write_recipe

NOISY = """
import os
from pathlib import Path

import torch

FOLDER = Path(__file__).parent

def noisy(completions, **columns):
    "Noise of the generator of this process, whose pid is left for the test to kill it."
    written = FOLDER / f"new_{os.environ['RANK']}"
    written.write_text(str(os.getpid()))
    written.replace(FOLDER / f"pid_{os.environ['RANK']}")  # whole at every moment
    return [float(torch.rand(())) for _ in completions]
"""


def kill_workers(folder: Path) -> None:
    """Those that torchrun started, which a kill of torchrun does not reach."""
    for path in folder.glob("pid_*"):
        os.kill(int(path.read_text()), signal.SIGKILL)


@pytest.mark.slow
def test_killed_processes_go_on_each_with_its_own_random_state(tiny_checkpoint, tmp_path):
    (tmp_path / "noisy.py").write_text(NOISY)
    rewards = [{"name": f"{tmp_path}/noisy.py:noisy", "acts": [act]} for act in ("image", "answer")]
    run = {"steps": 4, "prompts_per_step": 2, "threads": 1, "save_every": 1, "keep_checkpoints": 1}
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, rewards=rewards, run=run, eval={"suite": "none"})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ("train", recipe, "--parallel", "replicas", "--resume", "auto", "--output")
    undisturbed = torchrun(2, *command, whole)
    assert undisturbed.code == 0, undisturbed.out

    def in_third_step() -> bool:
        lines = killed / "metrics.jsonl"
        started = lines.is_file() and lines.read_text().count("\n") >= 2
        if started:
            kill_workers(tmp_path)
        return started

    ended = torchrun(2, *command, killed, when=in_third_step, number=signal.SIGKILL)
    assert ended.code == -signal.SIGKILL and len(metrics(killed)) < 4, ended.out
    resumed = torchrun(2, *command, killed)
    assert resumed.code == 0, resumed.out

    assert metrics(killed) == metrics(whole)
    one, two = (folder / "checkpoints" / "step_000004" for folder in (whole, killed))
    for name in ("learner.safetensors", "random_state.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    first, second = json.loads((two / "random_state.json").read_text())
    assert first["torch"] != second["torch"]
