"""The script that kills runs: a few kills of each case, and that it would see a difference."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.kill_runs import Tally, check_after_kill, differences, digests

ROOT = Path(__file__).parent.parent.parent


def write_run(folder: Path, reward: float = 0.5, seconds: float = 1.0, weights: bytes = b"weights") -> Path:
    checkpoint = folder / "checkpoints" / "step_000001"
    checkpoint.mkdir(parents=True)
    (folder / "recipe.yaml").touch()
    (checkpoint / "model.safetensors").write_bytes(weights)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"step": 1, "seconds": seconds}))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 0, "reward": reward, "time/rollout": seconds}) + "\n")
    return folder


def test_it_sees_what_differs_and_not_the_clock(tmp_path):
    expected = digests(write_run(tmp_path / "one"))
    assert differences(expected, digests(write_run(tmp_path / "later", seconds=2.0))) == []
    assert differences(expected, digests(write_run(tmp_path / "two", weights=b"others"))) == [
        "checkpoints/step_000001/model.safetensors"
    ]
    assert differences(expected, digests(write_run(tmp_path / "three", reward=0.6))) == ["metrics.jsonl"]
    left = write_run(tmp_path / "four") / "checkpoints" / ".partial_step_000002"
    left.mkdir()
    (left / "config.json").touch()
    assert differences(expected, digests(tmp_path / "four")) == ["checkpoints/.partial_step_000002/config.json"]


def test_it_counts_lost_steps(tmp_path):
    folder, tally = write_run(tmp_path / "run"), Tally()
    for lost in (0, 1):
        check_after_kill(folder, tally)
        assert tally.most_lost == lost and tally.problems == []
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"step": 1}\n')
    check_after_kill(folder, tally)
    assert tally.problems == [f"{folder}: 2 steps are lost"]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["run", "plan", "sweep"])
def test_killed_runs_end_as_undisturbed_ones(case, tmp_path):
    """The whole of it, 50 kills of each case: docs/how-to/resume.md."""
    if case == "sweep":
        pytest.importorskip("matplotlib")
    command = [sys.executable, str(ROOT / "scripts" / "kill_runs.py"), case, "--kills", "4", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{case} " in done.stdout and " equal " in done.stdout
