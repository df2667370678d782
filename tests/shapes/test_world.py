"""Prompts, questions and splits: deterministic, right, and disjoint by construction."""

from __future__ import annotations

import re

import pytest

from motet.errors import ConfigError
from motet.shapes.check import check_drawing, read_scene
from motet.shapes.prompts import CATEGORIES, is_held_out
from motet.shapes.questions import KINDS
from motet.shapes.scene import COLOURS, HELD_OUT_COUNTS, HELD_OUT_PAIRS, NUMBERS, SHAPES, Scene, related
from motet.shapes.world import COLUMNS, SPLITS, ShapesRows

COUNT = 400


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    return {split: [ShapesRows(split, 0, {}).row(i) for i in range(COUNT)] for split in SPLITS}


def test_deterministic_and_seeded() -> None:
    first, again, other = ShapesRows("train", 0, {}), ShapesRows("train", 0, {}), ShapesRows("train", 1, {})
    assert first.row(7)["image"].tobytes() == again.row(7)["image"].tobytes()
    assert first.row(7)["question"] == again.row(7)["question"]
    assert [first.row(i)["prompt"] for i in range(9)] != [other.row(i)["prompt"] for i in range(9)]
    assert set(first.row(0)) == set(COLUMNS)


def test_golden_row() -> None:
    # Pins the world: a change here makes every published number of the shapes recipes stale.
    row = ShapesRows("train", 0, {}).row(0)
    assert row["prompt"] == "show a purple triangle and a yellow circle"
    assert row["question"] == "is the green cross left of the purple square? A. yes B. no"
    assert row["answer"] == "B"


def test_every_category_and_kind_occurs(rows: dict[str, list[dict]]) -> None:
    for split in ("train", "test"):
        assert {row["category"] for row in rows[split]} == set(CATEGORIES)
        assert {row["kind"] for row in rows[split]} == set(KINDS)
        assert {bool(row["options"]) for row in rows[split]} == {True, False}


def test_targets_satisfy_their_prompts(rows: dict[str, list[dict]]) -> None:
    assert all(check_drawing(row["target"], row["spec"]).correct for split in SPLITS for row in rows[split])


def test_splits_are_disjoint(rows: dict[str, list[dict]]) -> None:
    assert not {r["prompt"] for r in rows["train"]} & {r["prompt"] for r in rows["test"]}
    assert not {r["scene"] for r in rows["train"]} & {r["scene"] for r in rows["test"]}

    # The rich categories are held back by content, whatever the phrase.
    def content(row: dict) -> str:
        return str((row["spec"]["groups"], row["spec"]["relation"]))

    rich = ("position", "colour attribution")
    kept = {content(r) for r in rows["train"] if r["category"] in rich}
    assert not kept & {content(r) for r in rows["test"] if r["category"] in rich}


def test_held_out_compositions_never_occur_in_training(rows: dict[str, list[dict]]) -> None:
    for row in (*rows["train"], *rows["test"]):
        assert not is_held_out(row["spec"])
        for picture in (row["target"], row["image"]):
            assert not {(t.colour, t.shape) for t in read_scene(picture, 4).scene.things} & HELD_OUT_PAIRS
    assert all(is_held_out(row["spec"]) for row in rows["held_out"])
    for row in rows["held_out"]:
        assert {(t.colour, t.shape) for t in read_scene(row["image"], 4).scene.things} & HELD_OUT_PAIRS
    counts = {(g["count"], g["shape"]) for r in rows["held_out"] for g in r["spec"]["groups"]}
    assert counts & HELD_OUT_COUNTS


def answer_of(question: str, scene: Scene) -> str:
    """The answer, worked out again from the words of the question alone."""
    question = question.split(" A. ")[0]
    if match := re.fullmatch(r"is there a (\w+) (\w+)\?", question):
        return "yes" if scene.matching(match[2], match[1]) else "no"
    if match := re.fullmatch(r"how many (\w+) things\?", question):
        return NUMBERS[len(scene.matching(colour=match[1]))]
    if match := re.fullmatch(r"how many (\w+)\?", question):
        return NUMBERS[sum(t.shape in (match[1][:-1], match[1][:-2]) for t in scene.things)]
    if match := re.fullmatch(r"what colour is the (\w+)\?", question):
        (only,) = scene.matching(match[1])
        return only.colour
    if match := re.fullmatch(r"what shape is the (\w+) thing\?", question):
        (only,) = scene.matching(colour=match[1])
        return only.shape
    match = re.fullmatch(r"is the (\w+) (\w+) (left of|right of|above|below) the (\w+) (\w+)\?", question)
    assert match, question
    (first,), (second,) = scene.matching(match[2], match[1]), scene.matching(match[5], match[4])
    return "yes" if related(first, match[3], second) else "no"


def test_answers_are_right(rows: dict[str, list[dict]]) -> None:
    for split in SPLITS:
        for row in rows[split]:
            right = answer_of(row["question"], read_scene(row["image"], 4).scene)
            if row["options"]:
                assert row["options"]["ABCD".index(row["answer"])] == right
                assert len(set(row["options"])) == len(row["options"])
            else:
                assert row["answer"] == right


def test_solutions_think_then_answer(rows: dict[str, list[dict]]) -> None:
    pattern = re.compile(r"<think> (.+)</think><answer> (.+)</answer>")
    careful = 0
    for row in rows["train"]:
        match = pattern.fullmatch(row["solution"])
        assert match
        assert match[2] == row["answer"]
        if not match[1].startswith("looks like"):
            careful += 1
            assert match[1].startswith(row["scene"])
    assert 0.4 < careful / COUNT < 0.6


def test_answers_are_balanced(rows: dict[str, list[dict]]) -> None:
    # A policy that always says the same must not do well.
    for kind in ("existence", "relation"):
        right = [answer_of(r["question"], read_scene(r["image"], 4).scene) for r in rows["train"] if r["kind"] == kind]
        assert 0.35 < right.count("yes") / len(right) < 0.65


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"canvass": 32}, "canvas"),
        ({"canvas": 30}, "canvas=30"),
        ({"grid": "four"}, "grid"),
        ({"max_things": 9}, "9 things"),
    ],
)
def test_bad_options_are_refused(options: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ShapesRows("train", 0, options)
    with pytest.raises(ConfigError, match="split"):
        ShapesRows("validation", 0, {})


def test_other_sizes() -> None:
    row = ShapesRows("train", 3, {"canvas": 72, "grid": 6}).row(0)
    assert row["image"].size == (72, 72)
    assert check_drawing(row["target"], row["spec"]).correct
    assert set(COLOURS) and len(SHAPES) == 4
