"""`motet data`: rows, prompts as the policy reads them, pictures through the tokenizer, rewards of the gold."""

import json

import yaml
from PIL import Image

from motet.config import parse_recipe
from motet.evals.preview import preview
from motet.report.pictures import picture_grid
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


def test_rows_prompts_rewards_and_pictures(tiny_checkpoint, tmp_path, capsys):
    own = [f"{__file__}:{name}" for name in ("right", "never", "nowhere")]
    recipe = recipe_file(tmp_path, tiny_checkpoint, own)
    answer = motet_command(capsys, "data", recipe, "--show", 2, "--out", tmp_path / "shown.png")
    assert answer.code == 0, answer.err
    for words in (
        "Line 1 of rows.jsonl", "Line 2 of rows.jsonl", "image: picture, 20 x 20", 'question: "what is 1?"',
        "<image_placeholder> x 16", "what is 1?\\n", "<|User|>", "answer (gold, column answer): \"red\"",
        "rewards: right 1.000, never 0.000, nowhere does not apply", "right of the gold: 1.000 on average",
        "Warning: never gives no gold answer more than 0", "Warning: nowhere applies to none of these 2 rows",
        f"Pictures: {tmp_path / 'shown.png'}",
    ):  # fmt: skip
        assert words in answer.out, (words, answer.out)
    assert "Line 3" not in answer.out and "Warning: right" not in answer.out and "tokenizer" not in answer.out
    sheet = Image.open(tmp_path / "shown.png")
    assert sheet.size == picture_grid([Image.new("RGB", (9, 9))] * 4, [""] * 4, [None] * 4).size  # two beside two


def test_nothing_steers_the_terminal(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "a\x1b[2Jb\x9bc", "answer": "\x1b]0;x", "\x1b[1m": 1}))
    data = {"source": str(tmp_path / "rows.jsonl"), "options": {}}
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, scenario="answer", data=data, rewards=None)
    answer = motet_command(capsys, "data", recipe)
    assert answer.code == 0 and "\\x1b[1m: 1" in answer.out, answer.err
    assert not any((ord(one) < 32 and one != "\n") or 127 <= ord(one) < 160 for one in answer.out)


def test_pictures_that_cannot_be_written(tiny_checkpoint, tmp_path, capsys):
    recipe = recipe_file(tmp_path, tiny_checkpoint, [f"{__file__}:right"])
    answer = motet_command(capsys, "data", recipe, "--show", 1, "--out", tmp_path)
    assert answer.code == 2 and "--out" in answer.err and "is a folder" in answer.err and answer.out == ""


def test_what_has_no_gold_is_sampled(tiny_checkpoint):
    (track,) = preview(parse_recipe(mapping(tiny_checkpoint, data={"size": 3})), 2)
    (drawing, answer) = track.rows[0].acts
    assert (drawing.name, drawing.column, drawing.text) == ("drawing", None, None)
    assert answer.column == "solution" and answer.text == track.rows[0].columns["solution"]
    assert set(track.rows[0].rewards) == {"reddish", "spacious"} and track.draws and track.reconstruction is not None
    assert "motet" not in "".join(track.rows[0].columns)  # rewards see the row as a run shows it


def test_targets_are_the_gold(tiny_checkpoint):
    data = {"size": 3, "targets": {"drawing": "target", "answer": "solution"}}
    (track,) = preview(parse_recipe(mapping(tiny_checkpoint, data=data, rewards=None)), 8)
    assert len(track.rows) == 3 and [act.column for act in track.rows[2].acts] == ["target", "solution"]
    assert track.rows[0].rewards == {}


def test_a_drawing_is_warned_of(tiny_checkpoint, tmp_path, capsys):
    """The tiny checkpoint's tokenizer has learned nothing."""
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint)
    answer = motet_command(capsys, "data", recipe, "--show", 1, "--out", tmp_path / "x.png")
    assert answer.code == 0 and "Warning: the frozen image tokenizer loses" in answer.out


def test_a_model_without_an_image_tokenizer(tmp_path, capsys):
    recipe = recipe_file(tmp_path, save_tiny(tmp_path / "vlm", "qwen2_5_vl"), [f"{__file__}:right"])
    answer = motet_command(capsys, "data", recipe, "--out", tmp_path / "x.png")
    assert answer.code == 0 and "<|image_pad|>" in answer.out and "what is 2?" in answer.out, answer.err
    assert (
        Image.open(tmp_path / "x.png").size == picture_grid([Image.new("RGB", (9, 9))] * 3, [""] * 3, [None] * 3).size
    )


def test_a_stage_of_a_plan_and_what_is_wrong(tiny_checkpoint, tmp_path, capsys):
    shared = mapping(tiny_checkpoint, data={"targets": {"drawing": "target", "answer": "solution"}})
    stages = {"a": {"kind": "sft"}, "b": {"from": "a"}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"shared": shared, "stages": stages}, sort_keys=False))
    unnamed = motet_command(capsys, "data", tmp_path / "plan.yaml")
    assert unnamed.code == 2 and "--stage a" in unnamed.err
    out = ["--out", tmp_path / "x.png"]
    assert motet_command(capsys, "data", tmp_path / "plan.yaml", "--stage", "a", "--show", 1, *out).code == 0
    recipe = recipe_file(tmp_path, tiny_checkpoint, [f"{REWARDS}spacious"])
    wrong = motet_command(capsys, "data", recipe, "data.columns.question=qestion", *out, "--overwrite")
    assert wrong.code == 2 and "no column" in wrong.err
