"""Gold answers of every type: a list means any of them, and what cannot be judged is named before a run begins."""

import json

import pytest

from motet.config import DataConfig, RewardConfig
from motet.core.errors import DataError
from motet.data import open_rows
from motet.rewards import check_golds, resolve
from motet.rewards.text.exact_match import exact_answer, multiple_choice, open_ended
from motet.rewards.text.partial_credit import object_class, qa_accuracy, soft_answer

QUESTION = "what?"


def tag(*answers):
    return [[{"role": "assistant", "content": f"<answer>{answer}</answer>"}] for answer in answers]


def checked(folder, name, *rows, **options):
    if name == "math_verify":
        pytest.importorskip("math_verify")
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"question": QUESTION} | row) + "\n" for row in rows))
    data = open_rows(DataConfig(source=str(path)), ("question",))
    acts = {"image": "image"} if name == "image_qa" else {"answer": "text"}
    check_golds([resolve(RewardConfig(name=name, options=options), acts, data.columns)], data.texts())


def test_any_of_a_list_is_right():
    golds = [["red", "crimson"]] * 4
    said = tag("crimson", "red", "blue", "red crimson")
    assert open_ended(said, golds) == exact_answer(said, golds) == [1.0, 1.0, 0.0, 0.0]
    assert soft_answer(tag("the crimson", "blue"), golds[:2]) == [1.0, 0.0]
    assert object_class(tag("crimson car", "blue"), golds[:2], graded=True) == [0.9, 0.0]
    assert qa_accuracy(tag("crimson", "B"), [["red", "crimson"], ["A", "B"]], ["OE", "MC"]) == [1.0, 1.0]
    options = [["cat", "dog", "hen"]] * 3
    assert multiple_choice(tag("B", "hen", "cat"), [["dog", "C"]] * 3, None, options) == [1.0, 1.0, 0.0]
    assert exact_answer(tag("B", "A"), [["B", "hen"]] * 2, None, options[:2]) == [1.0, 0.0]


REWARDS = ["math_verify", "exact_answer", "multiple_choice", "open_ended", "soft_answer", "object_class", "image_qa"]


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize(
    ("gold", "problem"),
    [
        (True, "holds a bool, True"),
        ({"a": 1}, "holds a dict"),
        ([["red"]], "holds a list"),
        (["red", None], "holds a NoneType"),
        ([], "holds an empty list"),
        ("", "is empty"),
        (["red", " "], "is empty"),
    ],
)
def test_wrong_types_are_named_by_line_before_a_run(tmp_path, name, gold, problem):
    with pytest.raises(DataError, match=f"Line 3 of rows.jsonl: .*{problem}"):
        checked(tmp_path, name, {"answer": "red"}, {"answer": None}, {"answer": gold})


@pytest.mark.parametrize("name", REWARDS)
def test_texts_numbers_lists_and_nulls_pass(tmp_path, name):
    checked(tmp_path, name, *({"answer": gold} for gold in ("red", 4, 2.5, ["red", 4], None)))


def test_other_faults_of_a_row_are_found_too(tmp_path):
    with pytest.raises(DataError, match=r"Line 1 of rows.jsonl: The gold answer 'bird' is not one of the options"):
        checked(tmp_path, "multiple_choice", {"answer": "bird", "options": ["cat", "dog"]})
    checked(tmp_path, "multiple_choice", {"answer": "bird", "options": ["cat", "dog"]}, on_invalid_gold="skip")
    with pytest.raises(DataError, match=r"Line 2 of rows.jsonl: The column `qa_type` holds 'XY'"):
        checked(tmp_path, "qa_accuracy", {"answer": "a", "qa_type": "MC"}, {"answer": "a", "qa_type": "XY"})
    with pytest.raises(DataError, match=r"Line 1 of rows.jsonl: The column `options` holds a str"):
        checked(tmp_path, "exact_answer", {"answer": "a", "options": "cat, dog"})


def test_rewards_without_gold_answers_take_any_column(tmp_path):
    checked(tmp_path, "format", {"answer": True})
    path = tmp_path / "mine.py"
    path.write_text("def mine(completions, answer, **columns): raise ValueError('not to be called')\n")
    checked(tmp_path, f"{path}:mine", {"answer": True})


def test_a_run_raises_before_its_policy_is_loaded(tmp_path):
    from motet.config import parse_recipe
    from motet.training.setup import setup_rl

    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "is it red?", "answer": true}\n')
    recipe = {
        "policy": {"path": "nowhere"},
        "scenario": "answer",
        "data": {"source": str(path)},
        "rewards": [{"name": "exact_answer"}],
        "run": {"steps": 1},
    }
    with pytest.raises(DataError, match=r"Line 1 of rows.jsonl: .* holds a bool, True"):
        setup_rl(parse_recipe(recipe))
