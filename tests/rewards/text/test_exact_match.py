"""The built-in text rewards on completions."""

import pytest
from PIL import Image

from motet.core.errors import ConfigError, DataError, RewardError
from motet.rewards.text.exact_match import exact_answer, format_, multiple_choice, open_ended
from motet.rewards.text.partial_credit import qa_accuracy


def say(*texts):
    return [[{"role": "assistant", "name": "answer", "content": text}] for text in texts]


def tag(*answers):
    return say(*(f"<think>hm</think><answer>{answer}</answer>" for answer in answers))


def test_format():
    assert format_(say("<think>a</think><answer>b</answer>", "b")) == [1.0, 0.0]


def test_open_ended_needs_the_one_block():
    assert open_ended([*tag("Four", "five"), *say("4")], [4, 4, 4]) == [1.0, 0.0, 0.0]


def test_open_ended_untagged_takes_the_whole_completion():
    assert open_ended(say("4", "<answer>4</answer>"), ["four", "four"], answer_tags=False) == [1.0, 0.0]


def test_open_ended_reads_gold_out_of_a_solution():
    assert open_ended(tag("4"), ["<think>1+3</think><answer>four</answer>"]) == [1.0]


def test_multiple_choice_by_column_by_question_and_by_letter_alone():
    options = [["cat", "dog"], None, None]
    question = ["?", "?\nA. cat\nB. dog", "? (a picture shows A to D)"]
    assert multiple_choice(tag("dog", "dog", "D"), ["B", "dog", "D"], question, options) == [1.0, 1.0, 1.0]
    assert multiple_choice(tag("A", "A or B", "C"), ["B", "B", "D"], question, options) == [0.0, 0.0, 0.0]


def test_multiple_choice_does_not_apply_without_options():
    assert multiple_choice(tag("dog"), ["dog"], ["?"]) == [None]


def test_exact_answer_judges_each_row_by_its_kind():
    completions = tag("B because A is wrong", "dog", "two", "A", "x")
    answer = ["B", "dog", "2", "a", None]
    options = [["cat", "dog"], [], None, [], ["cat", "dog"]]
    assert exact_answer(completions, answer, ["?"] * 5, options) == [1.0, 1.0, 1.0, 1.0, None]


def test_exact_answer_takes_lines_for_options_only_if_the_gold_is_one_of_them():
    question = ["Who wrote?\nA. Smith\nB. Jones", "Poem:\nA. line\nB. line two\nHow many lines?"]
    assert exact_answer(tag("Jones", "two"), ["B", "2"], question) == [1.0, 1.0]


def test_an_act_that_did_not_happen_gets_none():
    assert format_([[]]) == exact_answer([[]], ["4"]) == [None]


@pytest.mark.parametrize("gold", ["bird", "E", "cat or dog"])
def test_gold_that_matches_no_option_raises(gold):
    with pytest.raises(DataError, match=r"not one of the options \['cat', 'dog'\]"):
        multiple_choice(tag("A"), [gold], None, [["cat", "dog"]])


def test_invalid_gold_can_be_skipped():
    gold, options = ["bird", "B", None, "dog"], [["cat", "dog"]] * 4
    assert multiple_choice(tag("A", "B", "A", "A"), gold, None, options, on_invalid_gold="skip") == [
        None,
        1.0,
        None,
        0.0,
    ]
    assert qa_accuracy(tag("A", "B"), ["E", "A"], ["MC", "MC"], None, options[:2], on_invalid_gold="skip") == [
        None,
        0.0,
    ]
    assert multiple_choice(tag("A", "A"), ["", " "], None, [["x", "y"]] * 2, on_invalid_gold="skip") == [None, None]
    with pytest.raises(ConfigError, match="on_invalid_gold='maybe' of 'qa_accuracy' must be one of error, skip"):
        qa_accuracy(tag("A"), ["A"], ["OE"], on_invalid_gold="maybe")
    with pytest.raises(ConfigError, match="on_invalid_gold='maybe' of 'multiple_choice' must be one of error, skip"):
        multiple_choice(tag("A"), ["A"], on_invalid_gold="maybe")


@pytest.mark.parametrize("gold", ["", " ", "\u200b"])
def test_empty_gold(gold):
    with pytest.raises(DataError, match="gold answer in the column `answer` is empty"):
        open_ended(tag("A"), [gold])


def test_gold_of_a_wrong_type():
    with pytest.raises(DataError, match="holds a dict"):
        open_ended(tag("A"), [{"A": 1}])


def test_options_of_a_wrong_type():
    with pytest.raises(DataError, match="`options` holds a str"):
        multiple_choice(tag("A"), ["A"], None, ["A, B"])


def test_an_image_has_no_text():
    drawing = [{"role": "assistant", "content": [{"type": "image", "image": Image.new("RGB", (2, 2))}]}]
    with pytest.raises(RewardError, match="'open_ended' got a completion without text"):
        open_ended([drawing], ["4"])


def test_the_last_text_counts():
    thought_then_answer = [*say("<answer>3</answer>")[0], *say("<answer>4</answer>")[0]]
    assert open_ended([thought_then_answer], ["4"]) == [1.0]


def test_tagged_is_a_boolean():
    with pytest.raises(ConfigError, match="answer_tags='no' of 'open_ended'"):
        open_ended(tag("4"), ["4"], answer_tags="no")
