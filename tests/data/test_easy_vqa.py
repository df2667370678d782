"""The source easy_vqa: the package's own splits, captions from the questions, columns for every scenario."""

import sys

import pytest

from motet.config import DataConfig
from motet.core.errors import ConfigError
from motet.core.registry import registry
from motet.data import easy_vqa as source
from motet.data import open_rows

pytest.importorskip("easy_vqa")


def rows(split="test", **options):
    return open_rows(DataConfig(source="easy_vqa", split=split, options=options), check=False)


@pytest.mark.parametrize(("split", "questions", "captions"), [("train", 38575, 3542), ("test", 9673, 880)])
def test_the_splits_are_those_of_the_package(split, questions, captions):
    assert len(rows(split, task="questions")) == questions
    assert len(rows(split, task="captions")) == captions
    both = rows(split)
    assert captions < len(both) < questions


@pytest.mark.parametrize("name", ["answer", "text_to_image", "generate_and_answer"])
def test_a_row_serves_every_scenario(name):
    config = DataConfig(source="easy_vqa", split="test", targets={"image": "target", "answer": "solution"})
    columns = registry("scenario").get(name).columns
    opened = open_rows(config, columns, image_columns=("target",), check=False)
    row = opened.task(7).columns
    assert row["image"].size == row["target"].size == (64, 64) and row["image"].mode == "RGB"
    assert row["colour"] in row["prompt"] and row["shape"] in row["prompt"]


def test_captions_are_what_questions_and_answers_name():
    questions = [
        ("what color is the shape?", "red", 1),
        ("is there not a circle?", "no", 1),
        ("is there a blue shape?", "no", 1),
        ("is no triangle present?", "yes", 2),
        ("what is the teal shape?", "rectangle", 2),
        ("what color is the shape?", "red", 3),
        ("is there a blue shape?", "yes", 4),
        ("does the image contain a triangle?", "yes", 4),
    ]
    assert source.captions_of(questions) == {1: ("red", "circle"), 2: ("teal", "rectangle"), 4: ("blue", "triangle")}


def test_no_image_has_two_captions():
    split = source._read_split("test")
    for question, answer, image in split.questions:
        colour, shape = split.captions.get(image, (answer, answer))
        kind = source.question_kind(question, answer)
        assert kind in ("presence", "absence") or answer == (colour if kind == "colour" else shape)


def test_solutions():
    opened = rows(cot_fraction=0.3)
    solutions = [opened.row(i)["solution"] for i in range(400)]
    thoughts = [text for text in solutions if text.startswith("<think>")]
    assert 90 < len(thoughts) < 150
    row = opened.row(next(i for i, text in enumerate(solutions) if text in thoughts))
    thought = f"<think> a {row['colour']} {row['shape']}, so {row['answer']}</think>"
    assert row["solution"] == f"{thought}<answer> {row['answer']}</answer>"
    assert all(rows(task="questions", cot_fraction=0).row(i)["solution"].startswith("<answer>") for i in range(9))


def test_question_kinds():
    kinds = {"presence": 0, "absence": 0, "shape": 0, "colour": 0}
    for _, row in rows(task="questions").texts():
        kinds[row["kind"]] += 1
    assert kinds["presence"] + kinds["absence"] == 7136  # as the data set's page says


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"split": "validation"}, "data.split='validation' is not a split of easy_vqa"),
        ({"options": {"tsk": "both"}}, "unknown key 'tsk'. Did you mean 'task'"),
        ({"options": {"task": "drawing"}}, "data.options.task='drawing' is unknown"),
        ({"options": {"cot_fraction": 2}}, "data.options.cot_fraction=2 is not a number from 0 to 1"),
        ({"options": {"cot_fraction": True}}, "data.options.cot_fraction=True is not a number"),
    ],
)
def test_invalid_settings(config, problem):
    with pytest.raises(ConfigError, match=problem):
        open_rows(DataConfig(source="easy_vqa", **config))


def test_a_missing_package_is_one_line(monkeypatch):
    source._read_split.cache_clear()
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(ConfigError, match=r"needs the package easy-vqa. Fix: pip install 'motet\[easyvqa\]'"):
        rows()
    source._read_split.cache_clear()
