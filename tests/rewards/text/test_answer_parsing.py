"""The strict answer parser, the normal form, and the format."""

import time

import pytest

from motet.rewards.text.answer_parsing import extract_answer, normalise, same_answer, well_formed

EXTRACTED = [
    ("<think>t</think><answer>B</answer>", "B"),
    ("<answer> two\nlines </answer>", "two\nlines"),
    ("junk <answer>4</answer> junk", "4"),
    ("thought that the prompt began</think><answer>4</answer>", "4"),
    ("", None),
    ("B", None),
    ("<answer></answer>", None),
    ("<answer> \n\u200b</answer>", None),
    ("<answer>A</answer><answer>B</answer>", None),
    ("<answer>A</answer><answer>A</answer>", None),
    ("<answer><answer>A</answer></answer>", None),
    ("<answer>A<answer>", None),
    ("</answer>A<answer>", None),
    ("<answer>A", None),
    ("<answer><think>hm</think>A</answer>", None),
    ("<answer>< THINK >A</answer>", None),
    ("<think>maybe <answer>A</answer></think>", None),
    ("<think>maybe <answer>A</answer>", None),
]


@pytest.mark.parametrize(("text", "answer"), EXTRACTED)
def test_extract_answer(text, answer):
    assert extract_answer(text) == answer


SAME = [
    ("4", "four"),
    ("Four.", "4"),
    ("  twenty-one ", "21"),
    ("twenty one cats", "21 cats"),
    ("4.0", "4"),
    ("04", "4"),
    ("+4", "4"),
    ("−4", "-4"),
    ("-0", "0"),
    ("1,000", "1000"),
    ("1,000.50", "1000.5"),
    (".5", "0.5"),
    ("A red circle", "red circle"),
    ("the red   Circle.", "red circle"),
    ('"red circle"', "red circle"),
    ("**red circle**", "red circle"),
    ("(3)", "3"),
    (r"$\boxed{7}$", "7"),
    ("Yes!", "yes"),
    ("Straße", "STRASSE"),
    ("caf\u0065\u0301", "caf\u00e9"),
]
DIFFERENT = [
    ("", ""),
    (".", "."),
    ("", "4"),
    ("four", "five"),
    ("14", "4"),
    ("4 or 5", "4"),
    ("5²", "52"),
    ("5!", "5"),
    ("-4", "4"),
    ("1,00", "100"),
    ("50%", "50"),
    ("3 apples", "3"),
    ("red circle", "circle"),
    ("yes, it is", "yes"),
    ("twenty", "20.5"),
    ("99999999999999999999999999999999998", "99999999999999999999999999999999999"),
    ("four four", "4"),
]


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_same_answer(answer, gold):
    assert same_answer(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_different_answer(answer, gold):
    assert not same_answer(answer, gold)


def test_an_article_alone_is_kept():
    assert normalise("A") == "a"


WELL = [
    "<think>t</think><answer>B</answer>",
    " \n<think>\nmany\nlines\n</think>\n\n<answer> B </answer>\n",
    "<think>2 < 3, so a<b</think><answer>+</answer>",
]
ILL = [
    "",
    "<think>t</think>",
    "<answer>B</answer>",
    "<think></think><answer>B</answer>",
    "<think> \n </think><answer>B</answer>",
    "<think>...</think><answer>B</answer>",
    "<think>\u200b</think><answer>B</answer>",
    "<think>t</think><answer></answer>",
    "<think>t</think><answer>\u200b </answer>",
    "x <think>t</think><answer>B</answer>",
    "<think>t</think> so <answer>B</answer>",
    "<think>t</think>.<answer>B</answer>",
    "<think>t</think><answer>B</answer> junk",
    "<think>t</think><answer>B</answer><answer>B</answer>",
    "<think>t</think><think>t</think><answer>B</answer>",
    "<think><think>t</think></think><answer>B</answer>",
    "<think>t</think><answer><answer>B</answer></answer>",
    "<think>t<answer>A</answer></think><answer>B</answer>",
    "<think>t<THINK></think><answer>B</answer>",
    "<think>t</think><answer>B< /answer></answer>",
    "<answer>B</answer><think>t</think>",
    "<THINK>t</THINK><ANSWER>B</ANSWER>",
    "<think>t</think><answer>B",
    "<think>t<answer>B</answer>",
]


@pytest.mark.parametrize("text", WELL)
def test_well_formed(text):
    assert well_formed(text)


@pytest.mark.parametrize("text", ILL)
def test_ill_formed(text):
    assert not well_formed(text)


@pytest.mark.parametrize("text", ["<answer><" + " " * 50_000 + "</answer>", "<" + " " * 50_000])
def test_spaces_in_a_tag_take_no_time(text):
    began = time.monotonic()
    extract_answer(text)
    well_formed(f"<think>{text}</think><answer>4</answer>")
    assert time.monotonic() - began < 5
