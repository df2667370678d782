"""Equal expressions in other words are equal; the process that compares them is stopped when it takes too long."""

import json
import sys
import threading
import time

import pytest

from motet.config import RewardConfig
from motet.config.schema import DataConfig
from motet.core.errors import ConfigError, RewardError
from motet.data import open_rows
from motet.rewards import resolve
from motet.rewards.text.math_answers import Comparer
from tests.rewards.judges import says


def reward(**options):
    return resolve(RewardConfig(name="math_verify", options=options), {"answer": "text"}, ("answer",))


@pytest.fixture(scope="module")
def judge():
    pytest.importorskip("math_verify")
    return reward(answer_tags=False)


EQUAL = [
    ("1/2", "0.5"),
    ("1/2", r"\frac{1}{2}"),
    (r"\frac{63}{400}", "0.1575"),
    (r"\frac{63}{400}", r"$\frac{63}{400}$"),
    ("30", r"$30^\circ$"),
    ("x+1", "1+x"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    ("50%", "0.5"),
    ("(1, 2)", "(1,2)"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("1000", "1,000"),
    ("1024", "$2^{10}$"),
    ("5", "x = 5"),
    ("4", "The answer is 4."),
    ("4", r"So 3 + 1 makes \boxed{4}."),
    ("4", "four"),
    ("the tower is tall", "The tower is tall."),
]
UNEQUAL = [
    ("1/2", "0.51"),
    ("4", "-4"),
    ("4", "4 or 5"),
    ("4", r"\boxed{4} \boxed{5}"),
    ("5", r"\boxed{4} \boxed{5}"),
    ("5", "the tower is tall"),
    ("the tower is tall", "5"),
    ("(1, 2)", "(2, 1)"),
    ("x+1", "x-1"),
    ("yes", "no"),
    ("4", ""),
    ("4", "$$"),
    ("4", "\\frac{"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_expressions(judge, gold, answer):
    assert judge(completions=says(answer), answer=[gold]) == [1.0]


@pytest.mark.parametrize(("gold", "answer"), UNEQUAL)
def test_other_expressions(judge, gold, answer):
    assert judge(completions=says(answer), answer=[gold]) == [0.0]


def test_the_answer_block_is_read_unless_told_otherwise(judge):
    answer_tags, text = reward(), "<think>0.3</think><answer>0.5</answer>"
    assert answer_tags(completions=says(text, "0.5", text), answer=["1/2", "1/2", None]) == [1.0, 0.0, None]


def test_solutions_in_latex_from_a_file(judge, tmp_path):
    """Solutions as completions, beside the gold answers of their rows."""
    rows = [
        {"question": "area?", "solution": r"\frac{63}{400}", "answer": r"\frac{63}{400}"},
        {"question": "length?", "solution": "the tower is tall", "answer": "5"},
        {"question": "angle?", "solution": r"$30^\circ$", "answer": "30"},
    ]
    path = tmp_path / "latex.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    opened = open_rows(DataConfig(source=str(path)), ("question", "answer"))
    read = [opened.row(n) for n in range(3)]
    told = judge(completions=says(*(row["solution"] for row in read)), answer=[row["answer"] for row in read])
    assert told == [1.0, 0.0, 1.0]


def test_it_works_in_any_thread(judge):
    told = []
    threads = [
        threading.Thread(target=lambda: told.extend(judge(completions=says("0.5"), answer=["1/2"]))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [1.0] * 3


def test_an_endless_computation_is_stopped(judge):
    impatient = reward(answer_tags=False, timeout=4.0)  # the second takes 3 ms, but not on a busy machine
    begun = time.monotonic()
    told = impatient(completions=says("$9^{9^{9^{9^9}}}+1$", "0.5"), answer=["7", "1/2"])
    assert told == [0.0, 1.0] and time.monotonic() - begun < 60


ECHO = """import json, sys, time
for line in sys.stdin:
    pair = json.loads(line)
    if pair["answer"] == "slow": time.sleep(60)
    if pair["answer"] == "crash": sys.exit(1)
    print(json.dumps({"equal": pair["gold"] == pair["answer"]}), flush=True)
"""


def test_a_process_that_hangs_or_dies_is_replaced():
    compare = Comparer(0.5, [sys.executable, "-c", ECHO])
    assert [compare("a", answer) for answer in ("a", "slow", "a", "crash", "a", "b")] == [
        True, False, True, False, True, False
    ]  # fmt: skip


def test_a_process_that_cannot_start_raises():
    with pytest.raises(RewardError, match="cannot start its worker process"):
        Comparer(0.5, [sys.executable, "-c", "raise SystemExit(3)"])("1", "2")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("motet.rewards.text.math_answers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"motet\[math\]"):
        reward()


@pytest.mark.parametrize("options", [{"answer_tags": "yes"}, {"timeout": 0}])
def test_wrong_options_raise(options):
    with pytest.raises(ConfigError, match="of 'math_verify' must be"):
        reward(**options)
