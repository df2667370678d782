"""The examples of the Python API, run as they stand on the shipped checkpoint."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "python_api"


@pytest.fixture
def example(tmp_path, monkeypatch, capsys):
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(name: str) -> str:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_train(example, tmp_path):
    """In at most 30 lines: own rows, own reward, own callback; prints before and after, and saves."""
    text = (EXAMPLES / "train.py").read_text()
    out = example("train.py")
    assert len(text.splitlines()) <= 30 and "yaml" not in text
    before, after = map(float, re.search(r"before: (\S+) after: (\S+)", out).groups())
    assert after > before + 0.05 and out.count("\nstep ") == 5
    assert (tmp_path / "runs" / "mine" / "checkpoints" / "step_000005" / "model.safetensors").is_file()


def test_loop(example):
    out = example("loop.py")
    rewards = [float(value) for value in re.findall(r"reward (\S+),", out)]
    assert len((EXAMPLES / "loop.py").read_text().splitlines()) <= 20
    assert len(rewards) == 5 and rewards[-1] > rewards[0] + 0.05
