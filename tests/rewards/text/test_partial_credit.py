"""Graded text rewards: each value by hand."""

import pytest

from motet.config import RewardConfig
from motet.core.errors import ConfigError, DataError
from motet.rewards import resolve
from motet.rewards.text.partial_credit import (
    class_match,
    format_tags,
    object_class,
    qa_accuracy,
    soft_answer,
    soft_jaccard,
)
from tests.rewards.judges import says


def answer_tags(*answers):
    return says(*(f"<think>hm</think><answer>{answer}</answer>" for answer in answers))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>a</think><answer>b</answer>", 0.5),
        ("<think>a</think>", 0.25),
        ("<answer>", 0.125),
        ("", 0.0),
        ("<think><think>a</think><answer>b</answer>", 0.375),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.25),
        ("</answer></think><answer><think>", 0.5),  # order is not its business
    ],
)
def test_tags_that_occur_once(text, value):
    assert format_tags(says(text)) == [value]


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        ("red bus", "red bus", 1.0),
        ("a red bus", "red bus", 2 / 3),
        ("Red bus.", "bus, red!", 1.0),
        ("red bus", "blue car", 0.0),
        ("", "red", 0.0),
        ("", "", 0.0),
        ("...", "...", 0.0),
        ("red red red", "red", 1.0),  # sets of words
        ("colour", "color", (10 / 11) / (2 - 10 / 11)),  # 2 x 5 equal letters of 11
        ("the colour", "the color", (1 + 10 / 11) / (4 - 1 - 10 / 11)),
        ("cats cat", "cat", 1 / 2),  # the equal word is taken, and once only
        ("cat", "dog", 0.0),
        ("cat", "cot", 0.0),  # 0.67 of the letters are too few
    ],
)
def test_soft_jaccard_by_hand(first, second, value):
    assert soft_jaccard(first, second) == pytest.approx(value)
    assert soft_jaccard(second, first) == pytest.approx(value)


def test_the_best_pairs_come_first():
    a, b = "walking walked", "walkin walkinx"  # walking-walkin 12/13, walking-walkinx 12/14
    assert soft_jaccard(a, b) == pytest.approx((12 / 13) / (4 - 12 / 13))


def test_soft_answer():
    completions = [*answer_tags("four", "big red bus", "", "red"), *says("red"), []]
    assert soft_answer(completions, ["4", "red bus", "red", None, "red", "red"]) == pytest.approx(
        [1.0, 2 / 3, 0.0, None, 0.0, None]
    )
    assert soft_answer(says("red"), ["red"], answer_tags=False) == [1.0]


@pytest.mark.parametrize(
    ("answer", "strict", "graded"),
    [
        ("bus", 1.0, 1.0),
        ("A bus.", 1.0, 1.0),
        ("double decker bus", 0.0, 0.9),
        ("bus and car and train", 0.0, 0.0),  # four words longer: a list
        ("street", 0.0, 0.5),
        ("red bus on", 0.0, 0.9),
        ("omnibus", 0.0, 0.0),  # whole words only
        ("us", 0.0, 0.0),
        ("", 0.0, 0.0),
        ("a", 0.0, 0.0),
        ("on a", 0.0, 0.0),
        ("\u200b", 0.0, 0.0),
        ("car", 0.0, 0.0),
    ],
)
def test_class_match(answer, strict, graded):
    prompt = "a bus on a street"
    assert class_match(answer, "bus", prompt) == strict
    assert class_match(answer, "bus", prompt, graded=True) == graded
    assert class_match(answer, "bus", graded=True) == (0.0 if graded == 0.5 else graded)


def test_a_name_inside_the_gold_name_counts_too():
    assert class_match("bus", "double decker bus", graded=True) == 0.9
    assert class_match("the", "the bus", graded=True) == 0.0


def test_object_class_on_completions():
    completions, prompts = answer_tags("bus", "red bus", "street", ""), ["a bus on a street"] * 4
    assert object_class(completions, ["bus"] * 4, prompts) == [1.0, 0.0, 0.0, 0.0]
    assert object_class(completions, ["bus"] * 4, prompts, graded=True) == [1.0, 0.9, 0.5, 0.0]
    assert object_class(completions, ["bus"] * 4, graded=True) == [1.0, 0.9, 0.0, 0.0]
    assert object_class([*says("bus"), []], [None, "bus"]) == [None, None]
    assert object_class(says("bus", ""), ["bus", "bus"], answer_tags=False) == [1.0, 0.0]


def test_qa_accuracy_dispatches_by_type():
    question = ["Which?\nA. cat\nB. dog", "How many?", "Which?\nA. cat\nB. dog"]
    completions = answer_tags("The answer is B", "a red bus", "dog")
    gold, kinds = ["dog", "red bus", "B"], ["MC", "OE", "OE"]
    assert qa_accuracy(completions, gold, kinds, question) == [1.0, 1.0, 0.0]
    assert qa_accuracy(answer_tags("x", "red car", "x"), gold, kinds, question, open="soft") == [
        0.0,
        pytest.approx(1 / 3),
        0.0,
    ]
    assert qa_accuracy(answer_tags("b"), ["dog"], ["MC"], options=[["cat", "dog"]]) == [1.0]


def test_qa_accuracy_rejects_unknown_types():
    with pytest.raises(DataError, match="qa_type` holds 'mc'"):
        qa_accuracy(answer_tags("x"), ["x"], ["mc"])
    with pytest.raises(ConfigError, match="open='fuzzy' of 'qa_accuracy' must be one of exact, soft"):
        qa_accuracy(answer_tags("x"), ["x"], ["OE"], open="fuzzy")
    with pytest.raises(ConfigError, match="graded=1 of 'object_class' must be true or false"):
        object_class(answer_tags("x"), ["x"], graded=1)


def test_they_are_built_in():
    for name in ("format_tags", "soft_answer", "object_class"):
        assert resolve(RewardConfig(name=name), {"answer": "text"}, ("answer",)).name == name
