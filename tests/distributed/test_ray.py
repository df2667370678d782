"""Runs on Ray: a process is killed in the middle of a step, and the metrics are those of an undisturbed run."""

import pytest

pytest.importorskip("ray")

from scripts.kill_ray import Kill, run_on_ray
from tests.runs import metrics, save_tiny_janus, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    checkpoint = save_tiny_janus(folder / "janus")
    return write_recipe(folder / "recipe.yaml", checkpoint, run={"steps": 3, "save_every": 1}, eval={"suite": "none"})


@pytest.fixture(scope="module")
def undisturbed(recipe):
    run_on_ray(recipe, recipe.parent / "undisturbed")
    return metrics(recipe.parent / "undisturbed")


@pytest.mark.parametrize("title", ["RolloutActor", "TrainingWorker"])
def test_a_killed_process_changes_nothing(recipe, undisturbed, tmp_path, title):
    report = run_on_ray(recipe, tmp_path / "run", kills=[Kill(title, after_step=1)])
    assert report.killed == 1
    assert metrics(tmp_path / "run") == undisturbed
