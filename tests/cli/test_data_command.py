"""`motet data`: rows, tokenised prompts, images after the image tokenizer, rewards of gold answers."""

import json
import math

import pytest
import yaml
from PIL import Image

from motet.config import parse_recipe
from motet.core.errors import DataError
from motet.evaluation.data_preview import preview
from motet.report.image_grid import make_image_grid
from motet.scenarios import GenerateText, scenario
from tests.policies.vlms import save_tiny
from tests.runs import REWARDS, mapping, motet_command, write_recipe


def folder_of_rows(tmp_path, count=3):
    lines = []
    for number in range(count):
        Image.new("RGB", (20 + number, 20), "red").save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "question": f"what is {number}?", "answer": ["red", "rot"]}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "rows.jsonl")


def recipe_file(tmp_path, checkpoint, rewards, **changes):
    data = {"source": folder_of_rows(tmp_path), "options": {}}
    return write_recipe(
        tmp_path / "recipe.yaml",
        checkpoint,
        scenario="answer",
        data=data,
        rewards=[{"name": r} for r in rewards],
        **changes,
    )


def right(completions, answer):
    return [float(chat[0]["content"] in gold) for chat, gold in zip(completions, answer, strict=True)]


def never(completions):
    return [0.0 for _ in completions]


def nowhere(completions):
    return [None for _ in completions]


def test_rows_prompts_rewards_and_images(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    captions: list[str] = []
    monkeypatch.setattr(
        "motet.report.image_grid.make_image_grid",
        lambda images, own, frames: captions.extend(own) or make_image_grid(images, own, frames),
    )
    own = [f"{__file__}:{name}" for name in ("right", "never", "nowhere")]
    recipe = recipe_file(tmp_path, tiny_checkpoint, own)
    answer = motet_command(capsys, "data", recipe, "--show", 2, "--out", tmp_path / "shown.png")
    assert answer.code == 0, answer.err
    for text in (
        "Line 1 of rows.jsonl", "Line 2 of rows.jsonl", "image: image, 20 x 20", 'question: "what is 1?"',
        "<image_placeholder> x 16", "what is 1?\\n", "<|User|>", "answer (gold, column answer): \"red\"",
        "rewards: right 1.000, never 0.000, nowhere does not apply", "right of the gold: 1.000 on average",
        "Warning: never is 0 or less for every gold answer", "Warning: nowhere does not apply to any of these 2 rows",
        f"Images: {tmp_path / 'shown.png'}",
    ):  # fmt: skip
        assert text in answer.out, (text, answer.out)
    assert "Line 3" not in answer.out and "Warning: right" not in answer.out and "tokenizer" not in answer.out
    assert captions == ["data: Line 1 of rows.jsonl", "data: Line 2 of rows.jsonl"]
    grid = Image.open(tmp_path / "shown.png")
    # Questions do not use the image tokenizer.
    assert grid.size == make_image_grid([Image.new("RGB", (9, 9))] * 2, [""] * 2, [None] * 2).size


def test_control_characters_are_escaped(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "a\x1b[2Jb\x9bc", "answer": "\x1b]0;x", "\x1b[1m": 1}))
    data = {"source": str(tmp_path / "rows.jsonl"), "options": {}}
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, scenario="answer", data=data, rewards=None)
    answer = motet_command(capsys, "data", recipe)
    assert answer.code == 0 and "\\x1b[1m: 1" in answer.out, answer.err
    assert not any((ord(one) < 32 and one != "\n") or 127 <= ord(one) < 160 for one in answer.out)


def test_images_that_cannot_be_written(tiny_checkpoint, tmp_path, capsys):
    recipe = recipe_file(tmp_path, tiny_checkpoint, [f"{__file__}:right"])
    answer = motet_command(capsys, "data", recipe, "--show", 1, "--out", tmp_path)
    assert answer.code == 2 and "--out" in answer.err and "is a folder" in answer.err and answer.out == ""


def test_acts_without_gold_are_sampled(tiny_checkpoint):
    (track,) = preview(parse_recipe(mapping(tiny_checkpoint, data={"size": 3})), 2)
    (image, answer) = track.rows[0].acts
    assert (image.name, image.column, image.text) == ("image", None, None)
    assert image.sampled is not None and image.sampled is not track.images[0]
    assert answer.column == "solution" and answer.text == track.rows[0].columns["solution"] and answer.sampled is None
    assert (
        set(track.rows[0].rewards) == {"reddish", "spacious"}
        and track.generates_images
        and track.reconstruction is not None
    )
    assert "motet" not in "".join(track.rows[0].columns)  # rewards see the row as a run shows it


def test_targets_are_the_gold(tiny_checkpoint):
    data = {"size": 3, "targets": {"image": "target", "answer": "solution"}}
    (track,) = preview(parse_recipe(mapping(tiny_checkpoint, data=data, rewards=None)), 8)
    assert len(track.rows) == 3 and [act.column for act in track.rows[2].acts] == ["target", "solution"]
    assert track.rows[0].rewards == {}


def test_a_poor_image_tokenizer_causes_a_warning(tiny_checkpoint, tmp_path, capsys):
    """The image tokenizer of the tiny checkpoint is random."""
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint)
    answer = motet_command(capsys, "data", recipe, "--show", 1, "--out", tmp_path / "x.png")
    assert answer.code == 0 and "Warning: the frozen image tokenizer loses" in answer.out
    assert "image (sampled: data.targets names no gold for image): an image" in answer.out
    images = [Image.new("RGB", (9, 9))] * 5  # two of the data with their reconstructions, and the sampled one
    assert Image.open(tmp_path / "x.png").size == make_image_grid(images, [""] * 5, [None] * 5).size


def test_a_model_without_an_image_tokenizer(tmp_path, capsys):
    recipe = recipe_file(tmp_path, save_tiny(tmp_path / "vlm", "qwen2_5_vl"), [f"{__file__}:right"])
    answer = motet_command(capsys, "data", recipe, "--out", tmp_path / "x.png")
    assert answer.code == 0 and "<|image_pad|>" in answer.out and "what is 2?" in answer.out, answer.err
    assert (
        Image.open(tmp_path / "x.png").size
        == make_image_grid([Image.new("RGB", (9, 9))] * 3, [""] * 3, [None] * 3).size
    )


def test_stages_and_errors(tiny_checkpoint, tmp_path, capsys):
    shared = mapping(tiny_checkpoint, data={"targets": {"image": "target", "answer": "solution"}})
    stages = {"a": {"kind": "sft"}, "b": {"init_from": "a"}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"shared": shared, "stages": stages}, sort_keys=False))
    unnamed = motet_command(capsys, "data", tmp_path / "plan.yaml")
    assert unnamed.code == 2 and "--stage a" in unnamed.err
    out = ["--out", tmp_path / "x.png"]
    assert motet_command(capsys, "data", tmp_path / "plan.yaml", "--stage", "a", "--show", 1, *out).code == 0
    recipe = recipe_file(tmp_path, tiny_checkpoint, [f"{REWARDS}spacious"])
    wrong = motet_command(capsys, "data", recipe, "data.columns.question=qestion", *out, "--overwrite")
    assert wrong.code == 2 and "is not a column" in wrong.err


def shown(tmp_path, checkpoint, rows, scenario="answer", rewards=("never",), **data):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"source": str(tmp_path / "rows.jsonl"), "options": {}, **data}
    named = [{"name": name if name in ("open_ended",) else f"{__file__}:{name}"} for name in rewards]
    (track,) = preview(parse_recipe(mapping(checkpoint, scenario=scenario, data=data, rewards=named)), 8)
    return track.rows


def test_an_answer_is_not_the_gold_of_a_thought(tiny_checkpoint, tmp_path):
    (row,) = shown(tmp_path, tiny_checkpoint, [{"prompt": "a red dog", "answer": "red"}], "think_then_generate")
    assert [(act.name, act.column) for act in row.acts] == [("thought", None), ("image", None)]
    assert row.acts[0].text != "red"


def test_the_only_text_of_a_scenario_with_a_question_is_its_answer(tiny_checkpoint, tmp_path):
    (row,) = shown(tmp_path, tiny_checkpoint, [{"question": "what?", "answer": "red"}], f"{__file__}:reply")
    assert [(act.name, act.text, act.column) for act in row.acts] == [("reply", "red", "answer")]


@scenario("reply", acts={"reply": "text"}, columns=("question",))
def reply(task):
    yield GenerateText(task.question, name="reply")


def test_invalid_answers_are_not_used_as_gold(tiny_checkpoint, tmp_path):
    golds = ["red", None, [], True, ["rot", "red"], 4]
    rows = shown(tmp_path, tiny_checkpoint, [{"question": "what?", "answer": gold} for gold in golds])
    assert [row.acts[0].column is not None for row in rows] == [True, False, False, False, True, True]
    assert [rows[n].acts[0].text for n in (0, 4, 5)] == ["red", "rot", "4"]
    assert not {row.acts[0].text for row in rows[1:4]} & {"None", "[]", "True"}


def test_wrong_golds_and_targets_raise_as_in_a_run(tiny_checkpoint, tmp_path):
    rows = [{"question": "what?", "answer": gold, "words": ["a"]} for gold in ("red", True)]
    with pytest.raises(DataError, match=r"Line 2 of rows.jsonl: The column `answer` holds a bool"):
        shown(tmp_path, tiny_checkpoint, rows, rewards=["open_ended"])
    with pytest.raises(DataError, match=r"column 'words', contains \['a'\]"):
        shown(tmp_path, tiny_checkpoint, rows, targets={"answer": "words"})


def not_red(completions):
    return [math.nan if chat[0]["content"] == "red" else 1.0 for chat in completions]


def test_rows_that_a_run_would_drop_show_the_reason(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"question": "?", "answer": "red"}\n{"question": "?", "answer": "blue"}\n')
    data = {"source": str(tmp_path / "rows.jsonl"), "options": {}}
    own = [{"name": f"{__file__}:not_red"}]
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, scenario="answer", data=data, rewards=own)
    answer = motet_command(capsys, "data", recipe)
    assert answer.code == 0 and answer.out.count("dropped: ") == 1, answer.err
    assert "dropped: reward 'not_red' returned nan" in answer.out
