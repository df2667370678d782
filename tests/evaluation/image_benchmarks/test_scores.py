"""Tables of benchmarks by hand: means over values and prompts, weights, intervals, images without a score."""

import math
from dataclasses import replace

import pytest
from rich.console import Console

from motet.evaluation.image_benchmarks.prompts import Prompt
from motet.evaluation.image_benchmarks.scores import ImageScore, benchmark_table, summarize

PROMPT = Prompt("p", "a prompt", {}, "Line 1")
FAILED = ImageScore(None, reason="no reply")


def scored(*prompts):
    return [(n, replace(PROMPT, name=f"p{n}"), scores) for n, scores in enumerate(prompts)]


def one(task, value):
    return ImageScore(value, {task: [value]})


def shown(table):
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_the_overall_score_is_the_mean_over_groups_not_over_images():
    prompts = [[one("a", 1.0), one("a", 0.0)], [one("a", 1.0), one("a", 1.0)], [one("b", 0.0), one("b", 0.0)]]
    table = summarize(scored(*prompts), {"a": 0.5, "b": 0.5})
    assert table["groups"]["a"]["mean"] == 0.75 and table["groups"]["b"]["mean"] == 0.0
    assert table["overall"] == {"mean": 0.375, "interval": None}  # one prompt of b has no interval
    assert table["groups"]["a"]["by_row"] == [0.5, 1.0, None]
    assert table["prompts"] == [0, 1, 2] and table["images"] == 6
    assert table["groups"]["a"]["interval"] == 0.75  # from 0.75 down to 0; Student's would be 3.2


def test_the_interval_of_the_overall_score_adds_those_of_independent_groups():
    prompts = [[one("a", 1.0)], [one("a", 0.0)], [one("b", 1.0)], [one("b", 1.0)], [one("b", 0.0)]]
    table = summarize(scored(*prompts), {"a": 0.25, "b": 0.75})
    assert table["overall"]["mean"] == pytest.approx(0.25 * 0.5 + 0.75 * 2 / 3)
    assert table["overall"]["interval"] == pytest.approx(math.hypot(0.25 * 0.5, 0.75 * 2 / 3))  # down or up to 0 or 1


def test_groups_without_images_leave_the_weights_of_the_others():
    table = summarize(scored([one("a", 1.0)], [one("a", 0.5)]), {"a": 0.4, "b": 0.6})
    assert table["overall"]["mean"] == pytest.approx(0.75) and table["weights"] == {"a": 0.4}


def test_images_without_a_score_are_listed_and_never_0():
    table = summarize(scored([one("a", 1.0), FAILED], [FAILED, FAILED]), {"a": 1.0})
    assert table["overall"]["mean"] == 1.0 and table["groups"]["a"]["by_row"] == [1.0, None]
    assert [(entry["prompt"], entry["image"]) for entry in table["unscored"]] == [("p0", 1), ("p1", 0), ("p1", 1)]
    assert "3 of 4" in shown(benchmark_table({"x": table}, "t"))
    nothing = summarize(scored([FAILED]), {"a": 1.0})
    assert nothing["overall"] == {"mean": None, "interval": None} and "none" in shown(
        benchmark_table({"x": nothing}, "")
    )


def test_values_of_other_groups_count_each():
    """Two questions of one prompt and one of another: three values, not two prompts."""
    first = ImageScore(1.0, {"all": [1.0], "entity": [1.0, 1.0]})
    second = ImageScore(0.0, {"all": [0.0], "entity": [0.0]})
    table = summarize(scored([first], [second]), {"all": 1.0})
    assert table["groups"]["entity"]["mean"] == pytest.approx(2 / 3) and table["groups"]["all"]["mean"] == 0.5


def test_a_change_is_paired_by_prompt():
    before = summarize(scored([one("a", 0.0)], [one("a", 0.5)], [one("b", 0.0)], [one("b", 0.0)]), {"a": 0.5, "b": 0.5})
    after = summarize(scored([one("a", 0.5)], [one("a", 1.0)], [one("b", 0.0)], [one("b", 0.0)]), {"a": 0.5, "b": 0.5})
    lines = shown(benchmark_table({"before": before, "after": after}, "t")).splitlines()
    overall = next(line for line in lines if "overall" in line)
    assert "+0.250 \u00b1 0.700" in overall and "change" in lines[2]
