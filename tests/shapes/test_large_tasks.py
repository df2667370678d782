"""Tasks of the large world beside its prompts: right, of compositions that their abilities are trained on, scored."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from motet.config import DataConfig
from motet.data import open_rows
from motet.shapes.drafts import MISTAKES
from motet.shapes.edits import INVERSES
from motet.shapes.errors_in_words import describe_mistakes
from motet.shapes.large import prompts
from motet.shapes.large.vocabulary import SETS, SPLITS
from motet.shapes.options import TASKS
from motet.shapes.questions import caption
from motet.shapes.render import render
from motet.shapes.split import in_test_split
from motet.shapes.verifier import parse_scene, verify, verify_image
from motet.shapes.world import COLUMNS, open_world
from tests.rewards.image.test_pairwise import acted
from tests.rewards.shapes.test_scenes import CYCLE, bound
from tests.shapes.test_large_world import spec, words
from tests.shapes.test_tasks import COLUMNS_OF, apply_instruction, parse_description

TEXTS = ("question", "solution", "scene", "prompt", "thought", "instruction", "inverse", "edited_scene", "mistake",
         "critique")  # fmt: skip
CAPTIONS = "captions"


@cache
def rows(task: str, split: str = "train", count: int = 40) -> list[dict[str, Any]]:
    options = {"caption_fraction": 1.0} if task == CAPTIONS else {"task": task}
    world = open_world(split, 0, {"world": "large", **options})
    return [world.row(index) for index in range(count)]


def names_set(text: str, name: str) -> bool:
    """Whether a text names a composition of a set, by its words."""
    one, text = SETS[name], words(text.replace("<", " ").replace(".", " "))
    pairs = [f" {colour} {end}" for colour, shape in one.pairs for end in (shape, f"{shape}s", f"{shape}es")]
    return any(f"{word} " in text for word in (f" {one.colour}", f" {one.relation}", *pairs))


def named(row: dict[str, Any], columns: tuple[str, ...] = TEXTS) -> set[str]:
    return {name for name in SETS for column in columns if column in row and names_set(row[column], name)}


@pytest.mark.parametrize(("split", "digest"), [("train", "feaa3e339182eac8"), ("only_asked", "c17578064c7eced0")])
def test_rows_of_prompts_and_questions_stay_the_same(split: str, digest: str) -> None:
    world, texts = open_world(split, 0, {"world": "large"}), hashlib.sha256()
    for index in range(12 if split == "train" else 3):
        row = world.row(index)
        pixels = [hashlib.sha256(row.pop(name).tobytes()).hexdigest() for name in ("target", "image")]
        texts.update(json.dumps([row, pixels]).encode())
    assert texts.hexdigest()[:16] == digest


# --- rows


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_deterministic_and_have_the_columns_of_the_small_world(task: str) -> None:
    first, other = (open_world("train", seed, {"world": "large", "task": task}) for seed in (0, 1))
    assert set(open_rows(DataConfig(options={"world": "large", "task": task}), seed=0).columns) == COLUMNS_OF[task]
    row, again = first.row(5), rows(task)[5]
    assert set(row) == set(first.columns) == COLUMNS_OF[task]
    for name, value in row.items():
        assert value.tobytes() == again[name].tobytes() if isinstance(value, Image.Image) else value == again[name]
    assert [first.row(i)["scene"] for i in range(9)] != [other.row(i)["scene"] for i in range(9)]


def test_captions_are_rows_of_prompts() -> None:
    assert set(rows(CAPTIONS)[0]) == set(COLUMNS)
    for row in rows(CAPTIONS):
        assert row["kind"] == "caption" and row["solution"] == f" {row['answer']}"
        assert row["answer"] == caption(parse_scene(row["image"], 4, "large").scene)
    assert not any(row["kind"] == "caption" for row in rows("prompts", "test", 5))


@pytest.mark.parametrize("task", [*TASKS, CAPTIONS])
def test_training_texts_name_what_their_abilities_are_trained_on(task: str) -> None:
    """By the words of the texts, not by the functions that make them."""
    columns = TEXTS if task != CAPTIONS else ("question", "solution", "scene")
    found = set().union(*(named(row, columns) for row in rows(task)))
    assert found == ({"only_asked"} if task == "reasoning" else set())
    if task != CAPTIONS:
        assert not any(named(row) for row in rows(task, "test", 5))


@pytest.mark.parametrize("task", ["reasoning", "layouts", "edits", "drafts"])
@pytest.mark.parametrize("split", SETS)
def test_splits_of_the_sets_name_their_own_alone(task: str, split: str) -> None:
    column = {"reasoning": "question", "layouts": "prompt", "edits": "scene", "drafts": "prompt"}[task]
    for row in rows(task, split, 2):
        assert named(row) == {split}
        assert task == "edits" or names_set(row[column], split) or names_set(row.get("solution", ""), split)


@pytest.mark.parametrize("task", TASKS)
def test_training_and_test_are_disjoint(task: str) -> None:
    for split, count in (("train", 40), ("test", 5)):
        for row in rows(task, split, count):
            if "spec" in row:
                few = row["category"] in prompts.FEW_SPECS
                keys = [row["prompt"] if few else prompts.prompt_text(row["spec"])]
            else:
                keys = [row["scene"], row.get("edited_scene", row["scene"])]
            assert {in_test_split(key) for key in keys} == {split == "test"}


# --- layouts, edits, drafts


@pytest.mark.parametrize("split", SPLITS)
def test_layouts_and_drafts_are_what_their_texts_say(split: str) -> None:
    for row in rows("layouts", split, 4):
        assert verify_image(row["target"], row["spec"]).correct
        assert row["thought"] == f"<answer> {row['scene']}</answer>"
        assert parse_scene(row["target"], 4, "large").scene == parse_description(row["scene"])
    for row in rows("drafts", split, 6):
        parsed = parse_scene(row["draft"], 4, "large")
        assert verify_image(row["target"], row["spec"]).correct
        assert verify(parsed, row["spec"]).correct == (row["mistake"] == "nothing") == (row["kind"] == "none")
        assert describe_mistakes(parsed, row["spec"]) == row["mistake"] and "," not in row["mistake"]
        assert row["critique"].endswith(f"{row['mistake']}</think><answer> {row['mistake']}</answer>")


def test_an_instruction_says_the_change_exactly_and_its_inverse_leads_back() -> None:
    for row in rows("edits", count=60):
        before, after = (parse_scene(row[column], 4, "large").scene for column in ("image", "edited"))
        assert before == parse_description(row["scene"]) and after == parse_description(row["edited_scene"])
        assert apply_instruction(before, row["instruction"]) == after, row["instruction"]
        assert apply_instruction(after, row["inverse"]) == before, row["inverse"]


def test_all_kinds_occur() -> None:
    assert set(Counter(row["kind"] for row in rows("edits", count=60))) == set(INVERSES)
    drafts = rows("drafts", count=60)
    assert set(Counter(row["kind"] for row in drafts)) == {*MISTAKES, "none"}
    assert {row["category"] for row in drafts} == set(prompts.CATEGORIES)
    said = " | ".join(row["instruction"] for row in rows("edits", count=60))
    for form in ("make the small ", " large |", "the left large ", "just below the ", "add a small "):
        assert form in said, form


@pytest.mark.parametrize(
    ("options", "possible"),
    [
        ({"world": "large", "categories": "comparison"}, {"missing", "extra", "count"}),
        ({"world": "large", "open_shape_fraction": 1.0}, set(MISTAKES) - {"shape"}),
        ({"categories": "single"}, set(MISTAKES) - {"position", "colour", "size"}),
    ],
)
def test_drafts_have_only_mistakes_that_their_prompts_allow(options: dict, possible: set[str]) -> None:
    world = open_world("train", 0, {"task": "drafts", **options})
    drafts = [world.row(index) for index in range(30)]
    assert {row["kind"] for row in drafts} - {"none"} == possible
    assert 1 <= sum(row["kind"] == "none" for row in drafts) <= 14  # CORRECT_FRACTION of them
    assert all((row["kind"] == "none") == (row["mistake"] == "nothing") for row in drafts)


CIRCLE, STARS = (1, "circle", "red", "small"), (2, "star", None, "large")
MORE = [{"shape": "star", "colour": "red"}, {"shape": "heart", "colour": None}]
NO_HEART = {"shape": "heart", "colour": None}


@pytest.mark.parametrize(
    ("wanted", "scene", "text"),
    [
        (spec("single", CIRCLE), "a1 small red circle", "nothing"),
        (spec("single", CIRCLE), "a1 large red circle", "a1 is large instead of small"),
        (spec("single", CIRCLE), "a1 small orange circle", "a1 is orange instead of red"),
        (spec("single", CIRCLE), "a1 small red heart", "a1 is a heart instead of a circle"),
        (spec("single", CIRCLE), "a1 large blue circle",
         "a small red circle is missing, a1 large blue circle is extra"),
        (spec("counting", STARS), "a1 large red star", "a large star instead of two"),
        (spec("counting", (8, "star", None, None)), "a1 large red star, b1 small red star, c1 small red star, "
         "d1 small red star, a2 small red star, b2 small red star, c2 small red star",
         "seven stars instead of eight"),
        (spec("single", (1, "heart", "orange", None)), "nothing", "an orange heart is missing"),
        (spec("chain", (1, "circle", None, None), (1, "heart", "pink", None), (1, "star", None, None),
              relations=[[0, "level with", 1], [1, "above", 2]]),
         "a1 small red circle, b1 small pink heart, c1 small red star", "the pink heart is not above the star"),
        (spec("negation", total=2, absent=NO_HEART), "a1 small red star, c2 large red heart",
         "c2 large red heart is wrong"),
        (spec("negation", total=3, absent=NO_HEART), "a1 small red star, c2 large red star",
         "two things instead of three"),
        (spec("negation", total=2, absent=NO_HEART), "a1 small red star, c2 large red cross", "nothing"),
        (spec("comparison", more=MORE), "a1 small red star", "a heart is missing"),
        (spec("comparison", more=MORE), "a1 small red star, b1 large blue heart", "not more red stars than hearts"),
        (spec("comparison", more=MORE), "a1 small red star, b1 large red star, c1 small blue star, d1 small red heart",
         "c1 small blue star is extra"),
        (spec("comparison", more=MORE), "a1 small red star, b1 large red star, d1 small red heart", "nothing"),
    ],
)  # fmt: skip
def test_describe_mistakes(wanted: dict, scene: str, text: str) -> None:
    parsed = parse_scene(render(parse_description(scene), 64), 4, "large")
    assert describe_mistakes(parsed, wanted) == text
    assert verify(parsed, wanted).correct == (text == "nothing")


def test_nothing_is_wrong_exactly_with_correct_images() -> None:
    # Every prompt against the targets of others that it may have in common: far more mistakes than are ever planted.
    rng, right = np.random.default_rng(0), 0
    wanted = [prompts.sample_spec(rng, category, 3, 4) for category in prompts.CATEGORIES for _ in range(4)]
    shown = [parse_scene(render(prompts.sample_scene(rng, one), 48), 3, "large") for one in wanted]
    for one in wanted:
        for other in shown:
            correct = verify(other, one).correct
            assert (describe_mistakes(other, one) == "nothing") == correct
            right += correct
    assert right > len(wanted) + 3


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        ("a1 small red star, b1 large red star", "a small red star left of a large red star"),
        ("a1 large orange star, b1 large orange star, c3 small black heart",
         "two large orange stars and a small black heart"),
    ],
)  # fmt: skip
def test_captions(scene: str, text: str) -> None:
    assert caption(parse_description(scene)) == text


# --- rewards


def test_rewards_of_edits_and_captions_in_the_large_world() -> None:
    made = rows("edits")[:12]
    columns = {name: [row[name] for row in made] for name in made[0]} | {"images": [[row["image"]] for row in made]}
    right, lazy = ([acted(edit=row[name], restored=row["image"]) for row in made] for name in ("edited", "image"))
    for name in ("edit_shapes", "restored_shapes"):
        assert bound(name, CYCLE, world="large")(completions=right, **columns) == [1.0] * 12
    assert bound("edit_shapes", CYCLE, world="large")(completions=lazy, **columns) == [0.0] * 12
    shown = [render(parse_description(scene), 64) for scene in
             ("a1 small red star", "c2 small red star", "c2 large red star")]  # fmt: skip
    asked = {"completions": [acted(restored=image) for image in shown], "images": [[shown[0]]] * 3}
    listed = bound("scene_match", CYCLE, act="restored", match_cells=False, world="large")
    assert listed(**asked) == [1.0, 1.0, 0.0]


def test_critiques_of_the_large_world() -> None:
    made = rows("drafts")[:12]
    columns = {name: [row[name] for row in made] for name in made[0]}
    said = [acted(draft=row["draft"], critique=row["critique"], revision=row["target"]) for row in made]
    assert bound("critique")(completions=said, **columns) == [1.0] * 12
    assert bound("shapes")(completions=said, **columns) == [1.0] * 12
    wrong = [acted(draft=row["target"], critique=row["critique"], revision=row["draft"]) for row in made]
    right = [float(row["kind"] == "none") for row in made]
    assert bound("critique")(completions=wrong, **columns) == bound("shapes")(completions=wrong, **columns) == right
