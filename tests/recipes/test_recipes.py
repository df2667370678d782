"""Every shipped recipe loads, and the shipped cold start is as accurate as documented."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from motet.config import load_recipe
from motet.config.load import read_mapping
from motet.config.stages import is_plan, load_plan
from motet.config.sweep import load_sweep
from motet.policies import load_policy
from motet.shapes.large.prompts import sets_named
from motet.shapes.large.vocabulary import SETS
from motet.shapes.parse_prompt import parse_prompt
from motet.shapes.verifier import verify_image, verify_images
from motet.shapes.world import open_world

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL, LARGE, DEMO = (ROOT / "checkpoints" / name for name in ("shapes_janus", "shapes_large", "shapes_demo"))
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_load_and_have_a_description(path: Path) -> None:
    content = read_mapping(path)
    if "strategies" in content:
        read = load_sweep(path, Path("out"))
    else:
        read = load_plan(path, Path("out")) if is_plan(path) else load_recipe(path)
    said = " ".join(read.description.split()).lower()
    assert len(said) > 80 and ("cores" in said or "gb" in said)  # what it does, and the hardware
    assert re.search(r"\d\s?%|not (yet )?run", said)  # expected results, or that there are none yet


@pytest.mark.parametrize("checkpoint", sorted(SMALL.parent.iterdir()), ids=lambda path: path.name)
def test_shipped_checkpoints_are_small(checkpoint: Path) -> None:
    assert sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file()) < 10_000_000


def num_correct(checkpoint: Path, options: dict[str, str], categories: tuple[str, ...]) -> int:
    """Of 24 images of validation prompts of these categories."""
    rows = open_world("test", 99, options)
    asked = [row for row in map(rows.row, range(200)) if row["category"] in categories][:24]
    acts = load_policy(checkpoint).generate_images([row["prompt"] for row in asked])
    return sum(verify_image(act.image, row["spec"]).correct for act, row in zip(acts, asked, strict=True))


def test_the_cold_starts_are_as_good_as_documented() -> None:
    assert num_correct(SMALL, {}, ("single", "two objects", "colours")) >= 22  # 99.9 % of such prompts on 2,048 items
    large = {"world": "large"}
    assert num_correct(LARGE, large, ("single",)) >= 15  # of 18; 97 % of 73 items
    assert num_correct(LARGE, large, ("counts", "negation", "chain")) <= 14  # 26 %: room for RL


def test_only_the_start_of_the_demo_composes_pairs_that_no_prompt_names() -> None:
    pairs = sorted(SETS["held_out"].pairs)
    asked = 3 * [text for colour, shape in pairs for text in (f"a {colour} {shape}", f"a small {colour} {shape}")]
    specs = [parse_prompt(text, world="large") for text in asked]
    assert all(spec is not None and sets_named(spec) == {"held_out"} for spec in specs)
    right = {}
    for checkpoint in (LARGE, DEMO):
        images = [act.image for act in load_policy(checkpoint).generate_images(asked)]
        right[checkpoint] = sum(result.correct for result in verify_images(images, specs))
    assert right[LARGE] <= 3 and right[DEMO] >= 12, right  # of 24


@pytest.mark.slow
@pytest.mark.parametrize(("world", "checkpoint"), [("small", SMALL), ("large", LARGE)])
def test_the_script_makes_the_shipped_tokenizers(world: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module("make_shapes_janus")
    made = json.loads(script.make_tokenizer(world, 0).backend_tokenizer.to_str())
    assert made["model"] == json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]


@pytest.mark.slow
def test_the_demo_runs_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    small = ["run.steps=2", "eval.size=64", "eval.suite.held_out_size=16", "eval.samples_per_item=2"]
    command = [sys.executable, "-m", "motet", "train", "recipes/shapes_demo.yaml", *small, "--output", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Try next: motet sample" in done.stdout
    assert re.search(r"preflight: \d+ checks passed in", done.stdout), done.stdout  # and none warned
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert {"before", "after", "seconds", "steps", "images_per_second", "seed"} <= summary.keys()
    for view in (summary["before"], summary["after"]):
        assert {"draw", "answer", "held_out", "greedy", "pass@2"} <= view.keys()
        assert view["draw"]["overall"] > 0.35 and view["answer"]["overall"] > 0.5  # 55 and 71 % on 512 items
    assert (out / "before.png").is_file()
    assert (out / "after.png").is_file()
