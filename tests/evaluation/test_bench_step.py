"""`motet bench step`: some steps timed, nothing kept."""

import json

import pytest

from tests.runs import motet_command, write_recipe


def test_steps_are_timed_by_phase(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    saved = []
    monkeypatch.setattr("motet.training.run_loop.save_checkpoint", lambda *rest: saved.append(rest))
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, run={"steps": 50})
    before = set(tmp_path.iterdir())
    answer = motet_command(capsys, "bench", "step", recipe, "--steps", 2, "--warmup", 1, "--json", tmp_path / "o.json")
    assert answer.code == 0, answer.err
    assert "whole step, s" in answer.out and "train 3/3" in answer.out
    assert set(tmp_path.iterdir()) - before == {tmp_path / "o.json"} and not saved
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["trajectories"] == 4 and found["images"] == pytest.approx(
        4, rel=1e-3
    )  # 2 prompts x 2 generations, one image each
    assert {"rollout", "rewards", "learn"} <= found["seconds"].keys()
    assert sum(found["seconds"].values()) == pytest.approx(found["step_seconds"], rel=0.2, abs=0.1)
    assert found["images_per_second"] == pytest.approx(4 / found["step_seconds"], rel=1e-3)
    assert found["actions"]["image"] == 4 * 16 and 0 < found["actions"]["text"] <= 4 * 8  # 16 tokens an image
    total = sum(found["actions"].values())
    assert found["actions_per_second"] == pytest.approx(total / found["step_seconds"])
    assert found["rollout_actions_per_second"] == pytest.approx(total / found["seconds"]["rollout"])
    assert found["peak_gb_by_phase"].keys() == found["seconds"].keys() and found["machine"]["cores"] >= 1
    assert 0.01 < max(found["peak_gb_by_phase"].values()) <= found["peak_gb"]
    assert 0.01 < found["peak_gb"] < 100 and found["num_trainable"] > 1000
