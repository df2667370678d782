"""Monitors in runs: stop, resume, several evaluations, the best checkpoint."""

import json
import re

import pytest

from motet.config import parse_recipe
from motet.core.errors import ConfigError
from motet.experiments.single_run import run_training
from motet.report.run_dir import RunFolder
from motet.training.signals import Stopped
from motet.weights.locate import best_checkpoint, checkpoints
from tests.runs import mapping, metrics

CROSS = ["draw a cross"]


def scripted(policy, settings, values=()):
    """A suite that measures what the test says after each step; the 0th is that of the start."""
    return {"skill": values[policy.version]}


def train(checkpoint, folder, callbacks, resume=False, **changes):
    run = {"steps": 4, "prompts_per_step": 2, "callbacks": callbacks, **changes.pop("run", {})}
    recipe = parse_recipe(mapping(checkpoint, run=run, **changes))
    return run_training(recipe, RunFolder(folder, resume=resume), "motet train --resume")


def test_a_retention_probe_stops_the_run_which_can_be_resumed(tiny_checkpoint, tmp_path):
    probe = {"name": "retention", "suite": {"name": f"{__file__}:scripted", "values": [0.8, 0.79, 0.5, 0.79, 0.79]}}
    probe |= {"metric": "skill", "every": 1, "min_ratio": 0.9, "action": "stop"}
    with pytest.raises(Stopped, match=r"skill is 0.5 after step 2, below 0.9 times its value at the start, 0.8"):
        train(tiny_checkpoint, tmp_path / "run", [probe])
    lines = metrics(tmp_path / "run")
    name = next(key for key in lines[0] if key.startswith("monitor/") and key.endswith("/skill"))
    assert [line[name] for line in lines] == [0.79, 0.5]
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step_000002"]
    probe["action"] = "warn"
    result = train(tiny_checkpoint, tmp_path / "run", [probe], resume=True)
    assert len(result.metrics) == 4 and [line[name] for line in result.metrics[2:]] == [0.79, 0.79]


def test_rollouts_are_measured_and_training_is_the_same(tiny_checkpoint, tmp_path):
    bounds = {"colour_distance": {"min": 2.0}}
    monitor = {"name": "rollout_images", "bounds": bounds, "patience": 2, "action": "stop"}
    with pytest.raises(
        Stopped, match=r"'rollout_images': monitor/images/colour_distance is 0[.\d]* after step 2, below 2"
    ):
        train(tiny_checkpoint, tmp_path / "run", [monitor])
    train(tiny_checkpoint, tmp_path / "plain", [], run={"steps": 2})
    watched, plain = metrics(tmp_path / "run"), metrics(tmp_path / "plain")
    own = [{key: value for key, value in line.items() if not key.startswith("monitor/")} for line in watched]
    assert own == plain and 0 <= watched[0]["monitor/images/edge_density"] <= 1


def test_prompts_are_generated_beside_training(tiny_checkpoint, tmp_path):
    monitor = {"name": "image_diversity", "prompts": CROSS, "n": 3, "every": 2, "bounds": {"edge_density": {"max": 2}}}
    result = train(tiny_checkpoint, tmp_path / "run", [monitor], run={"steps": 2})
    assert "monitor/prompts/pixel_distance" not in result.metrics[0]
    assert result.metrics[1]["monitor/prompts/pixel_distance"] > 0
    before = json.loads((tmp_path / "run" / "monitors.json").read_text())
    assert before["edge_density/draw a cross"] >= 0


def test_prompts_are_those_of_the_data_by_default(tiny_checkpoint, tmp_path):
    monitor = {"name": "image_diversity", "num_prompts": 3, "n": 2, "every": 2}
    result = train(tiny_checkpoint, tmp_path / "run", [monitor], run={"steps": 2})
    before = json.loads((tmp_path / "run" / "monitors.json").read_text())
    assert len([name for name in before if name.startswith("pixel_distance/row ")]) == 3
    assert result.metrics[1]["monitor/prompts/pixel_distance_beyond"] == 0
    with pytest.raises(ConfigError, match=r"'tset'.*image_diversity|image_diversity.*'tset'"):
        train(tiny_checkpoint, tmp_path / "other", [{**monitor, "split": "tset"}])


def test_a_watched_reward_has_no_part_in_training(tiny_checkpoint, tmp_path):
    rewards = mapping(tiny_checkpoint)["rewards"]
    seen = [*rewards, {"name": "jpeg_incompressibility", "acts": ["image"], "weight": 0.0}]
    bound = {"name": "metric_bound", "metric": "rewards/jpeg_incompressibility/mean", "min": 1e6, "patience": 1}
    with pytest.raises(Stopped, match=r"rewards/jpeg_incompressibility/mean is [\d.]+ after step 1, below 1e\+06"):
        train(tiny_checkpoint, tmp_path / "run", [{**bound, "action": "stop"}], rewards=seen)


def test_the_best_checkpoint_is_kept(tiny_checkpoint, tmp_path):
    best = [{"name": "best_checkpoint", "metric": "eval/skill"}]
    values = [0.99, 0.3, 0.9, 0.5, 0.6, 0.7, 0.95, 0.1]  # the first one, before training, does not count
    changes = {"eval": {"suite": {"name": f"{__file__}:scripted", "values": values}, "every": 1}}
    run = {"steps": 4, "keep_checkpoints": 1, "save_every": 1}
    folder = tmp_path / "run" / "checkpoints"
    train(tiny_checkpoint, tmp_path / "run", best, run=run, **changes)
    assert [path.name for path in checkpoints(folder)] == ["step_000002", "step_000004"]
    assert best_checkpoint(folder) == folder / "step_000002"
    train(tiny_checkpoint, tmp_path / "run", best, resume=True, run={**run, "steps": 5}, **changes)
    assert [path.name for path in checkpoints(folder)] == ["step_000002", "step_000005"]  # 0.7 is not better
    train(tiny_checkpoint, tmp_path / "run", best, resume=True, run={**run, "steps": 7, "save_every": 9}, **changes)
    assert [path.name for path in checkpoints(folder)] == ["step_000006", "step_000007"]  # asked for although not due
    assert json.loads((folder / "best.json").read_text())["value"] == 0.95


def test_what_a_run_cannot_give_is_said_before_the_first_step(tiny_checkpoint, tmp_path):
    with pytest.raises(ConfigError, match=re.escape("set eval.every")):
        train(tiny_checkpoint, tmp_path / "run", [{"name": "best_checkpoint", "metric": "eval/draw"}])
    probe = {"name": "retention", "suite": "rewards", "metric": "reddish", "every": 1, "min": 0}
    with pytest.raises(ConfigError, match=r"needs the recipe's rewards on validation rows"):
        train(tiny_checkpoint, tmp_path / "run", [probe])
    assert not (tmp_path / "run").exists()
