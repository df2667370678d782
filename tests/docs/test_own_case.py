"""A user's own data, rewards and scenario: every command of docs/how-to, and every line of code there, as written."""

import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.runs import metrics, motet_command

ROOT = Path(__file__).parent.parent.parent
HOW_TO = ROOT / "docs" / "how-to"
PAGES = ("own-data", "own-reward", "own-scenario")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (HOW_TO / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The commands of a page, split as a shell does it."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


@pytest.fixture
def checkout(tiny_checkpoint, tmp_path, monkeypatch):
    """A folder like the repository's root, in which the shipped checkpoint is a tiny one."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "shapes_janus").symlink_to(tiny_checkpoint)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_runs(page, checkout, capsys, monkeypatch):
    asked = commands(page)
    assert [words[0] for words in asked[:2]] == ["python", "motet"]
    for words in asked:
        if words[0] == "python":
            monkeypatch.setattr(sys, "argv", words[1:])
            runpy.run_path(words[1], run_name="__main__")
        else:
            answer = motet_command(capsys, *words[1:])
            assert answer.code == 0, (words, answer.err)
    (run,) = (checkout / "runs").iterdir()
    lines = metrics(run)
    assert len(lines) == 2 and all(line["failures"] == 0 for line in lines)
    trained = {"own-data": {"text"}, "own-reward": {"image"}, "own-scenario": {"text", "image"}}[page]
    acted = {"text": "completion_length/mean", "image": "images_per_second"}
    first = metrics(run, timed=True)[0]
    assert {kind for kind, key in acted.items() if key in first} == trained
    rewards = {key.split("/")[1] for key in lines[0] if key.startswith("rewards/") and key.endswith("/mean")}
    words = {"text": "names_the_colour", "image": "colourful"}
    assert rewards == {words[kind] for kind in trained}


def test_the_code_of_the_pages_is_the_code_of_the_examples():
    (shown,) = blocks("own-scenario", "python")
    assert shown in (ROOT / "examples" / "own_case" / "scenario.py").read_text()
    (shown,) = blocks("own-reward", "yaml")
    assert shown in (ROOT / "examples" / "own_case" / "recipe.yaml").read_text()


def test_the_rewards_of_the_page_score_texts_and_images():
    (shown,) = blocks("own-reward", "python")
    rewards: dict = {}
    exec(shown, rewards)
    texts = [[{"role": "assistant", "content": words}] for words in ("It is Red", "blue")]
    assert rewards["names_the_answer"](texts, ["red", "red"]) == [1.0, 0.0]
    images = [Image.new("RGB", (4, 4), colour) for colour in ("black", "white")]
    drawn = [[{"role": "assistant", "content": [{"type": "image", "image": image}]}] for image in images]
    assert rewards["is_dark"](drawn) == [1.0, 0.0]


def test_the_scenario_answers_about_its_own_drawing(checkout, monkeypatch):
    from motet.core.task import Task
    from motet.core.trajectory import Sampling
    from motet.scenarios import resolve_scenario
    from motet.testing import FakePolicy
    from motet.training.rollout import rollout

    made = resolve_scenario("examples/own_case/scenario.py:look_at_yours")
    rows = [Task(0, {"prompt": "2 red circles", "question": "what colour?"})]
    (group,) = rollout(FakePolicy(), made, rows, 2, samplings={"text": Sampling(), "image": Sampling()}, seed=0, step=0)
    for trajectory in group.trajectories:
        drawing, answer = trajectory.acts
        image, text = answer.context.messages[0].parts
        assert image.image is drawing.image and text.text == "what colour?"


def test_the_rewards_tell_right_from_wrong(checkout):
    import asyncio

    reward = runpy.run_path("examples/own_case/reward.py")
    text = [[{"role": "assistant", "content": words}] for words in ("it is red", "blue", "red " + "so " * 20)]
    assert reward["names_the_colour"]([], text, ["red"] * 3) == pytest.approx([1.0, 0.0, 1.0 - 0.01 * 11])
    runpy.run_path("examples/own_case/make_data.py", run_name="made")["main"](Path("data"))
    rows = [json.loads(line) for line in Path("data/questions.jsonl").read_text().splitlines()]
    images = [Image.open(Path("data") / row["image"]) for row in rows[:4]]
    drawn = [[{"role": "assistant", "content": [{"type": "image", "image": image}]}] for image in images]
    right = asyncio.run(reward["colourful"](drawn, answer=[row["answer"] for row in rows[:4]]))
    wrong = asyncio.run(reward["colourful"](drawn, answer=[row["answer"] for row in rows[1:5]]))
    assert min(right) > 0.01 and max(wrong) == 0.0
