"""Rows that ask the same about different images are not duplicates, and not rows of training."""

import json
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from motet.preflight.checks.data import data_variety, eval_overlap
from motet.preflight.findings import Finding
from motet.preflight.probe import Probe, read_rows
from motet.training.engines import LOCAL
from tests.preflight.planting import World


def rows_about(folder: Path, names: list[str]) -> list[dict[str, Any]]:
    """One question about the image of each colour."""
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (20, 20), name).save(folder / f"{name}.png")
    return [{"image": f"{folder.name}/{name}.png", "question": "which color?", "answer": "one"} for name in names]


def findings(
    world: World, check: Any, training: list[dict[str, Any]], evaluation: list[dict[str, Any]]
) -> list[Finding]:
    path = world.folder / "eval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in evaluation), encoding="utf-8")
    suite = {"suite": {"name": "rewards", "data": str(path)}}
    session = world.answers(training, eval=suite, run={"steps": 1, "prompts_per_step": 2})
    return list(check(Probe(session, LOCAL, world.folder, tracks=read_rows(session))))


def test_one_question_about_many_images(world: World) -> None:
    training = rows_about(world.folder / "train", ["red", "green", "blue", "black"])
    evaluation = rows_about(world.folder / "test", ["white", "gray"])
    for check in (data_variety, eval_overlap):
        assert findings(world, check, training, evaluation) == []
    (repeated,) = findings(world, data_variety, training[:1] * 4, evaluation)
    assert repeated.problem.startswith("Only 1 of 4 sampled rows")


def test_a_copy_of_an_image_is_the_same_image(world: World) -> None:
    training = rows_about(world.folder / "train", ["red", "green"])
    evaluation = rows_about(world.folder / "test", ["white", "gray"])
    shutil.copy(world.folder / "train" / "red.png", world.folder / "test" / "gray.png")
    (shared,) = findings(world, eval_overlap, training, evaluation)
    assert shared.problem == "1 of 2 rows of evaluation are rows of training."
