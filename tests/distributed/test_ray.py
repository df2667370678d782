"""Runs on Ray: a process is killed in the middle of a step, and the metrics are those of an undisturbed run."""

import pytest

pytest.importorskip("ray")

from scripts.kill_ray import Kill, read_metrics, run_on_ray
from tests.runs import metrics, save_tiny_janus, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    checkpoint = save_tiny_janus(folder / "janus")
    return write_recipe(folder / "recipe.yaml", checkpoint, run={"steps": 4, "save_every": 1}, eval={"suite": "none"})


@pytest.fixture(scope="module")
def undisturbed(recipe):
    report = run_on_ray(recipe, recipe.parent / "undisturbed")
    assert report.status == 0, report.output
    return metrics(recipe.parent / "undisturbed")


@pytest.mark.parametrize("title", ["RolloutActor", "TrainingWorker"])
def test_a_killed_process_changes_nothing(recipe, undisturbed, tmp_path, title):
    report = run_on_ray(recipe, tmp_path / "run", kills=[Kill(title, after_step=1)])
    assert report.killed == 1, report.output
    assert report.left == []
    assert metrics(tmp_path / "run") == undisturbed


def test_ctrl_c_saves_and_the_run_goes_on(recipe, undisturbed, tmp_path):
    stopped = run_on_ray(recipe, tmp_path / "run", interrupt_after=1)
    assert stopped.status == 130
    assert "Saved after step" in stopped.output
    assert "--resume" in stopped.output
    assert stopped.left == []
    assert 0 < len(read_metrics(tmp_path / "run")) < len(undisturbed)
    resumed = run_on_ray(recipe, tmp_path / "run", arguments=["--resume"])
    assert resumed.status == 0
    assert metrics(tmp_path / "run") == undisturbed
