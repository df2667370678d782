"""The suite geneval: its file, its table, the folder for the original evaluator, and a run of it in training."""

import json
import re

import pytest
from PIL import Image

from motet.core.errors import ConfigError, DataError
from motet.evaluation.image_benchmarks import geneval
from motet.evaluation.image_benchmarks.geneval import GenEvalOptions, GenEvalSuite
from motet.rewards.image.gen_eval import GenEvalResult
from motet.testing import FakePolicy
from tests.api.test_train import train
from tests.rewards.image.test_gen_eval import save_detector
from tests.rewards.judges import save_clip
from tests.runs import motet_command

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
ROWS = [
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"},
    {"tag": "two_object", "include": [{"class": name, "count": 1} for name in ("dog", "cat")], "prompt": "both"},
    {
        "tag": "counting", "include": [{"class": "dog", "count": 2}], "exclude": [{"class": "dog", "count": 3}],
        "prompt": "two dogs",
    },
    {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}], "prompt": "a red dog"},
    {
        "tag": "position", "prompt": "a cat left of a dog",
        "include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}],
    },
    {"tag": "color_attr", "include": [{"class": "cat", "count": 1, "color": "blue"}], "prompt": "a blue cat"},
]  # fmt: skip


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "evaluation_metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(tmp_path / "evaluation_metadata.jsonl")


@pytest.fixture
def by_prompt(monkeypatch):
    """Instead of the models: correct by the prompt's task and the image's number."""
    scores = {"single_object": [1, 1], "counting": [1, 0], "color_attr": [0, 1], "position": [0, 0]}

    class Scripted:
        @classmethod
        def open(cls, path, device, **settings):
            return cls()

    def evaluate(images, asked, detector, clip, thresholds):
        assert (thresholds.general, thresholds.counting) == (0.3, 0.9)
        tasks = {json.dumps(row["include"]): row["tag"] for row in ROWS}
        seen, results = dict.fromkeys(TAGS, 0), []
        for spec in asked:
            tag = tasks[json.dumps(spec.include)]
            assert spec.counting == (tag == "counting") and bool(spec.exclude) == (tag == "counting")
            results.append(GenEvalResult(float(scores.get(tag, [1, 1])[seen[tag]]), 0.0, 0.0, {"dog": 1}))
            seen[tag] += 1
        return results

    monkeypatch.setattr(geneval, "Detector", Scripted)
    monkeypatch.setattr(geneval, "Clip", Scripted)
    monkeypatch.setattr(geneval, "evaluate_images", evaluate)


def test_motet_eval_writes_a_table_and_the_folder_of_the_original(
    tiny_checkpoint, capsys, tmp_path, prompts, by_prompt
):
    out = tmp_path / "out"
    arguments = ["--suite", "geneval", "--option", f"prompts={prompts}", "--samples", 2, "--output", out]
    answer = motet_command(capsys, "eval", tiny_checkpoint, *arguments)
    assert answer.code == 0, answer.err
    table = json.loads((out / "results.json").read_text())["suites"]["geneval"]["table"]
    means = {name: group["mean"] for name, group in table["groups"].items()}
    assert means == {
        "single_object": 1.0, "two_object": 1.0, "counting": 0.5, "colors": 1.0, "position": 0.0, "color_attr": 0.5,
    }  # fmt: skip
    assert table["overall"]["mean"] == pytest.approx(4 / 6) and table["prompts"] == [0, 1, 2, 3, 4, 5]
    assert "overall" in answer.out and "0.667" in answer.out
    folders = sorted(path.name for path in (out / "geneval").iterdir() if path.is_dir())
    assert folders == [f"{n:05}" for n in range(6)]
    for number, row in enumerate(ROWS):  # what evaluate_images.py of djghosh13/geneval does with the folder
        folder = out / "geneval" / f"{number:05}"
        with open(folder / "metadata.jsonl") as file:
            assert json.load(file) == row
        names = sorted(path.name for path in (folder / "samples").iterdir())
        assert names == ["0000.png", "0001.png"] and all(re.match(r"\d+\.png", name) for name in names)
        assert Image.open(folder / "grid.png").size == (32, 16)
    lines = [json.loads(line) for line in (out / "geneval" / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 12 and {line["tag"] for line in lines} == set(TAGS)
    counting = [line["score"] for line in sorted(lines, key=lambda one: one["image"]) if line["tag"] == "counting"]
    assert counting == [1, 0]


def test_the_images_of_prompts_do_not_depend_on_how_many_are_evaluated(
    tiny_checkpoint, capsys, tmp_path, prompts, by_prompt
):
    for name, more in (("all", []), ("few", ["--size", 2])):
        arguments = [
            "--suite",
            "geneval",
            "--option",
            f"prompts={prompts}",
            "--samples",
            2,
            "--output",
            tmp_path / name,
        ]
        assert motet_command(capsys, "eval", tiny_checkpoint, *arguments, *more).code == 0
    few = [path for path in (tmp_path / "few" / "geneval").iterdir() if path.is_dir()]
    assert len(few) == 2
    for folder in few:
        same = tmp_path / "all" / "geneval" / folder.name / "samples" / "0001.png"
        assert same.read_bytes() == (folder / "samples" / "0001.png").read_bytes()


def test_a_recipe_evaluates_it_before_after_and_while_it_trains(tiny_checkpoint, tmp_path, prompts, by_prompt):
    suite = {"name": "geneval", "prompts": prompts}
    result = train(
        tiny_checkpoint, tmp_path / "run", eval={"suite": suite, "every": 1, "size": 4, "samples_per_item": 2}
    )
    assert result.before is not None and result.after is not None
    assert result.before["prompts"] == result.after["prompts"] and len(result.before["prompts"]) == 4
    assert all(0 <= line["eval/geneval"] <= 1 for line in result.metrics)
    assert (tmp_path / "run" / "before.png").is_file()


def test_the_models_of_the_suite_are_those_of_the_reward(tmp_path, prompts):
    detector, clip = save_detector(tmp_path / "detector"), save_clip(tmp_path / "clip")
    options = GenEvalOptions(prompts=prompts, detector=str(detector), clip=str(clip))
    suite = GenEvalSuite()
    read = suite.read(options)
    score = suite.open(options, FakePolicy())
    image = Image.new("RGB", (40, 30), "red")
    scores = score(read[:2], [[image, image], [image, image]])
    assert [[one.value for one in own] for own in scores] == [[0.0, 0.0], [0.0, 0.0]]  # random weights see nothing
    assert scores[1][0].groups == {"two_object": [0.0]}
    assert suite.weights(read) == dict.fromkeys(TAGS, 1 / 6)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROWS[0], "include": [{"class": "unicorn", "count": 1}]}, "Line 1 of m.jsonl: The clause .* is not a valid"),
        ({**ROWS[0], "include": []}, "Line 1 of m.jsonl has no include clause"),
        ({**ROWS[0], "prompt": " "}, "Line 1 of m.jsonl: prompt is ' ', expected a text"),
        ({**ROWS[0], "tag": None}, "Line 1 of m.jsonl: tag is None"),
        ({"prompt": "x"}, r"eval.suite.prompts=.*tag"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path, row, message):
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises((DataError, ConfigError), match=message):
        GenEvalSuite().read(GenEvalOptions(prompts=str(tmp_path / "m.jsonl")))


def test_its_options_are_validated_with_the_recipe(tiny_checkpoint, capsys, prompts):
    missing = motet_command(capsys, "eval", tiny_checkpoint, "--suite", "geneval")
    assert missing.code == 2 and "eval.suite.prompts" in missing.err
    wrong = motet_command(capsys, "eval", tiny_checkpoint, "--suite", "geneval", "--option", "detecter=x")
    assert wrong.code == 2 and "eval.suite.detecter" in wrong.err
    with pytest.raises(ConfigError, match=r"eval.suite=geneval needs images"):
        GenEvalSuite().check(FakePolicy(kinds=("text",)))
