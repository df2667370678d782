"""DPG-Bench by hand: dependencies, means, categories, its file, and judges that fail."""

import csv
import json
from typing import Any

import pytest
from PIL import Image

from motet.core.errors import ConfigError, DataError, RewardError
from motet.evaluation.image_benchmarks.dpg import (
    COLUMNS,
    SCORE,
    DPGOptions,
    DPGSuite,
    Question,
    score_image,
    yes_or_no,
)
from motet.evaluation.image_benchmarks.judge import JudgeOptions, open_judge
from motet.evaluation.image_benchmarks.scores import summarize
from motet.testing import FakePolicy
from tests.rewards.judges import chat_server
from tests.runs import motet_command

ROWS = [
    ("coco1", "a red dog on a bus", 1, "0", "entity - whole (dog)", "Is there a dog?"),
    ("coco1", "a red dog on a bus", 2, "1", "attribute - color (dog, red)", "Is the dog red?"),
    ("coco1", "a red dog on a bus", 3, "0", "entity - whole (bus)", "Is there a bus?"),
    ("coco1", "a red dog on a bus", 4, "1,3", "relation - spatial (dog, bus, on)", "Is the dog on the bus?"),
    ("parti7", "two cats", 1, "0", "entity - whole (cats)", "Are there cats?"),
    ("parti7", "two cats", 2, "1", "other - count (cats, ==2)", "Are there two cats?"),
]


def write_csv(path, rows=ROWS, columns=COLUMNS):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return str(path)


def options(prompts, server: Any = None, **judge):
    judge = judge or {"base_url": server.url, "model": "vqa", "retries": 0}
    return DPGOptions(prompts=prompts, judge=JudgeOptions(**judge))


def questions(*parents):
    return [Question(n, f"question {n}?", "entity - whole", own) for n, own in enumerate(parents, start=1)]


def test_a_question_counts_as_no_where_one_that_it_depends_on_does():
    asked = questions((), (1,), (), (1, 3), (2,))
    answers = ["no", "yes", "yes", "Yes.", "yes"]
    one = score_image(asked, answers)
    assert one.value == 1 / 5  # 3 alone: 2 and 4 need 1, and 5 needs 2
    assert one.groups["entity - whole"] == [0.0, 1.0, 1.0, 1.0, 1.0]  # categories take the answers alone
    assert score_image(asked, ["yes"] * 5).value == 1.0
    assert score_image(asked, ["yes", "yes", "no", "yes", "yes"]).value == 3 / 5


def test_an_image_without_every_answer_has_no_score():
    failed = score_image(questions((), (1,)), ["yes", TimeoutError("no reply")])
    assert failed.value is None and failed.groups == {}
    assert failed.reason == "question 2: the request failed: TimeoutError: no reply"
    unclear = score_image(questions(()), ["maybe"])
    assert unclear.value is None and "not yes or no: 'maybe'" in str(unclear.reason)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [("yes", True), ("No, there is none.", False), (" **Yes**", True), ("Nobody", None), ("", None), ("not yes", None)],
)
def test_replies(reply, answer):
    assert yes_or_no(reply) is answer


def test_the_table_by_hand(tmp_path):
    suite = DPGSuite()
    prompts = suite.read(options(write_csv(tmp_path / "dpg.csv"), path="x"))
    assert [(p.name, p.text, len(p.row["questions"])) for p in prompts] == [
        ("coco1", "a red dog on a bus", 4),  # the first row counts, as it does not in the released code
        ("parti7", "two cats", 2),
    ]
    assert prompts[0].row["questions"][3] == Question(4, "Is the dog on the bus?", "relation - spatial", (1, 3))
    replies = {"coco1": [["yes"] * 4, ["no", "yes", "yes", "yes"]], "parti7": [["yes", "no"], ["yes", "yes"]]}
    scored = [(n, p, [score_image(p.row["questions"], own) for own in replies[p.name]]) for n, p in enumerate(prompts)]
    table = summarize(scored, suite.weights(prompts))
    assert table["overall"]["mean"] == pytest.approx(((1 + 1 / 4) / 2 + (1 / 2 + 1) / 2) / 2)
    means = {name: group["mean"] for name, group in table["groups"].items()}
    assert list(means)[:3] == [SCORE, "attribute", "attribute - color"]
    assert means["entity"] == means["entity - whole"] == pytest.approx(5 / 6)  # 2 x 2 and 2 x 1 questions
    assert means["relation"] == 1.0 and means["other"] == 0.5


def test_motet_eval_asks_an_endpoint(tiny_checkpoint, capsys, tmp_path):
    out = tmp_path / "out"
    prompts = write_csv(tmp_path / "dpg.csv")
    with chat_server() as server:
        server.reply = lambda request: "no" if "two" in request["messages"][0]["content"][1]["text"] else "yes"
        settings = [f"prompts={prompts}", f"judge.base_url={server.url}", "judge.model=vqa", "judge.retries=0"]
        arguments = [part for setting in settings for part in ("--option", setting)]
        answer = motet_command(
            capsys, "eval", tiny_checkpoint, "--suite", "dpg", *arguments, "--samples", 2, "--output", out
        )
        asked = [body["messages"][0]["content"][1]["text"] for _, body in server.seen]
    assert answer.code == 0, answer.err
    assert len(asked) == 12 and "Is the dog red? Answer with yes or no." in asked
    table = json.loads((out / "results.json").read_text())["suites"]["dpg"]["table"]
    assert table["overall"]["mean"] == 0.75 and table["unscored"] == []
    assert Image.open(out / "dpg" / "coco1.png").size == (32, 16)  # two images of 16 pixels, as the original cuts them
    lines = [json.loads(line) for line in (out / "dpg" / "results.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and lines[0]["answers"].keys() <= {"1", "2", "3", "4"}


def test_failed_requests_leave_images_unscored_or_end_the_evaluation(tmp_path):
    suite = DPGSuite()
    with chat_server() as server:
        own = options(write_csv(tmp_path / "dpg.csv"), server)
        prompts = suite.read(own)
        server.reply = lambda request: 500 if "bus" in request["messages"][0]["content"][1]["text"] else "yes"
        scores = suite.open(own, FakePolicy())(prompts, [[Image.new("RGB", (8, 8))]] * 2)
        assert [one.value for (one,) in scores] == [None, 1.0] and "HTTP Error 500" in str(scores[0][0].reason)
        server.reply = lambda request: 500
        with pytest.raises(RewardError, match=r"The suite 'dpg' sent 6 requests .* all requests failed") as raised:
            suite.open(own, FakePolicy())(prompts, [[Image.new("RGB", (8, 8))]] * 2)
        assert "eval.suite.judge" in raised.value.fix


def test_a_checkpoint_is_a_judge(tiny_checkpoint):
    judge = open_judge(JudgeOptions(path=str(tiny_checkpoint), max_tokens=3), "dpg")
    replies = judge([Image.new("RGB", (16, 16))] * 2, ["is it?", "what?"])
    assert len(replies) == 2 and all(isinstance(reply, str) for reply in replies)


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({}, "must have either path, or base_url and model"),
        ({"base_url": "http://x"}, "must have either"),
        ({"path": "x", "model": "m"}, "must have either"),
        ({"base_url": "x", "model": "m"}, "is not an http"),
    ],
)
def test_contradicting_judges_are_rejected(judge, message):
    with pytest.raises(ConfigError, match=message):
        open_judge(JudgeOptions(**judge), "dpg")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", "x", 1, "one", "entity (x)", "Is it?"), "dependency='one' are not numbers"),
        (("a", "x", 1, "2", "entity (x)", "Is it?"), r"item a depends on the propositions \[2\]"),
        (("../a", "x", 1, "0", "entity (x)", "Is it?"), "item_id='../a' is not a name"),
        (("a", "x", 1, "0", "entity (x)", " "), "question_natural_language is"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        DPGSuite().read(options(write_csv(tmp_path / "dpg.csv", [row]), path="x"))
    with pytest.raises(DataError, match=r"eval\.suite\.prompts"):
        DPGSuite().read(options(write_csv(tmp_path / "d.csv", [("a",)], ("item_id",)), path="x"))
