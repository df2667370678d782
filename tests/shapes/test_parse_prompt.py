"""Prompts of the shapes world as text, parsed back to their specs."""

import numpy as np
import pytest

from motet.shapes.large import prompts as large
from motet.shapes.parse_prompt import parse_prompt
from motet.shapes.prompts import CATEGORIES, PHRASES, prompt_text, sample_spec


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_prompt_of_the_world_gives_its_spec(category):
    rng = np.random.default_rng(0)
    for _ in range(200):
        spec = sample_spec(rng, category, 4)
        groups = spec["groups"]
        if len(groups) == 2 and groups[0]["shape"] == groups[1]["shape"] and groups[0]["colour"] == groups[1]["colour"]:
            continue
        for opening in PHRASES:
            assert parse_prompt(prompt_text(spec, opening)) == spec


@pytest.mark.parametrize("open_shapes", [0.0, 0.5])
@pytest.mark.parametrize("category", large.CATEGORIES)
def test_every_prompt_of_the_large_world_gives_its_spec(category, open_shapes):
    rng = np.random.default_rng(0)
    for _ in range(50):
        spec = large.sample_spec(rng, category, 4, open_shapes=open_shapes)
        assert parse_prompt(large.prompt_text(spec, "please draw "), world="large") == spec
        if category in ("comparison", "negation", "chain"):
            assert parse_prompt(large.prompt_text(spec)) is None


@pytest.mark.parametrize(
    "text",
    ["", "a cat", "a circle and a red circle", "a small red circle and a circle", "two circles left of a cross",
     "more stars than stars", "more stars", "one things and no star", "nine things and no star", "three things",
     "a small thing", "a red thing and a red circle", "two things above a star",
     "a circle above a cross above", "a big circle"],
)  # fmt: skip
def test_other_prompts_of_the_large_world_have_none(text):
    assert parse_prompt(text, world="large") is None


def test_what_people_type_is_parsed_too():
    wanted = [{"count": 2, "shape": "circle", "colour": "red"}]
    assert parse_prompt("  Draw TWO  red circles. ")["groups"] == wanted
    three = parse_prompt("a red circle and a blue circle and one cross")
    assert [group["count"] for group in three["groups"]] == [1, 1, 1]


@pytest.mark.parametrize(
    "text",
    ["", "a cat", "two red", "a circle and", "a circle and a red circle", "two circles left of a cross",
     "a circle above a cross below a square", "nine circles", "a red circle <b>"],
)  # fmt: skip
def test_other_prompts_have_none(text):
    assert parse_prompt(text) is None
