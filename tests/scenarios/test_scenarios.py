"""Declaring and resolving scenarios."""

import sys

import pytest
from PIL import Image

from motet.config import renamed
from motet.core.conversation import ImagePart, user
from motet.core.errors import ConfigError
from motet.core.protocols import Request
from motet.core.task import Task
from motet.core.trajectory import Sampling
from motet.rewards import built_in_rewards
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


def test_answer_has_the_image_and_the_question():
    (request,) = list(resolve_scenario("answer")(TASK))
    assert isinstance(request, GenerateText) and request.name == "answer" and request.trained
    assert request.conversation is TASK.question and isinstance(request.conversation.messages[0].parts[0], ImagePart)


def test_text_to_image_has_the_prompt():
    (request,) = list(resolve_scenario("text_to_image")(TASK))
    assert isinstance(request, GenerateImage) and request.name == "image" and request.conversation is TASK.prompt


def test_generate_and_answer_requests_both_at_once():
    ((image, text),) = list(resolve_scenario("generate_and_answer")(TASK))
    assert image.conversation is TASK.prompt and text.conversation is TASK.question
    assert resolve_scenario("generate_and_answer").acts == {"image": "image", "answer": "text"}
    assert resolve_scenario("generate_and_answer").columns == ("prompt", "question")


def test_a_group_shares_the_conversation():
    first, second = (next(resolve_scenario("text_to_image")(TASK.for_generation(g))) for g in (0, 1))
    assert first.conversation is second.conversation


@pytest.mark.parametrize("name", ["answer", "text_to_image", "generate_and_answer"])
def test_built_in_scenarios_request_what_they_declare(name):
    made = built_in_scenarios()[name]
    step = next(made(TASK))
    requests = list(step) if isinstance(step, tuple) else [step]
    assert {one.name: "text" if isinstance(one, GenerateText) else "image" for one in requests} == made.acts


USER_FILE = """
from motet.scenarios import GenerateText, scenario

@scenario("mine", acts={"answer": "text"}, columns=("question",))
def mine(task):
    yield GenerateText(task.question)

def bare(task):
    yield GenerateText(task.question)
"""


def test_scenarios_of_users_resolve(tmp_path, monkeypatch):
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


def test_unknown_scenarios_get_a_suggestion():
    with pytest.raises(
        ConfigError,
        match=r"scenario='generate_and_anser' is not a scenario.*answer, .*\. Did you mean 'generate_and_answer'",
    ):
        resolve_scenario("generate_and_anser")


def test_renamed_scenarios_and_rewards_exist():
    assert set(renamed.VALUES["scenario"].values()) <= built_in_scenarios().keys()
    assert set(renamed.VALUES["rewards.*.name"].values()) <= built_in_rewards().keys()


def test_invalid_declarations_raise():
    with pytest.raises(ConfigError, match="'act' of the unknown kind 'picture'"):
        scenario("s", acts={"act": "picture"})
    with pytest.raises(ConfigError, match="declares the acts"):
        scenario("s", acts={})
    with pytest.raises(ConfigError, match="untrained acts"):
        scenario("s", acts={"a": "text"}, untrained=("b",))


def test_acts_as_turns():
    text, image = as_text_turn(perform("text")), as_image_turn(perform("image"))
    assert text.messages[0].role == image.messages[0].role == "assistant"
    assert text.text == "hello" and isinstance(image.messages[0].parts[0], ImagePart)
    assert user("why?").messages[0].role == "user" and user("why?").text == "why?"


def test_turns_of_the_wrong_kind_raise():
    with pytest.raises(ConfigError, match="is a text act"):
        as_image_turn(perform("text"))
    with pytest.raises(ConfigError, match="is an image act"):
        as_text_turn(perform("image"))
