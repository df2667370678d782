"""Monitors of a run in several processes: the main one compares, all of them evaluate and stop together."""

import pytest

from motet.config import parse_recipe
from motet.distributed.replicas import Replicas
from motet.experiments.single_run import run_training
from motet.report.run_dir import FollowerFolder, RunFolder
from motet.training.signals import Stopped
from motet.weights.locate import checkpoints
from tests.distributed.threads import ThreadProcesses, in_threads
from tests.runs import mapping, metrics


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
