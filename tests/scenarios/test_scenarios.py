"""Declaring scenarios, finding them, and the built-in ones."""

import sys

import pytest
from PIL import Image

from motet.core.conversation import ImagePart, user
from motet.core.errors import ConfigError
from motet.core.protocols import Request
from motet.core.task import Task
from motet.core.trajectory import Sampling
from motet.scenarios import (
    GenerateImage,
    GenerateText,
    Scenario,
    as_image_turn,
    as_text_turn,
    built_in_scenarios,
    resolve_scenario,
    scenario,
)
from motet.testing import FakePolicy

TASK = Task(0, {"prompt": "a red circle", "question": "how many?", "image": Image.new("RGB", (2, 2))})


def perform(kind):
    return FakePolicy(writes=["hello"]).act([Request(kind, "act", user("x"), (0,))], Sampling())[0]


def test_answer_shows_the_picture_and_asks_the_question():
    (write,) = list(resolve_scenario("answer")(TASK))
    assert isinstance(write, GenerateText) and write.name == "answer" and write.trained
    assert write.conversation is TASK.question and isinstance(write.conversation.messages[0].parts[0], ImagePart)


def test_draw_draws_the_prompt():
    (draw,) = list(resolve_scenario("draw")(TASK))
    assert isinstance(draw, GenerateImage) and draw.name == "drawing" and draw.conversation is TASK.prompt


def test_duet_asks_for_both_at_once():
    ((draw, write),) = list(resolve_scenario("duet")(TASK))
    assert draw.conversation is TASK.prompt and write.conversation is TASK.question
    assert resolve_scenario("duet").acts == {"drawing": "image", "answer": "text"}
    assert resolve_scenario("duet").columns == ("prompt", "question")


def test_siblings_share_the_conversation():
    first, second = (next(resolve_scenario("draw")(TASK.for_generation(g))) for g in (0, 1))
    assert first.conversation is second.conversation


@pytest.mark.parametrize("name", ["answer", "draw", "duet"])
def test_built_ins_perform_what_they_declare(name):
    made = built_in_scenarios()[name]
    program, asked = made(TASK), []
    step = next(program)
    asked = list(step) if isinstance(step, tuple) else [step]
    assert {one.name: "text" if isinstance(one, GenerateText) else "image" for one in asked} == made.acts


USER_FILE = """
from motet.scenarios import GenerateText, scenario

@scenario("mine", acts={"answer": "text"}, columns=("question",))
def mine(task):
    yield GenerateText(task.question)

def bare(task):
    yield GenerateText(task.question)
"""


def test_a_users_own(tmp_path, monkeypatch):
    (tmp_path / "my_scenarios.py").write_text(USER_FILE)
    monkeypatch.chdir(tmp_path)
    for path in ("my_scenarios.py:mine", "my_scenarios:mine"):
        found = resolve_scenario(path)
        assert isinstance(found, Scenario) and found.name == "mine"
    assert "mine" not in built_in_scenarios()
    with pytest.raises(ConfigError, match="which is not a scenario") as caught:
        resolve_scenario("my_scenarios.py:bare")
    assert "@scenario" in caught.value.fix
    sys.modules.pop("my_scenarios", None)


def test_unknown_scenarios():
    with pytest.raises(
        ConfigError, match=r"scenario='dueet' is not a scenario.*answer, .*think_draw.*\. Did you mean 'duet'"
    ):
        resolve_scenario("dueet")


def test_a_declaration_must_be_whole():
    with pytest.raises(ConfigError, match="'act' of kind 'picture'"):
        scenario("s", acts={"act": "picture"})
    with pytest.raises(ConfigError, match="declares acts"):
        scenario("s", acts={})
    with pytest.raises(ConfigError, match="frozen acts"):
        scenario("s", acts={"a": "text"}, frozen=("b",))


def test_acts_as_turns():
    said, shown = as_text_turn(perform("text")), as_image_turn(perform("image"))
    assert said.messages[0].role == shown.messages[0].role == "assistant"
    assert said.text == "hello" and isinstance(shown.messages[0].parts[0], ImagePart)
    assert user("why?").messages[0].role == "user" and user("why?").text == "why?"


def test_acts_of_the_wrong_kind():
    with pytest.raises(ConfigError, match="which has no picture"):
        as_image_turn(perform("text"))
    with pytest.raises(ConfigError, match="which is a picture"):
        as_text_turn(perform("image"))
