"""docs/how-to/first-own-run.md as it is written, in an empty folder beside the clone, with few steps and small data."""

import json
import re
import shlex

from PIL import Image

from tests.docs.test_own_case import ROOT, blocks, commands
from tests.runs import metrics, motet_command

PAGE = "first-own-run"
COLOURS = ("red", "green", "blue", "black")
FEWER = {
    "data": ["--show", "2"],
    "eval": ["eval.size=3", "eval.samples_per_item=1"],
    "sft": ["eval.size=3", "eval.samples_per_item=1", "eval.every=2", "run.steps=2", "run.prompts_per_step=2"],
    "train": ["eval.size=3", "eval.samples_per_item=1", "eval.every=1", "run.steps=1", "run.prompts_per_step=1"],
}


def make_folder(folder):
    """The files that the page asks for: its columns, its reward and its recipe."""
    (folder / "images").mkdir(parents=True)
    (example,) = re.findall(r"\{.*\}", "".join(blocks(PAGE, "")))
    assert set(json.loads(example)) == {"image", "question", "answer"}
    for split, count in (("train", 8), ("test", 4)):
        rows = []
        for number in range(count):
            colour = COLOURS[number % 4]
            Image.new("RGB", (64, 64), colour).save(folder / "images" / f"{split}{number}.png")
            row = {"image": f"images/{split}{number}.png", "question": "what color is it?", "answer": colour}
            rows.append(json.dumps(row) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(rows))
    for name, language in (("reward.py", "python"), ("recipe.yaml", "yaml")):
        (content,) = blocks(PAGE, language)
        (folder / name).write_text(content)


def test_the_page_is_short():
    (recipe,) = blocks(PAGE, "yaml")
    assert len(recipe.splitlines()) <= 20
    assert [words[1] for words in commands(PAGE)] == ["data", "eval", "sft", "train", "eval"]


def test_every_command_of_the_page_runs(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "own"
    make_folder(folder)
    (tmp_path / "motet").symlink_to(ROOT)
    monkeypatch.chdir(folder)
    for words in commands(PAGE):
        written = [word for word in words[1:] if word.partition("=")[0] not in _keys(FEWER[words[1]])]
        answer = motet_command(capsys, *written, *FEWER[words[1]])
        assert answer.code == 0, (shlex.join(words), answer.err)
        if words[1] == "data":
            assert "right of the gold: 1.000 on average" in answer.out and "Warning" not in answer.out
        if words[1] in ("sft", "train"):
            assert f"Try next: motet ask {words[4]} image.png" in answer.out  # no images
    for run, steps in (("sft", 2), ("rl", 1)):
        summary = json.loads((folder / run / "summary.json").read_text())
        assert {"before", "after"} <= summary.keys() and summary["steps"] == steps
        assert len(metrics(folder / run)) == steps
    assert (folder / "data.png").is_file()


def _keys(changes):
    return {change.partition("=")[0] for change in changes if "=" in change}
