"""Questions about the generated image, asked of a scripted policy, of a tiny Janus, and of a server."""

import math

import pytest
from PIL import Image

from motet.config import RewardConfig
from motet.core.errors import ConfigError
from motet.rewards import bind_policy, resolve
from motet.rewards.judge.image_qa import ImageQA
from motet.testing import FakePolicy
from tests.rewards.judges import chat_server, image, shows

COLUMNS = ("question", "answer", "options", "prompt")


def bound(policy, **options):
    config = RewardConfig(name="image_qa", options={"weights": "current", **options})
    (reward,) = bind_policy([resolve(config, {"image": "image"}, COLUMNS)], policy)
    return reward


def ask(reward, answers, golds, questions=None, **columns):
    """Each generated image is asked its question; the policy's script is read off the question's last word."""
    questions = questions or [f"Which? {answer}" for answer in answers]
    images = shows(*(image() for _ in questions))
    return reward(prompts=[], completions=images, question=questions, answer=golds, **columns)


def parrot():
    """A policy that answers with what follows the question mark."""
    return FakePolicy(writes=lambda request: request.context.text.partition("?")[2].strip())


def test_the_question_is_asked_about_the_image_greedily():
    policy = FakePolicy(writes=lambda request: "<answer>red</answer>")
    shown = image("red")
    reward = bound(policy, max_tokens=50)
    assert reward(prompts=[], completions=shows(shown), question=["Which colour?"], answer=["red"]) == [1.0]
    (request,) = policy.calls[0][1]
    image_part, text_part = request.context.messages[0].parts
    assert (request.kind, image_part.image, text_part.text) == ("text", shown, "Which colour?")
    assert not request.trained


def test_answers_meet_the_gold_as_exact_answer_does():
    answers = ["<answer>four</answer>", "4.", "five", "<answer>5</answer>", ""]
    assert ask(bound(parrot()), answers, ["4"] * 5) == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert ask(bound(parrot(), untagged_factor=0.8), answers, ["4"] * 5) == [1.0, 0.8, 0.0, 0.0, 0.0]


def test_options_of_the_row_are_chosen_from():
    scores = ask(bound(parrot()), ["The answer is B", "dog", "A"], ["dog"] * 3, options=[["cat", "dog"]] * 3)
    assert scores == [1.0, 1.0, 0.0]


def test_an_object_class_strict_and_graded():
    answers, golds = ["bus", "double decker bus", "street", "", "a"], ["bus"] * 5
    columns = {"prompt": ["a bus on a street"] * 5}
    assert ask(bound(parrot(), compare="class"), answers, golds, **columns) == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert ask(bound(parrot(), compare="graded_class"), answers, golds, **columns) == [1.0, 0.9, 0.5, 0.0, 0.0]


def test_rows_without_a_question_or_a_gold_answer_get_none():
    assert ask(bound(parrot()), ["", ""], ["4", None], questions=[None, "How many? 4"]) == [None, None]


def test_a_janus_answers_with_its_reference_weights(janus):
    janus.freeze_reference()
    reward = bound(janus, weights="reference", max_tokens=6)
    assert reward.uses_reference
    gold = janus.generate_text("how many circles?", images=[image()], temperature=0.0, max_tokens=6)[0].text.strip()
    assert gold and ask(reward, [], [gold, gold + " no"], questions=["how many circles?"] * 2) == [1.0, 0.0]
    for parameter in janus.trainable().values():
        parameter.data.neg_()
    janus.version += 1
    assert ask(reward, [], [gold], questions=["how many circles?"]) == [1.0]
    assert ask(bound(janus, max_tokens=6), [], [gold], questions=["how many circles?"]) == [0.0]


def test_a_server_judges_and_what_it_cannot_judge_is_nan():
    with chat_server() as server:
        server.reply = lambda request: 400 if "bad" in str(request["messages"]) else "<answer>4</answer>"
        endpoint = {"base_url": server.url, "model": "m", "retries": 0}
        reward = bound(FakePolicy(), vqa_model="endpoint", endpoint=endpoint)
        scores = ask(reward, [], ["4", "4", "5"], questions=["How many?", "bad?", "How many?"])
    assert scores[0] == 1.0 and math.isnan(scores[1]) and scores[2] == 0.0
    assert not reward.uses_reference


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vqa_model": "gpt"}, "vqa_model='gpt' of 'image_qa'"),
        ({"compare": "soft"}, "compare='soft'"),
        ({"untagged_factor": 1.5}, r"untagged_factor=1.5 of 'image_qa' must be a number in \[0, 1\]"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": -1}, "temperature=-1"),
        ({"vqa_model": "endpoint"}, "endpoint=None of 'image_qa' is not a mapping"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ConfigError, match=message):
        ImageQA(**options)


def test_a_policy_without_text_raises():
    with pytest.raises(ConfigError, match="does not generate text"):
        bound(FakePolicy(kinds=("image",)))


def test_the_image_is_the_last_one():
    policy = FakePolicy(writes=lambda request: "x")
    first, last = Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4))
    completion = shows(first)[0] + shows(last)[0]
    bound(policy)(prompts=[], completions=[completion], question=["?"], answer=["x"])
    assert policy.calls[0][1][0].context.messages[0].parts[0].image is last
