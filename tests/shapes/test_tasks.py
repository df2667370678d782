"""Tasks of the shapes world beside its prompts: reasoning, plans, edits, drafts. Right, disjoint, deterministic."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from motet.config import DataConfig
from motet.core.errors import ConfigError
from motet.data import open_rows
from motet.shapes.drafts import MISTAKES
from motet.shapes.edits import INVERSES
from motet.shapes.errors_in_words import describe_mistakes
from motet.shapes.options import TASKS
from motet.shapes.questions import KINDS
from motet.shapes.render import render
from motet.shapes.scene import COLOURS, HELD_OUT_PAIRS, SHAPES, Scene, ShapeInstance, related
from motet.shapes.verifier import compare, parse_scene, verify, verify_image
from motet.shapes.world import COLUMNS, SPLITS, ShapesRows

COUNT = 150
COLUMNS_OF = {
    "reasoning": {"question", "options", "answer", "kind", "solution", "scene"},
    "layouts": {"prompt", "category", "spec", "thought", "target", "scene"},
    "edits": {"image", "instruction", "inverse", "edited", "kind", "scene", "edited_scene"},
    "drafts": {"prompt", "category", "spec", "draft", "kind", "mistake", "critique", "target", "scene"},
}


@cache
def rows(task: str, split: str = "train", count: int = COUNT) -> list[dict]:
    world = ShapesRows(split, 0, {"task": task})
    return [world.row(i) for i in range(count)]


def parse_description(words: str, grid: int = 4) -> Scene:
    """`describe` read back."""
    if words == "nothing":
        return Scene(grid, ())
    objects = [re.fullmatch(r"([a-p])(\d+) (?:(small|large) )?(\w+) (\w+)", part) for part in words.split(", ")]
    assert all(objects), words
    return Scene(
        grid, tuple(ShapeInstance(int(m[2]) - 1, ord(m[1]) - ord("a"), m[4], m[5], m[3] or "") for m in objects if m)
    )


def names(words: str) -> set[tuple[str, str]]:
    """Pairs of a colour and a shape that stand together."""
    return {(colour, shape) for colour in COLOURS for shape in SHAPES if f"{colour} {shape}" in words}


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_deterministic_and_have_their_columns(task: str) -> None:
    first, other = ShapesRows("train", 0, {"task": task}), ShapesRows("train", 1, {"task": task})
    for i in (0, 5):
        row, again = first.row(i), rows(task)[i]
        assert set(row) == set(first.columns) == COLUMNS_OF[task]
        for name, value in row.items():
            same = value.tobytes() == again[name].tobytes() if hasattr(value, "tobytes") else value == again[name]
            assert same, name
    assert [first.row(i)["scene"] for i in range(9)] != [other.row(i)["scene"] for i in range(9)]


def test_the_default_task_is_prompts() -> None:
    old, named = ShapesRows("train", 0, {}), ShapesRows("train", 0, {"task": "prompts"})
    assert old.columns == named.columns == COLUMNS
    assert old.row(3)["target"].tobytes() == named.row(3)["target"].tobytes()


@pytest.mark.parametrize(
    ("task", "message"),
    [("edit", "task='edit'.*Did you mean 'edits'"), ("plans", "renamed to"), (3, "task=3")],
)
def test_unknown_tasks_raise(task: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ShapesRows("train", 0, {"task": task})


@pytest.mark.parametrize("task", TASKS)
def test_tasks_are_reached_through_a_recipe_on_other_grids_too(task: str) -> None:
    options = {"task": task, "grid": 2, "canvas": 16, "max_objects": 3, "max_count": 3}
    found = open_rows(DataConfig(options=options), COLUMNS_OF[task], seed=0)
    for split in SPLITS if task != "edits" else ("train",):
        other = open_rows(DataConfig(options=options, split=split), seed=0)
        assert other.task(0)["scene"]
    assert set(found.columns) == COLUMNS_OF[task]


@pytest.mark.parametrize("task", TASKS)
def test_splits_are_disjoint(task: str) -> None:
    if task in ("layouts", "drafts"):
        shown = {split: {row["prompt"] for row in rows(task, split)} for split in SPLITS}
    else:
        keys = ("scene", "edited_scene") if task == "edits" else ("scene",)
        shown = {split: {row[key] for row in rows(task, split, 60) for key in keys} for split in SPLITS}
    assert not shown["train"] & (shown["test"] | shown["held_out"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_held_out_pairs_are_never_named(split: str) -> None:
    texts = {
        "reasoning": ("question", "solution"),
        "layouts": ("prompt", "thought"),
        "edits": ("instruction", "inverse"),
        "drafts": ("prompt", "critique", "mistake"),
    }
    for task, columns in texts.items():
        for row in rows(task, split, 60):
            for column in columns:
                assert not names(row[column]) & HELD_OUT_PAIRS, (task, row[column])


def test_the_held_out_split_is_about_them() -> None:
    for row in rows("edits", "held_out", 30):
        before, after = (
            set(parse_description(row["scene"]).objects),
            set(parse_description(row["edited_scene"]).objects),
        )
        pairs = {(t.colour, t.shape) for t in before ^ after} | {(t.colour, t.shape) for t in before}
        assert pairs & HELD_OUT_PAIRS
    for task in ("layouts", "drafts"):
        held = [row for row in rows(task, "held_out", 30) if names(row["prompt"]) & HELD_OUT_PAIRS]
        assert len(held) > 10
    kinds = {row["kind"] for row in rows("reasoning", "held_out", 60)}
    assert kinds <= set(KINDS) and len(kinds) > 2


# --- reasoning and plans


def answer_of(question: str, scene: Scene) -> str | None:
    """The answer to questions of three kinds, worked out from the words."""
    if match := re.fullmatch(r"is there a (\w+) (\w+)\?", question):
        return "yes" if scene.matching(match[2], match[1]) else "no"
    if match := re.fullmatch(r"how many (\w+) things\?", question):
        return ["zero", "one", "two", "three", "four", "five", "six"][len(scene.matching(colour=match[1]))]
    if match := re.fullmatch(r"what colour is the (\w+)\?", question):
        (only,) = scene.matching(match[1])
        return only.colour
    return None


def test_reasoning_needs_no_image_and_answers_from_the_description() -> None:
    judged = Counter()
    for row in rows("reasoning"):
        described, _, question = row["question"].partition(". ")
        assert described == row["scene"] and "image" not in row
        right = answer_of(question.split(" A. ")[0], parse_description(described))
        given = row["options"]["ABCD".index(row["answer"])] if row["options"] else row["answer"]
        assert right in (None, given)
        judged[right is not None] += 1
        assert row["solution"].endswith(f"<answer> {row['answer']}</answer>")
    assert judged[True] > COUNT * 0.3
    assert {row["kind"] for row in rows("reasoning")} == set(KINDS)


def test_questions_of_reasoning_follow_the_worlds_options() -> None:
    world = ShapesRows("train", 0, {"task": "reasoning", "open_ended_fraction": 1.0, "cot_fraction": 1.0})
    made = [world.row(i) for i in range(20)]
    assert not any(row["options"] for row in made)
    assert all(row["solution"].startswith(f"<think> {row['scene']}, ") for row in made)


def test_layouts_satisfy_their_prompts_and_match_their_targets() -> None:
    for split in SPLITS:
        for row in rows("layouts", split):
            assert verify_image(row["target"], row["spec"]).correct
            assert row["thought"] == f"<answer> {row['scene']}</answer>"
            assert parse_scene(row["target"], 4).scene == parse_description(row["scene"])


# --- edits


def find(scene: Scene, words: str) -> ShapeInstance:
    """The one object that answers to a name."""
    match = re.fullmatch(r"the (left |right |top |bottom )?(?:(small|large) )?(?:(\w+) )?(\w+?)(?: at (\w\d))?", words)
    assert match, words
    found = scene.matching(match[4], match[3], match[2])
    if match[5]:
        found = [obj for obj in found if obj.cell == match[5]]
    if match[1]:
        assert len(found) == 2
        key = "column" if match[1] in ("left ", "right ") else "row"
        first, second = sorted(found, key=lambda obj: getattr(obj, key))
        assert getattr(first, key) < getattr(second, key), f"{words}: neither"
        found = [first if match[1] in ("left ", "top ") else second]
    assert len(found) == 1, f"{words}: {found}"
    return found[0]


def cell(scene: Scene, words: str) -> tuple[int, int]:
    """The one cell that a place names."""
    if match := re.fullmatch(r"(?:at|to) ([a-p])(\d+)", words):
        return int(match[2]) - 1, ord(match[1]) - ord("a")
    match = re.fullmatch(r"just (left of|right of|above|below) (the .+)", words)
    assert match, words
    anchor = find(scene, match[2])
    down, right = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}[match[1]]
    return anchor.row + down, anchor.column + right


def apply_instruction(scene: Scene, words: str) -> Scene:
    """What an instruction says, from its words and the scene alone."""
    objects = set(scene.objects)
    if match := re.fullmatch(r"make (the .+) (small|large)", words):
        old = find(scene, match[1])
        new = {replace(old, size=match[2])}
    elif match := re.fullmatch(r"make (the .+) (\w+)", words):
        old = find(scene, match[1])
        new = {replace(old, colour=match[2])}
    elif match := re.fullmatch(r"turn (the .+) into a (\w+)", words):
        old = find(scene, match[1])
        new = {replace(old, shape=match[2])}
    elif match := re.fullmatch(r"remove (the .+)", words):
        old, new = find(scene, match[1]), set()
    elif match := re.fullmatch(r"swap (the .+) and (the .+)", words):
        old, other = find(scene, match[1]), find(scene, match[2])
        new = {replace(other, row=old.row, column=old.column), replace(old, row=other.row, column=other.column)}
        objects -= {other}
    elif match := re.fullmatch(r"move (the .+?) ((?:to|just) .+)", words):
        old = find(scene, match[1])
        row, column = cell(scene, match[2])
        new = {replace(old, row=row, column=column)}
    else:
        match = re.fullmatch(r"add a (?:(small|large) )?(\w+) (\w+) ((?:at|just) .+)", words)
        assert match, words
        old, new = None, {ShapeInstance(*cell(scene, match[4]), match[2], match[3], match[1] or "")}
    after = (objects - {old}) | new
    assert len({(t.row, t.column) for t in after}) == len(after), "two things in a cell"
    assert all(0 <= t.row < scene.grid and 0 <= t.column < scene.grid for t in after)
    return Scene(scene.grid, tuple(sorted(after)))


@pytest.mark.parametrize("split", SPLITS)
def test_an_instruction_says_the_change_exactly_and_its_inverse_leads_back(split: str) -> None:
    count = 600 if split == "train" else 60
    for row in rows("edits", split, count):
        before, after = (parse_scene(row[column], 4) for column in ("image", "edited"))
        assert not before.unreadable and not after.unreadable
        assert before.scene == parse_description(row["scene"]) and after.scene == parse_description(row["edited_scene"])
        assert before.scene != after.scene
        assert apply_instruction(before.scene, row["instruction"]) == after.scene, row["instruction"]
        assert apply_instruction(after.scene, row["inverse"]) == before.scene, row["inverse"]


def test_edits_are_of_all_kinds_evenly_and_an_inverse_has_an_inverse() -> None:
    kinds = Counter(row["kind"] for row in rows("edits", "train", 600))
    assert set(kinds) == set(INVERSES) - {"resize"} and min(kinds.values()) > 60
    assert all(INVERSES[INVERSES[kind]] == kind for kind in INVERSES)
    verbs = {"recolour": "make", "reshape": "turn", "remove": "remove", "add": "add", "move": "move", "swap": "swap"}
    for row in rows("edits", "train", 600):
        assert row["instruction"].split()[0] == verbs[row["kind"]]
        assert row["inverse"].split()[0] == verbs[INVERSES[row["kind"]]]


def test_every_form_of_names_and_places_occurs() -> None:
    said = " | ".join(row[column] for row in rows("edits", "train", 600) for column in ("instruction", "inverse"))
    for form in ("the left ", "the right ", "the top ", "the bottom ", " at a1", " to c2", "just left of ",
                 "just right of ", "just above ", "just below "):  # fmt: skip
        assert form in said, form
    assert re.search(r"the \w+ \w+ at \w\d", said)


def test_training_changes_no_held_out_pair_either() -> None:
    for row in rows("edits", "train", 600):
        changed = set(parse_description(row["scene"]).objects) ^ set(parse_description(row["edited_scene"]).objects)
        assert not {(t.colour, t.shape) for t in changed} & HELD_OUT_PAIRS


def test_comparing_scenes() -> None:
    red, blue = ShapeInstance(0, 0, "red", "circle"), ShapeInstance(1, 2, "blue", "square")
    wanted = Scene(4, (red, blue))
    right = compare(parse_scene(render(wanted, 32), 4), wanted)
    assert (right.correct, right.partial, right.reason) == (True, 1.0, "")
    moved = Scene(4, (red, ShapeInstance(1, 3, "blue", "square")))
    got = compare(parse_scene(render(moved, 32), 4), wanted)
    assert (got.correct, got.partial) == (False, 14 / 16)  # one cell lost it, another has it
    recoloured = Scene(4, (ShapeInstance(0, 0, "blue", "circle"), blue))
    assert compare(parse_scene(render(recoloured, 32), 4), wanted).partial == 15 / 16
    image = render(wanted, 32)
    image.paste((0, 0, 0), (24, 24, 30, 30))  # a mark in an empty cell
    assert compare(parse_scene(image, 4), wanted).partial == 15 / 16
    assert compare(parse_scene(image.resize((30, 30)), 4), wanted).partial == 0.0


# --- drafts


def test_drafts_hold_the_mistake_that_the_critique_names_and_no_other() -> None:
    for split in SPLITS:
        for row in rows("drafts", split):
            parsed = parse_scene(row["draft"], 4)
            assert verify_image(row["target"], row["spec"]).correct
            assert verify(parsed, row["spec"]).correct == (row["mistake"] == "nothing") == (row["kind"] == "none")
            assert describe_mistakes(parsed, row["spec"]) == row["mistake"]
            assert "," not in row["mistake"]
            assert row["critique"].endswith(f"{row['mistake']}</think><answer> {row['mistake']}</answer>")
            if row["kind"] == "none":
                assert row["draft"].tobytes() == row["target"].tobytes()


def test_mistakes_are_of_all_kinds_evenly_and_some_drafts_are_right() -> None:
    kinds = Counter(row["kind"] for row in rows("drafts", "train", 400))
    assert set(kinds) == {*MISTAKES, "none"} - {"size"}
    assert 0.13 < kinds.pop("none") / 400 < 0.27 and min(kinds.values()) > 30


SPEC = {"category": "x", "grid": 4, "relation": None}


def group(count: int, shape: str, colour: str | None = None) -> dict:
    return {"count": count, "shape": shape, "colour": colour}


@pytest.mark.parametrize(
    ("groups", "relation", "scene", "words"),
    [
        ([group(1, "circle", "red")], None, "b2 red circle", "nothing"),
        ([group(1, "circle", "red")], None, "nothing", "a red circle is missing"),
        ([group(1, "circle", "red")], None, "c2 blue circle", "c2 is blue instead of red"),
        ([group(1, "circle", "red")], None, "c2 red cross", "c2 is a cross instead of a circle"),
        ([group(1, "circle")], None, "c2 blue cross", "c2 is a cross instead of a circle"),
        ([group(1, "circle", "red")], None, "c2 blue cross", "a red circle is missing, c2 blue cross is extra"),
        ([group(1, "circle", "red")], None, "a1 red circle, b3 red circle", "two red circles instead of one"),
        ([group(3, "circle")], None, "a1 red circle, b3 blue circle", "two circles instead of three"),
        ([group(3, "cross")], None, "b3 blue cross", "a cross instead of three"),
        ([group(2, "cross")], None, "nothing", "zero crosses instead of two"),
        ([group(2, "cross", "red")], None, "a1 red cross, b1 blue cross, b3 blue cross",
         "b1 is blue instead of red, b3 blue cross is extra"),
        ([group(1, "circle"), group(1, "cross")], "left of", "b1 red cross, c1 red circle",
         "the circle is not left of the cross"),
        ([group(1, "circle"), group(1, "cross")], "left of", "b1 red circle, c1 red cross", "nothing"),
        ([group(1, "circle"), group(1, "cross")], "left of", "c1 red circle", "a cross is missing"),
    ],
)  # fmt: skip
def test_describe_mistakes(groups: list[dict], relation: str | None, scene: str, words: str) -> None:
    spec = SPEC | {"groups": groups, "relation": relation}
    assert describe_mistakes(parse_scene(render(parse_description(scene), 32), 4), spec) == words


def test_an_unreadable_cell_is_a_mistake_too_and_many_objects_are_many() -> None:
    image = render(parse_description("b2 red circle"), 32)
    image.paste((0, 0, 0), (24, 24, 30, 30))
    spec = SPEC | {"groups": [group(1, "circle", "red")]}
    assert describe_mistakes(parse_scene(image, 4), spec) == "d4 is unclear"
    crowd = Scene(4, tuple(ShapeInstance(n // 4, n % 4, "red", "circle") for n in range(9)))
    assert describe_mistakes(parse_scene(render(crowd, 32), 4), spec) == "many red circles instead of one"


def test_nothing_is_wrong_exactly_with_correct_images() -> None:
    # Every prompt against the drafts of others: far more mistakes at once than are ever planted.
    drafts = rows("drafts")
    parsed = [parse_scene(row["draft"], 4) for row in drafts[:60]]
    right = 0
    for row in drafts[:60]:
        for other in parsed:
            correct = verify(other, row["spec"]).correct
            assert (describe_mistakes(other, row["spec"]) == "nothing") == correct
            right += correct
    assert right > 12
    assert related(ShapeInstance(0, 0, "", ""), "above", ShapeInstance(1, 0, "", ""))
