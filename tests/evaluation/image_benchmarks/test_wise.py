"""WISE by hand: WiScore, categories and weights, replies, the judge's instruction, and its files."""

import json

import pytest
from PIL import Image

from motet.core.errors import ConfigError, DataError
from motet.evaluation.image_benchmarks.judge import JudgeOptions
from motet.evaluation.image_benchmarks.prompts import Prompt
from motet.evaluation.image_benchmarks.scores import summarize
from motet.evaluation.image_benchmarks.wise import (
    CATEGORIES,
    WiseOptions,
    WiseSuite,
    category_of,
    read_grades,
    score_image,
)
from motet.testing import FakePolicy
from tests.rewards.judges import chat_server
from tests.runs import motet_command

PROMPT = Prompt(
    "1", "the plant often given on Mother's Day", {"category": "cultural", "explanation": "carnations"}, "x"
)


def reply(consistency, realism, aesthetic):
    return f"Consistency: {consistency}\nRealism: {realism}\nAesthetic Quality: {aesthetic}"


def rows(*ids):
    return [{"prompt_id": n, "Prompt": f"prompt {n}", "Explanation": f"it is {n}", "Category": "c"} for n in ids]


def files(tmp_path):
    parts = {"cultural": rows(1, 400), "spatio-temporal": rows(401, 568), "natural": rows(701, 801, 901)}
    for name, content in parts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return [str(tmp_path / f"{name}.json") for name in parts]


@pytest.mark.parametrize(
    ("grades", "score"),
    [((2, 2, 2), 1.0), ((0, 0, 0), 0.0), ((2, 0, 0), 0.7), ((0, 2, 0), 0.2), ((0, 0, 2), 0.1), ((1, 2, 1), 0.6)],
)
def test_wiscore(grades, score):
    one = score_image(PROMPT, reply(*grades))
    assert one.value == pytest.approx(score) and one.groups == {"cultural": [one.value]}


@pytest.mark.parametrize(
    ("number", "category"),
    [
        (1, "cultural"), (400, "cultural"), (401, "time"), (567, "time"), (568, "space"), (700, "space"),
        (701, "biology"), (800, "biology"), (801, "physics"), (900, "physics"), (901, "chemistry"), (1000, "chemistry"),
        (0, None), (1001, None), ("1", None),
    ],
)  # fmt: skip
def test_categories(number, category):
    assert category_of(number) == category


def test_the_overall_score_weights_the_categories_by_their_size():
    assert sum(weight for _, weight in CATEGORIES.values()) == pytest.approx(1.0)
    scores = {"cultural": (2, 2, 2), "time": (2, 0, 0), "space": (0, 2, 0), "biology": (0, 0, 2), "physics": (0, 0, 0)}
    scores["chemistry"] = (1, 1, 1)
    scored = []
    for number, (category, grades) in enumerate(scores.items()):
        prompt = Prompt(str(number), "x", {"category": category, "explanation": "x"}, "x")
        scored.append((number, prompt, [score_image(prompt, reply(*grades))]))
    table = summarize(scored, WiseSuite().weights([]))
    assert table["overall"]["mean"] == pytest.approx(0.4 + 0.167 * 0.7 + 0.133 * 0.2 + 0.1 * 0.1 + 0.1 * 0.5)
    assert list(table["groups"]) == list(CATEGORIES)


@pytest.mark.parametrize(
    ("text", "grades"),
    [
        (reply(2, 1, 0), (2, 1, 0)),
        ("**Consistency:** 2\n**Realism**: 1/2\n**Aesthetic Quality**\uff1a 0", (2, 1, 0)),
        ("consistency 1, realism 1, aesthetic  quality 2.", (1, 1, 2)),
        ("Consistency: 0\nNo: " + reply(2, 2, 2), (2, 2, 2)),
        (reply(3, 1, 1), None),
        (reply(1.5, 1, 1), None),
        ("Consistency: 2\nRealism: 1", None),
        ("I cannot see an image.", None),
    ],
)
def test_replies(text, grades):
    found = read_grades(text)
    assert (None if found is None else tuple(found.values())) == grades


def test_failed_and_unclear_replies_are_not_0():
    assert score_image(PROMPT, TimeoutError("late")).value is None
    one = score_image(PROMPT, "Nice!")
    assert one.value is None and one.reason == "the reply is not three scores from 0 to 2: 'Nice!'"


def test_motet_eval_asks_an_endpoint_and_warns_of_what_has_no_score(tiny_checkpoint, capsys, tmp_path):
    out = tmp_path / "out"
    instruction = tmp_path / "instruction.txt"
    instruction.write_text("Grade {prompt} ({explanation}) as {json: 1}.")

    def answer(request):
        text = request["messages"][0]["content"][1]["text"]
        return 500 if "prompt 401 " in text else reply(2, 1, 0)

    with chat_server() as server:
        server.reply = answer
        settings = [f"prompts={json.dumps(files(tmp_path))}", f"instruction={instruction}"]
        settings += [f"judge.base_url={server.url}", "judge.model=gpt", "judge.retries=0"]
        arguments = [part for setting in settings for part in ("--option", setting)]
        with pytest.warns(UserWarning, match=r"1 of 7 images have no score .* prompt 401: the request failed: .*500"):
            done = motet_command(capsys, "eval", tiny_checkpoint, "--suite", "wise", *arguments, "--output", out)
        texts = [body["messages"][0]["content"][1]["text"] for _, body in server.seen]
    assert done.code == 0, done.err
    assert sorted(texts)[0] == "Grade prompt 1 (it is 1) as {json: 1}." and len(texts) == 7
    table = json.loads((out / "results.json").read_text())["suites"]["wise"]["table"]
    assert table["overall"]["mean"] == pytest.approx(0.8) and "time" not in table["groups"]
    assert [entry["prompt"] for entry in table["unscored"]] == ["401"]
    assert "images without a score" in done.out and "1 of 7" in done.out
    assert sorted(path.name for path in (out / "wise").glob("[0-9]*.png"))[:2] == ["1.png", "400.png"]


def test_its_own_instruction_has_the_prompt_and_its_explanation(tmp_path):
    with chat_server() as server:
        server.reply = lambda request: reply(1, 1, 1)
        judge = JudgeOptions(base_url=server.url, model="m")
        suite, options = WiseSuite(), WiseOptions(prompts=tuple(files(tmp_path)), judge=judge)
        prompts = suite.read(options)
        ((score,),) = suite.open(options, FakePolicy())(prompts[:1], [[Image.new("RGB", (8, 8))]])
        (_, body), *_ = server.seen
    text = body["messages"][0]["content"][1]["text"]
    assert "Prompt: prompt 1\nExplanation: it is 1\n" in text and "{" not in text
    assert score.value == 0.5 and len(prompts) == 7


def test_wrong_files_are_named(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps(rows(1001)))
    judge = JudgeOptions(path="x")
    with pytest.raises(DataError, match=r"prompt_id=1001 is not a number from 1 to 1000"):
        WiseSuite().read(WiseOptions(prompts=str(tmp_path / "w.json"), judge=judge))
    (tmp_path / "i.txt").write_text("no placeholder")
    for name, message in (("i.txt", "does not contain"), ("none.txt", "cannot be read")):
        judge = JudgeOptions(base_url="http://127.0.0.1:9", model="m")
        options = WiseOptions(prompts="x", judge=judge, instruction=str(tmp_path / name))
        with pytest.raises(ConfigError, match=message):
            WiseSuite().open(options, FakePolicy())
