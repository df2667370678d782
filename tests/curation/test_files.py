"""`motet curate` from files to files, and what it rejects."""

import json

import datasets
import pytest
from PIL import Image

from motet.config import DataConfig
from motet.core.errors import ConfigError, DataError
from motet.curation import read_captions, read_questions, write_rows
from motet.data import open_rows
from tests.runs import motet_command

QUESTIONS = [
    {"image_id": 9, "question": "What is it?", "answer": "a bus", "cls_solution": "<answer>bus</answer>"},
    {"image_id": 9, "question": "Which?", "answer": "B", "choices": ["a cat", "a dog"]},
    {"image_id": 10, "question": "How many?", "answer": 4},
]
CAPTIONS = [
    {"image_id": 9, "caption": "a dog "},
    {"image_id": 9, "caption": "a bus"},
    {"image_id": 9, "caption": "a dog"},
    {"image_id": 10, "caption": "two cats"},
]
COLUMNS = {"image": "real_image", "question": "qa_problem", "answer": "qa_solution"}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return lines(tmp_path / "questions.jsonl", QUESTIONS), lines(tmp_path / "captions.jsonl", CAPTIONS)


@pytest.fixture
def images(tmp_path):
    (tmp_path / "coco").mkdir()
    for number, colour in ((9, "red"), (10, "blue")):
        Image.new("RGB", (5, 4), colour).save(tmp_path / "coco" / f"{number:012}.png")
    return str(tmp_path / "coco" / "{image:0>12}.png")


def test_questions_and_captions(files, tmp_path):
    first, second, third = read_questions(files[0])
    assert (first.image, first.text, first.solution, first.options) == ("9", "What is it?", "a bus", ())
    assert first.extra_columns == {"cls_solution": "<answer>bus</answer>"} and first.target_entities is None
    assert (
        second.options == ("a cat", "a dog")
        and third.solution == "4"
        and third.source_location == "Line 3 of questions.jsonl"
    )
    assert read_captions(files[1]) == {"9": ["a dog", "a bus"], "10": ["two cats"]}
    lists = lines(tmp_path / "lists.jsonl", [{"image": "9", "captions": ["a", "b"]}, {"image": "9", "captions": ["c"]}])
    assert read_captions(lists) == {"9": ["a", "b", "c"]}


def test_cocos_own_file(files, tmp_path):
    images = [{"id": 9, "file_name": "000000000009.jpg"}]
    coco = tmp_path / "captions_train2017.json"
    coco.write_text(json.dumps({"info": {}, "images": images, "annotations": CAPTIONS}))
    assert read_captions(coco) == read_captions(files[1])
    coco.write_text(json.dumps({"images": images, "annotations": [{"image_id": 9, "caption": ""}]}))
    with pytest.raises(
        DataError, match=r"Annotation 0 of captions_train2017.json, column 'caption', contains '', expected a text"
    ):
        read_captions(coco)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_what_it_writes_is_read_back_as_data(files, images, tmp_path, capsys, suffix):
    out = tmp_path / "new" / f"rows.{suffix}"
    answer = motet_command(capsys, "curate", *files, "--out", out, "--images", images)
    assert answer.code == 0, answer.err
    rows = open_rows(DataConfig(source=str(out), columns=COLUMNS), ("prompt", "question", "image"))
    first, second, third = (rows.row(n) for n in range(3))
    assert [row["prompt"] for row in (first, second, third)] == ["a bus", "a dog", "two cats"]
    assert [row["qa_type"] for row in (first, second, third)] == ["OE", "MC", "OE"]
    assert [row["concept_coverage"] for row in (first, second, third)] == [1, 1, None]
    assert first["cls_solution"] == "<answer>bus</answer>" and second["cls_solution"] is None
    assert first["image"].getpixel((0, 0)) == (255, 0, 0) and third["image"].getpixel((0, 0)) == (0, 0, 255)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    if suffix == "parquet":
        assert isinstance(datasets.Dataset.from_parquet(str(out)).features["real_image"], datasets.Image)
    else:
        assert json.loads(out.read_text().splitlines()[0])["real_image"] == "../coco/000000000009.png"


def test_it_says_what_it_did(files, tmp_path, capsys):
    more = [
        {"image": 11, "question": "What is it?", "solution": "a bus"},
        QUESTIONS[0],
        {**QUESTIONS[0], "answer": "sky"},
    ]
    asked = [{"image": q["image_id"], "question": q["question"], "solution": q["answer"]} for q in QUESTIONS[:1]]
    asked += [more[0], asked[0], {**asked[0], "solution": "the sky"}, {**asked[0], "solution": "yes"}]
    questions = lines(tmp_path / "mine.jsonl", asked)
    said = motet_command(
        capsys, "curate", questions, files[1], "--out", tmp_path / "o.jsonl", "--min-coverage", 0.5
    ).out
    for words in (
        "rows",
        "2",
        "1.000",
        "1 below --min-coverage",
        "1 duplicates",
        "1 whose image has no caption",
    ):
        assert words in said
    assert "1, kept, coverage null" in said and "First without a caption: Line 2 of mine.jsonl, image '11'." in said
    assert [json.loads(line)["real_image"] for line in (tmp_path / "o.jsonl").read_text().splitlines()] == ["9", "9"]
    dropped = motet_command(
        capsys, "curate", questions, files[1], "--out", tmp_path / "d.jsonl", "--drop-without-entities"
    )
    assert "1, left out" in dropped.out and len((tmp_path / "d.jsonl").read_text().splitlines()) == 2


def test_invalid_arguments_raise(files, images, tmp_path, capsys):
    def refused(*arguments, out="x.jsonl"):
        answer = motet_command(capsys, "curate", *arguments, "--out", tmp_path / out)
        assert answer.code == 2 and not (tmp_path / out).exists() and not list(tmp_path.glob(".partial*"))
        return answer.err

    questions, captions = files
    assert "has an unknown file type" in refused(questions, captions, out="x.csv")
    assert "There is no file" in refused(tmp_path / "none.jsonl", captions)
    assert "questions.jsonl has no column caption or captions; it has: image_id" in refused(questions, questions)
    assert "captions.jsonl has no column question" in refused(captions, captions)
    assert "000000000010.png' does not exist" in refused(
        questions, captions, "--images", images.replace("{image:0>12}", "000000000010").replace("coco", "nowhere")
    )
    assert "is not a path with {image}" in refused(questions, captions, "--images", "{picture}.jpg")
    only = lines(tmp_path / "only.jsonl", [{"image": 9, "question": "What?", "solution": "the sky"}])
    assert "No row is left" in refused(only, captions, "--min-coverage", 1)
    strangers = lines(tmp_path / "strangers.jsonl", [{"image": "COCO_9", "question": "What?", "solution": "sky"}])
    assert "questions name 'COCO_9', captions '9'" in refused(strangers, captions)


def test_an_output_that_exists_is_kept(files, tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text("mine")
    answer = motet_command(capsys, "curate", *files, "--out", tmp_path / "x.jsonl")
    assert answer.code == 2 and "exists" in answer.err and (tmp_path / "x.jsonl").read_text() == "mine"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image": None, "question": "a", "solution": "b"}, "Line 1 of q.jsonl, column 'image', contains None"),
        ({"image": True, "question": "a", "solution": "b"}, "column 'image', contains True"),
        ({"image": 1, "question": " ", "solution": "b"}, "column 'question', contains ' '"),
        (
            {"image": 1, "question": "a", "solution": ["b"]},
            "column 'solution', contains .'b'., expected a text",
        ),
        (
            {"image": 1, "question": "a", "solution": "b", "options": "c"},
            "column 'options', contains 'c', expected",
        ),
        (
            {"image": 1, "question": "a", "solution": "b", "entities": [None]},
            "column 'entities', contains .None., expected",
        ),
    ],
)
def test_bad_questions_are_named(tmp_path, row, words):
    with pytest.raises(DataError, match=words):
        read_questions(lines(tmp_path / "q.jsonl", [row]))


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    rows = [
        {"real_image": "1", "concept_coverage": None, "x": 1},
        {"real_image": "2", "concept_coverage": 1.0, "x": "a"},
    ]
    with pytest.raises(DataError, match=r"x.parquet' cannot be written"):
        write_rows(rows, tmp_path / "x.parquet")
    rows[1]["x"] = {1, 2}  # the first row is already in the file when this one fails
    with pytest.raises(DataError, match=r"x.jsonl' cannot be written: TypeError"):
        write_rows(rows, tmp_path / "x.jsonl")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="unknown file type"):
        write_rows(rows, tmp_path / "x.txt")
