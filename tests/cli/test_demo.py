"""`motet demo`: what it runs, and that it runs from a wheel alone."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from motet.cli import demo
from motet.config import load_recipe
from motet.core.errors import ConfigError
from tests.runs import motet_command

ROOT = Path(__file__).parent.parent.parent


def test_it_trains_the_recipe_of_the_demo_on_its_checkpoint(monkeypatch, capsys):
    runs = []
    monkeypatch.setattr(demo, "train", lambda *arguments: runs.append(arguments))
    answer = motet_command(capsys, "demo", "--output", "runs/x", "--minutes", "0.5", "--seed", "3", "--resume")
    assert answer.code == 0
    ((path, output, overrides, resume),) = runs
    recipe = load_recipe(path, overrides)
    assert output == Path("runs/x") and resume is True
    assert (recipe.run.minutes, recipe.eval.minutes, recipe.run.seed) == (0.5, 0.1, 3)
    assert (Path(recipe.policy.path) / "model.safetensors").is_file() and Path(recipe.policy.path).is_absolute()


def test_an_installation_without_the_files_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.motet, "__file__", str(tmp_path / "motet" / "__init__.py"))
    with pytest.raises(ConfigError, match=r"demo are not in .*install motet again"):
        demo.demo_files()


@pytest.mark.slow
def test_the_demo_runs_from_a_wheel_in_an_empty_folder(tmp_path):
    """The wheel is installed without dependencies; a .pth file adds those of this environment."""

    def run(*command, cwd=ROOT):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    uv = [sys.executable, "-m", "uv"]
    run(*uv, "build", "--wheel", "--out-dir", str(tmp_path / "dist"))
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.stat().st_size < 10e6
    venv, empty = tmp_path / "venv", tmp_path / "empty"
    run(*uv, "venv", "--python", sys.executable, str(venv))
    run(*uv, "pip", "install", "--python", str(venv / "bin" / "python"), "--no-deps", str(wheel))
    (site,) = venv.glob("lib/python3*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    empty.mkdir()
    where = run(str(venv / "bin" / "python"), "-c", "import motet; print(motet.__file__)", cwd=empty)
    assert Path(where.strip()).is_relative_to(venv)
    shown = run(str(venv / "bin" / "motet"), "demo", "--minutes", "0.05", cwd=empty)
    assert "Validation items" in shown and "Try next: motet sample" in shown
    summary = json.loads((empty / "runs" / "demo" / "summary.json").read_text())
    assert summary["steps"] >= 1 and summary["before"] and summary["after"]
