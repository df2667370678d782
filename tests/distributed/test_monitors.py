"""Monitors of a run in several processes: the main one compares, all of them evaluate and stop together."""

import pytest

from motet.config import parse_recipe
from motet.distributed.replicas import Replicas
from motet.experiments.single_run import run_training
from motet.report.run_dir import FollowerFolder, RunFolder
from motet.training.signals import Stopped
from motet.weights.locate import checkpoints
from tests.distributed.threads import ThreadProcesses, in_threads
from tests.distributed.torchrun import torchrun
from tests.runs import mapping, metrics, write_recipe


def test_all_processes_stop_after_the_step_that_a_monitor_of_the_main_one_objects_to(tiny_checkpoint, tmp_path):
    probe = {"name": "image_diversity", "prompts": ["draw a cross"], "n": 2, "every": 1, "action": "stop"}
    monitors = [{**probe, "bounds": {"pixel_distance": {"min": 2.0}}, "patience": 2}, "rollout_images"]
    run = {"steps": 4, "prompts_per_step": 2, "threads": 1, "callbacks": monitors}
    recipe = parse_recipe(mapping(tiny_checkpoint, run=run))

    def work(processes: ThreadProcesses) -> str:
        folder = (RunFolder if processes.is_main else FollowerFolder)(tmp_path / "run", resume=False)
        processes.all_gather(None)  # before any of them writes
        with pytest.raises(Stopped) as stopped:
            run_training(recipe, folder, "motet train --resume", parallel=Replicas(processes))
        return str(stopped.value)

    first, second = in_threads(2, work)
    assert first == second and "below 2 in 2 checks in a row" in first  # the first check was at the start
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step_000001"]
    (line,) = metrics(tmp_path / "run")
    assert {"monitor/prompts/pixel_distance", "monitor/images/pixel_distance"} <= line.keys()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["replicas", "fsdp"])
def test_torchrun_ends_after_the_step_that_a_monitor_objects_to(tiny_checkpoint, tmp_path, parallel):
    if parallel == "fsdp":
        pytest.importorskip("torch", minversion="2.9")
    diversity = {
        "name": "image_diversity",
        "num_prompts": 2,
        "n": 2,
        "every": 1,
        "bounds": {"pixel_distance": {"min": 2}},
    }
    monitors = [{**diversity, "action": "stop", "patience": 3}, "rollout_images"]
    run = {"steps": 6, "prompts_per_step": 2, "threads": 1, "callbacks": monitors}
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, run=run, eval={"suite": "none"})
    command = ("train", recipe, "--output", tmp_path / "run", "--parallel", parallel)
    ended = torchrun(2, *command)
    assert ended.code != 0 and "2 of 2 prompts are beyond the limit of pixel_distance" in ended.out, ended.out
    assert "The run is saved after step 2" in ended.out, ended.out
    lines = metrics(tmp_path / "run")
    assert [line["monitor/prompts/pixel_distance_beyond"] for line in lines] == [1.0, 1.0]
    assert all("monitor/images/pixel_distance" in line for line in lines)
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step_000002"]
