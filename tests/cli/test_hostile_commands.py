"""Commands and errors show texts of users as texts: no control character, no markup."""

from __future__ import annotations

import json

import pytest
import yaml
from PIL import Image

from tests.cli.test_hostile_texts import assert_plain
from tests.runs import mapping, motet_command

EVIL = "\x1b[31m[red]a\u202e\x1b]8;;x\x9c\x9b<b>"
"""Colours, rich's markup, a right-to-left override, a link, HTML: legal in a file name too."""
SHOWN = "\\x1b[31m[red]a\\u202e\\x1b]8;;x\\x9c\\x9b<b>"
REWARD = """
import warnings

def taste(completions, **columns):
    warnings.warn("the reward says \\x1b[2J [red]x")
    return [float(n % 2) for n, _ in enumerate(completions)]

def broken(completions, **columns):
    raise ValueError("\\x1b[2J [red]x")
"""


@pytest.fixture
def hostile(tmp_path, tiny_checkpoint):
    """A recipe whose data, rewards, files and folders have hostile names and texts."""
    folder = tmp_path / f"folder {EVIL}"
    folder.mkdir()
    (folder / f"rewards{EVIL}.py").write_text(REWARD)
    Image.new("RGB", (16, 16), "red").save(folder / "image.png")
    row = {"image": "image.png", "question": f"what? {EVIL}", "answer": f"two {EVIL}", f"column {EVIL}": EVIL}
    for name in ("rows", "test"):
        (folder / f"{name}{EVIL}.jsonl").write_text("\n".join([json.dumps(row)] * 4))
    recipe = mapping(
        tiny_checkpoint,
        description=f"a recipe {EVIL}",
        scenario="answer",
        data={"source": str(folder / f"rows{EVIL}.jsonl"), "options": {}},
        rewards=[{"name": f"{folder / f'rewards{EVIL}.py'}:taste"}],
        algorithm={"advantage_assignment": "joint"},
        eval={"suite": {"name": "rewards", "data": str(folder / f"test{EVIL}.jsonl")}, "size": 2},
        run={"steps": 1, "prompts_per_step": 2, "log_samples_every": 1},
    )
    (folder / f"recipe{EVIL}.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the reward says")
def test_commands_show_texts_as_they_are(hostile, tiny_checkpoint, capsys):
    recipe, run = hostile / f"recipe{EVIL}.yaml", hostile / f"run{EVIL}"
    reward = f"{hostile / f'rewards{EVIL}.py'}:taste"
    commands = {
        "config": (("config", recipe), "[red]a"),
        "data": (("data", recipe, "--show", 2, "--out", hostile / f"data{EVIL}.png"), SHOWN),
        "train": (("train", recipe, "--output", run), SHOWN),
        "train again": (("train", recipe, "--output", run), SHOWN),
        "eval": (("eval", run, recipe), "[red]a"),
        "bench": (
            ("bench", "rewards", recipe, "rewards=[{name: exact_answer}, {name: format}]", "--rollouts", 2),
            "format",
        ),
        "reward": (("reward", "test", reward, "--text", EVIL), f"rewards{SHOWN}.py:taste"),
        "ask": (("ask", run, hostile / "image.png", EVIL, "--max-tokens", 4), ""),
        "sample": (("sample", run, EVIL, "--n", 1, "--out", hostile / f"out{EVIL}.png"), f"out{SHOWN}.png"),
    }
    for name, (arguments, expected) in commands.items():
        answer = motet_command(capsys, *arguments)
        assert_plain(answer)
        assert answer.code == (2 if name == "train again" else 0), (name, answer)
        shown = "".join((answer.out + answer.err).split("\n"))
        assert expected in shown.replace("\\\\", "\\"), (name, answer.out, answer.err)


def test_errors_show_texts_as_they_are(hostile, capsys):
    recipe, run = hostile / f"recipe{EVIL}.yaml", hostile / "run"
    for arguments in (
        ("train", hostile / f"none{EVIL}.yaml", "--output", run),
        ("train", recipe, f"rewards.0.name={EVIL}", "--output", run),
        ("train", recipe, f"{EVIL}=1", "--output", run),
        ("train", recipe, f"run.report_to={EVIL}", "--output", run),
        ("train", recipe, f"run.callbacks=[{{name: '{EVIL}'}}]", "--output", run),
        ("data", recipe, f"data.columns={{question: '{EVIL}'}}"),
        ("reward", "test", f"{hostile / f'rewards{EVIL}.py'}:broken", "--text", "x"),
        ("eval", f"no checkpoint {EVIL}"),
        (EVIL,),
        ("train", recipe, f"--{EVIL}"),
    ):
        answer = motet_command(capsys, *arguments)
        assert_plain(answer)
        assert answer.code == 2, (arguments, answer)
