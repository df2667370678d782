"""`motet rewards` and `motet reward test`."""

import json

import pytest
from PIL import Image

from tests.runs import motet_command


@pytest.fixture
def red(tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_rewards_are_listed_with_their_facts(capsys, tmp_path):
    shown = motet_command(capsys, "rewards", "--json", tmp_path / "rewards.json")
    assert shown.code == 0, shown.err
    listed = {entry["name"]: entry for entry in json.loads((tmp_path / "rewards.json").read_text())}
    assert {"format", "exact_answer", "shapes"} <= listed.keys() and all(name in shown.out for name in listed)
    without, with_model = shown.out.split("Rewards with a model")
    assert "format_tags" in without and "xswu/HPSv2" in with_model and "needs motet[math]" in with_model
    assert listed["math_verify"]["extra"] == "math" and listed["math_verify"]["range"] == "0 or 1"
    assert "the shapes world's verifier" in listed["shapes"]["meaning"]
    assert "428 M" in listed["clip_score"]["size"] and listed["clip_score"]["license"] == "MIT"


def test_one_image_is_scored(red, tmp_path, capsys):
    other = tmp_path / "black.png"
    Image.new("RGB", (16, 16), "black").save(other)
    scored = motet_command(capsys, "reward", "test", "psnr", red, "--column", f"images=@{other}")
    assert scored.code == 0 and scored.out == "psnr: 4.77121\n"  # 10 log10(3): one of three channels differs by 255
    capped = motet_command(
        capsys, "reward", "test", "psnr", red, "--column", f"image=@{red}", "--option", "cap=12", "--option", "act=edit"
    )
    assert capped.out == "psnr: 12\n"


def test_one_text_is_scored(capsys):
    gold = ("--column", "answer=4", "--column", "question=what is 2 + 2?")
    assert (
        motet_command(capsys, "reward", "test", "exact_answer", "--text", "<answer>4</answer>", *gold).out[-3:]
        == " 1\n"
    )
    assert (
        motet_command(capsys, "reward", "test", "exact_answer", "--text", "<answer>5</answer>", *gold).out[-3:]
        == " 0\n"
    )
    null = motet_command(capsys, "reward", "test", "exact_answer", "--text", "4", "--column", "answer=null")
    assert null.out == "exact_answer: does not apply to this row (None)\n"


def test_a_reward_that_asks_the_policy_gets_one(red, tiny_checkpoint, capsys):
    without = motet_command(capsys, "reward", "test", "token_matching", red, "a red square")
    assert without.code == 2 and "'token_matching' uses the policy" in without.err and "--policy" in without.err
    scored = motet_command(capsys, "reward", "test", "token_matching", red, "a red square", "--policy", tiny_checkpoint)
    assert scored.code == 0 and -1 <= float(scored.out.split()[-1]) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["psnr"], "neither an image nor --text"),
        (["psnr", "{red}", "--text", "x"], "both an image and --text"),
        (["psnrr", "{red}"], "Did you mean 'psnr'?"),
        (["psnr", "{red}"], "needs column 'images'"),
        (["psnr", "{red}", "--column", "images"], "is not key=value"),
        (["psnr", "{red}", "--column", "images=@nowhere.png"], "nowhere.png"),
        (["psnr", "{red}", "--option", "capp=3"], "Did you mean 'cap'?"),
        (["psnr", "{notes}"], "notes.txt' cannot be read"),
        (["psnr", "nowhere.png"], "nowhere.png' cannot be read"),
        (["critique", "{red}"], "reads the acts critique, draft"),
        (["format", "{red}"], "format"),
        (["judged", "{red}", "a cat"], "endpoint"),
    ],
)
def test_what_cannot_be_scored_says_why(arguments, message, red, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("not an image")
    names = {"red": red, "notes": tmp_path / "notes.txt"}
    answer = motet_command(capsys, "reward", "test", *(part.format(**names) for part in arguments))
    assert answer.code == 2 and message in answer.err and "Traceback" not in answer.err
