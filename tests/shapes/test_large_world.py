"""The large shapes world: rows, compositions that only one ability is trained on, verifier, questions."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from motet.core.errors import ConfigError
from motet.shapes.large import prompts, questions
from motet.shapes.large.vocabulary import COLOURS, NUMBERS, SETS, SHAPES, SPLITS, sets_of
from motet.shapes.render import render, templates
from motet.shapes.scene import Scene, ShapeInstance
from motet.shapes.verifier import parse_scene, verify_image
from motet.shapes.world import evaluation_splits, open_world

ROWS = 60


def rows_of(split: str, **options) -> list[dict]:
    world = open_world(split, 0, {"world": "large", **options})
    return [world.row(index) for index in range(20 if split in SETS else ROWS)]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    return {split: rows_of(split) for split in SPLITS}


def scene(*names: str) -> Scene:
    """Objects in reading order, one per cell: `small red star`, or `` for an empty cell."""
    objects = [
        ShapeInstance(cell // 4, cell % 4, *(name.split()[i] for i in (1, 2, 0)))
        for cell, name in enumerate(names)
        if name
    ]
    return Scene(4, tuple(objects))


def correct(spec: dict, *names: str) -> bool:
    return verify_image(render(scene(*names), 64), spec).correct


def spec(category: str, *groups: tuple, **more) -> dict:
    named = [dict(zip(("count", "shape", "colour", "size"), group, strict=True)) for group in groups]
    empty = {"relations": [], "total": None, "absent": None, "more": None}
    return {"category": category, "world": "large", "grid": 4, "groups": named, **empty, **more}


# --- what a prompt names, by hand


def test_what_of_a_set_a_prompt_names():
    pair, known = (1, "star", "green", None), (1, "heart", "red", None)
    beside = {"relations": [[0, "next to", 1]]}
    assert prompts.part_of_set(spec("attribution", pair, known), "held_out") == "pair"
    assert prompts.part_of_set(spec("position", pair, known, **beside), "held_out") == "relation"
    brown = (1, "star", "brown", None)
    assert prompts.part_of_set(spec("position", pair, brown, **beside), "held_out") == "colour"
    none = spec("negation", total=2, absent={"shape": None, "colour": "brown"})
    assert prompts.part_of_set(none, "held_out") == "colour"
    more = spec("comparison", more=[{"shape": "star", "colour": "orange"}, {"shape": "heart", "colour": None}])
    assert prompts.part_of_set(more, "only_drawn") == "colour"


# --- the verifier, by hand


def test_sizes_and_relations_in_a_chain():
    wanted = spec(
        "chain",
        (1, "circle", "red", None),
        (1, "square", "blue", "small"),
        (1, "star", None, None),
        relations=[[0, "left of", 1], [1, "above", 2]],
    )
    assert prompts.prompt_text(wanted) == "a red circle left of a small blue square that is above a star"
    assert correct(wanted, "large red circle", "small blue square", "", "", "large pink star")
    assert not correct(wanted, "large red circle", "large blue square", "", "", "large pink star")
    assert not correct(wanted, "small blue square", "large red circle", "", "", "large pink star")
    assert not correct(wanted, "large red circle", "small blue square", "large pink star")
    assert not correct(wanted, "large red circle", "small blue square", "small red cross", "", "large pink star")


def test_negation():
    wanted = spec("negation", total=3, absent={"shape": "triangle", "colour": None})
    assert prompts.prompt_text(wanted) == "three things and no triangle"
    assert correct(wanted, "small red star", "", "large red star", "large black cross")
    assert not correct(wanted, "small red star", "", "large red star")
    assert not correct(wanted, "small red star", "", "large red star", "large black triangle")
    no_colour = spec("negation", total=2, absent={"shape": None, "colour": "red"})
    assert prompts.prompt_text(no_colour) == "two things and no red thing"
    assert correct(no_colour, "small blue star", "small pink star")
    assert not correct(no_colour, "small blue star", "small red star")


def test_comparison():
    wanted = spec("comparison", more=[{"shape": "star", "colour": "red"}, {"shape": "heart", "colour": None}])
    assert prompts.prompt_text(wanted) == "more red stars than hearts"
    assert correct(wanted, "small red star", "large red star", "small pink heart")
    assert not correct(wanted, "small red star", "small pink heart")
    assert not correct(wanted, "small red star", "large red star")
    assert not correct(wanted, "small red star", "large red star", "small pink heart", "small blue star")


@pytest.mark.parametrize(
    ("relation", "holds"),
    [("level with", (1, 0, 0)), ("in line with", (0, 0, 1)), ("next to", (0, 0, 1)), ("left of", (1, 1, 0))],
)
def test_every_relation(relation, holds):
    wanted = spec("position", (1, "star", None, None), (1, "heart", None, None), relations=[[0, relation, 1]])
    star, heart = "small red star", "large red heart"
    beside, aslant, under = (star, "", heart), (star, "", "", "", "", heart), (star, "", "", "", heart)
    assert tuple(int(correct(wanted, *names)) for names in (beside, aslant, under)) == holds


def test_every_cell_is_told_from_every_other():
    names, cells = templates(16, "large")
    assert len(names) == 1 + len(SHAPES) * len(COLOURS) * 2
    for name in names[1:]:
        shown = Scene(4, (ShapeInstance(1, 2, name[0], name[1], name[2]),))
        assert parse_scene(render(shown, 64), 4, "large").scene == shown
    difference = np.sqrt(((cells[:, None] - cells[None]) ** 2).mean((2, 3, 4)))
    assert (difference + 255 * np.eye(len(cells))).min() > 10


def test_the_small_world_knows_none_of_the_new_words():
    shown = Scene(4, (ShapeInstance(0, 0, "orange", "star", "large"),))
    assert parse_scene(render(shown, 64), 4).unreadable == ((0, 0),)


# --- rows


@pytest.mark.parametrize("split", SPLITS)
def test_targets_are_correct_and_descriptions_match_images(rows, split):
    for row in rows[split]:
        assert verify_image(row["target"], row["spec"]).correct, row["prompt"]
        parsed = parse_scene(row["image"], 4, "large")
        assert not parsed.unreadable
        assert ", ".join(f"{obj.cell} {obj.name}" for obj in parsed.scene.objects) == row["scene"]


def cells_of(target: Scene) -> list[str]:
    return [f"{obj.cell} {obj.name}" for obj in target.objects]


def test_ordered_objects_are_in_the_first_cells_that_satisfy_the_relations():
    rng = np.random.default_rng(0)
    counts = spec("counts", (2, "star", "red", "small"), (3, "heart", "black", "large"))
    stars, hearts = (
        ["a1 small red star", "b1 small red star"],
        [f"{cell} large black heart" for cell in ("c1", "d1", "a2")],
    )
    assert cells_of(prompts.sample_scene(rng, counts, ordered=True)) == [*stars, *hearts]
    groups = [(1, "star", "red", "small"), (1, "heart", "red", "small"), (1, "cross", "red", "small")]
    relations = [[0, "right of", 1], [1, "in line with", 2]]
    chain = prompts.sample_scene(rng, spec("chain", *groups, relations=relations), ordered=True)
    assert cells_of(chain) == ["a1 small red heart", "b1 small red star", "a2 small red cross"]


def groups_of(rows: list[dict]) -> list[dict]:
    return [group for row in rows for group in row["spec"]["groups"]]


def test_open_shape_fraction_changes_training_prompts_alone(rows):
    for split in SPLITS:
        changed = rows_of(split, open_shape_fraction=0.5)
        same = [one["prompt"] == other["prompt"] for one, other in zip(rows[split], changed, strict=True)]
        assert not all(same) if split == "train" else all(same)
    assert all(group["shape"] for split in SPLITS for group in groups_of(rows[split]))


def test_groups_without_a_shape_name_a_colour_and_leave_the_shape_open():
    rows = rows_of("train", open_shape_fraction=1.0)
    groups = groups_of(rows)
    assert groups and all(group["shape"] is None and group["colour"] for group in groups)
    single = next(row for row in rows if row["category"] == "single")
    assert single["prompt"].endswith("thing")
    shown = [parse_scene(row["target"], 4, "large").scene.objects for row in rows if row["spec"]["groups"]]
    assert {obj.shape for objects in shown for obj in objects} == set(SHAPES)
    assert all(verify_image(row["target"], row["spec"]).correct for row in rows)
    half = [group["shape"] is None for group in groups_of(rows_of("train", open_shape_fraction=0.5))]
    assert 0.35 < sum(half) / len(half) < 0.65


def test_things_of_a_colour_are_counted_whatever_their_shape():
    wanted = spec("counting", (2, None, "red", None))
    assert prompts.prompt_text(wanted) == "two red things"
    assert correct(wanted, "small red star", "", "large red heart")
    assert not correct(wanted, "small red star", "", "large pink heart")
    assert not correct(wanted, "small red star", "large red star", "large red heart")


def test_ordered_fraction_changes_training_targets_alone(rows):
    for split in ("train", "test"):
        ordered = rows_of(split, ordered_fraction=0.5)
        assert all(verify_image(row["target"], row["spec"]).correct for row in ordered)
        for row, other in zip(ordered, rows[split], strict=True):
            assert {**row, "target": None, "image": None} == {**other, "target": None, "image": None}
            assert row["image"] == other["image"]
            assert split == "train" or row["target"] == other["target"]
    firsts = [{obj.cell for obj in parse_scene(row["target"], 4, "large").scene.objects} for row in rows["train"]]
    assert sum("a1" in cells for cells in firsts) < 0.5 * ROWS
    for fraction, expected in ((0.5, 0.6), (1.0, 1.0)):
        shown = [parse_scene(row["target"], 4, "large").scene for row in rows_of("train", ordered_fraction=fraction)]
        assert sum(any(obj.cell == "a1" for obj in x.objects) for x in shown) / ROWS == pytest.approx(expected, abs=0.2)


def listing(row: dict) -> list[tuple[str, str]]:
    """The objects that a chain of thought lists, such as `a1 small red star`, and the number that each has, or none."""
    parts = row["solution"].removeprefix("<think> ").split(", ")[: len(row["scene"].split(", "))]
    return [(" ".join(part.split()[:4]), " ".join(part.split()[4:])) for part in parts]


def test_thoughts_number_the_objects_in_question():
    """By the answers, not by the function that numbers."""
    seen = Counter()
    world = open_world("train", 1, {"world": "large", "cot_fraction": 1.0})
    for row in (world.row(index) for index in range(250)):
        numbers = [number for _, number in listing(row) if number]
        kind, word = row["kind"], row["solution"].partition(", so ")[2].partition("<")[0]
        seen[kind, word] += 1
        if kind == "count":
            assert numbers == list(NUMBERS[1 : 1 + NUMBERS.index(word)])
        elif kind in ("existence", "negation"):
            assert (word == "yes") == (bool(numbers) == (kind == "existence"))
        elif kind == "comparison":
            most = [NUMBERS.index(n) for n in row["solution"].split(", so ")[0].split(", ")[-1].split(" and ")]
            assert Counter(numbers) == Counter(n for total in most for n in NUMBERS[1 : total + 1])
        elif kind == "relation":
            assert numbers == ["one", "one"]
        elif kind == "attribute":
            assert numbers == ["one"] and any(word in text.split() for text, number in listing(row) if number)
        else:  # without a second candidate the relations would not matter
            assert "one" in numbers and "two" in numbers
    assert len({kind for kind, _ in seen}) == len(questions.KINDS) and seen["count", "three"] and seen["negation", "no"]


def test_an_object_counts_in_the_first_of_its_groups():
    groups = [("star", None, None), ("star", "red", None), ("circle", None, "small")]
    assert questions.numbered(SHOWN, groups) == (
        "a1 small red star one, c1 large red circle, b2 large blue star two, c2 small black heart, "
        "a3 small blue circle one"
    )
    assert questions.numbered(SHOWN, groups[1:2]).count("one") == 1


def test_short_thoughts_are_the_ends_of_full_ones(rows):
    long = rows_of("train", cot_fraction=1.0)
    for fraction, expected in ((1.0, 1.0), (0.5, 0.5)):
        short = 0
        for row, full in zip(rows_of("train", cot_fraction=1.0, short_cot_fraction=fraction), long, strict=True):
            listed = listing(full)
            assert row["question"] == full["question"] and [text for text, _ in listed] == full["scene"].split(", ")
            if row["solution"] != full["solution"]:
                short += 1
                parts = full["solution"].removeprefix("<think> ").split(", ")
                assert row["solution"] == f"<think> {', '.join(parts[len(listed) :])}"
        assert short / ROWS == pytest.approx(expected, abs=0.2)
    assert rows_of("train", cot_fraction=0.0, short_cot_fraction=1.0) == rows_of("train", cot_fraction=0.0)
    assert rows_of("test", short_cot_fraction=1.0) == rows["test"]


def words(text: str) -> str:
    return f" {text.replace('?', ' ').replace(',', ' ')} "


@pytest.mark.parametrize("name", SETS)
def test_who_is_trained_on_what(rows, name):
    """By the words of the texts, not by the functions that make them."""
    one = SETS[name]

    def names_it(text: str) -> bool:
        text = words(text)
        pairs = [f" {colour} {end}" for colour, shape in one.pairs for end in (shape, f"{shape}s", f"{shape}es")]
        return any(f"{word} " in text for word in (f" {one.colour}", f" {one.relation}", *pairs))

    drawn = sum(names_it(row["prompt"]) for row in rows["train"])
    asked = sum(names_it(f"{row['question']} {row['solution']}") for row in rows["train"])
    assert (drawn > 5) == (name == "only_drawn") and (drawn == 0) == (name != "only_drawn")
    assert (asked > 5) == (name == "only_asked") and (asked == 0) == (name != "only_asked")
    assert not any(names_it(f"{row['prompt']} {row['question']} {row['scene']}") for row in rows["test"])
    assert all(names_it(row["prompt"]) for row in rows[name])
    others = [other for other in SETS if other != name]
    for other in others:
        assert not any(names_it(f"{row['prompt']} {row['question']} {row['scene']}") for row in rows[other])


def test_validation_prompts_and_scenes_are_not_trained_on(rows):
    train = rows_of("train")
    for column in ("prompt", "scene"):
        assert not {row[column] for row in train} & {row[column] for row in rows["test"]}


def test_all_categories_and_kinds_occur(rows):
    assert set(Counter(row["category"] for row in rows["test"])) == set(prompts.CATEGORIES)
    assert set(Counter(row["kind"] for row in rows["test"])) == set(questions.KINDS)


def test_rows_depend_on_seed_split_and_index_alone():
    world = open_world("train", 3, {"world": "large"})
    first = world.row(7)
    world.row(3)
    again = open_world("train", 3, {"world": "large"}).row(7)
    assert {**first, "target": first["target"].tobytes(), "image": first["image"].tobytes()} == {
        **again,
        "target": again["target"].tobytes(),
        "image": again["image"].tobytes(),
    }
    assert first["prompt"] != open_world("train", 4, {"world": "large"}).row(7)["prompt"]


# --- questions, by hand


@pytest.fixture(scope="module")
def asked() -> dict[str, set[str]]:
    """Many open-ended questions about the scene SHOWN, with the answers that they were given."""
    rng, found = np.random.default_rng(0), defaultdict(set)
    for kind in questions.KINDS:
        for question in (questions.sample_question(rng, SHOWN, kind, 1.0) for _ in range(1500)):
            if question is not None:
                found[question[0].text].add(question[0].answer)
    return found


SHOWN = scene(
    "small red star", "", "large red circle", "", "", "large blue star", "small black heart", "", "small blue circle"
)  # a1, c1, b2, c2, a3


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("is there a red circle?", "yes"),
        ("is there a small red circle?", "no"),
        ("is there no triangle?", "yes"),
        ("is there no heart?", "no"),
        ("how many stars?", "two"),
        ("how many small things?", "three"),
        ("are there more stars than hearts?", "yes"),
        ("are there more hearts than circles?", "no"),
        ("what size is the heart?", "small"),
        ("what colour is the large circle?", "red"),
        ("is the red star left or right of the black heart?", "left"),
        ("is the red star above or below the blue circle?", "above"),
        ("is the red star in line with the blue circle?", "yes"),
        ("is the blue star next to the black heart?", "yes"),
        ("is the red star level with the blue circle?", "no"),
        ("what colour is the circle above the black heart?", "red"),
        ("what shape is the blue thing left of the black heart?", None),  # two of them
        ("what colour is the star left of the red circle and above the black heart?", "red"),
    ],
)
def test_answers(asked, text, answer):
    assert asked.get(text) == ({answer} if answer else None)


def test_sets_of():
    assert sets_of([("brown", None)]) == {"held_out"}
    assert sets_of([("red", "circle"), ("red", "square")]) == {"only_drawn", "only_asked"}
    assert sets_of([("red", "star"), (None, "circle")], ["left of"]) == set()
    assert sets_of([], iter(["next to", "above"])) == {"held_out"}


# --- options


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"world": "huge"}, "data.options.world='huge' is not a shapes world"),
        ({"world": "large", "cite_cells": True}, "unknown key 'cite_cells'"),
        ({"world": "large", "caption_fraction": 2.0}, "must be between 0 and 1"),
        ({"world": "large", "task": "edit"}, "task='edit'.*Did you mean 'edits'"),
        ({"world": "large", "max_objects": 9}, "max_objects=9 on a 4 x 4 grid"),
        ({"world": "large", "categories": "chains"}, "'chains'"),
        ({"world": "large", "grid": 2, "max_objects": 4}, "have no room there"),
        ({"world": "large", "max_objects": 3}, "have no room there"),
        ({"world": "large", "min_objects": "two"}, "is not an integer"),
        ({"world": "large", "hard_fraction": 2.0}, "must be between 0 and 1"),
    ],
)
def test_wrong_options(options, problem):
    with pytest.raises(ConfigError, match=problem):
        open_world("train", 0, options)


def test_the_smallest_board():
    world = open_world("train", 0, {"world": "large", "grid": 3, "max_objects": 4, "canvas": 48})
    for row in (world.row(index) for index in range(60)):
        assert verify_image(row["target"], row["spec"]).correct


def test_splits():
    assert evaluation_splits({}) == ("test", "held_out")
    assert evaluation_splits({"world": "large"}) == ("test", "only_drawn", "only_asked", "held_out")
    with pytest.raises(ConfigError, match="only_drawn"):
        open_world("validation", 0, {"world": "large"})
