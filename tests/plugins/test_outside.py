"""One outside package adds a policy, a loss, a reward, a kind of act and a suite; a recipe uses all five by name."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
import yaml

import motet
from tests.plugins.installing import install

HERE = Path(__file__).parent
ROWS = "".join(json.dumps({"prompt": name}) + "\n" for name in ("red", "blue") * 4)


def test_a_recipe_uses_all_that_an_installed_package_adds(tmp_path):
    """In a process of its own, which finds the package by its entry point alone."""
    from motet_masked_image.policy import build_policy

    build_policy().save(tmp_path / "checkpoint")
    (tmp_path / "rows.jsonl").write_text(ROWS)
    recipe = {
        "policy": {"path": "checkpoint"},  # its config.json: model_type masked_transformer
        "scenario": "text_to_image",
        "data": {"source": "rows.jsonl"},
        "rewards": [{"name": "share_of_named_colour"}],
        "algorithm": {"num_generations": 8, "per_kind": {"masked_image": {"loss": "reinforce"}}},
        "sampling": {"masked_image": {"num_steps": 3}},
        "optimizer": {"learning_rate": 0.003},
        "eval": {"suite": {"name": "named_colours", "samples": 8}},
        "run": {"steps": 20, "prompts_per_step": 4},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    path = [*install(HERE / "masked_image", tmp_path / "site"), str(HERE.parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "motet", "train", "recipe.yaml", "--output", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert fmean(summary["after"].values()) > fmean(summary["before"].values()) + 0.3
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "masked_image/advantage_abs" in lines[0] and "rewards/share_of_named_colour/mean" in lines[0]
    trained = motet.load_policy(tmp_path / "run")
    assert type(trained).__name__ == "MaskedImagePolicy"


@pytest.mark.parametrize(
    ("key", "value"), [("rewards", [{"name": "share_of_named_color"}]), ("eval", {"suite": "named"})]
)
def test_without_the_package_the_names_are_unknown(key, value, tmp_path):
    (tmp_path / "rows.jsonl").write_text(ROWS)
    content = {"policy": "x", "scenario": "text_to_image", "data": str(tmp_path / "rows.jsonl"), "steps": 1}
    content |= {"rewards": "shapes", key: value}
    with pytest.raises(motet.core.errors.ConfigError, match=r"is not a (reward|suite)"):
        motet.train(**content, output=tmp_path / "run")
