"""Results of the suite `rewards` before and after training, and comparisons, against hand calculations."""

import io
import math

import pytest
from rich.console import Console

from motet.config.plan import trajectories
from motet.config.stages import parse_plan
from motet.core.errors import ConfigError
from motet.experiments.before_after import before_after_rows, before_after_table, comparisons
from motet.experiments.tables import plan_tables
from motet.report.report_table import ReportTable
from tests.experiments.test_tracks import TRACKS
from tests.runs import mapping

EVAL = {"suite": "rewards", "size": 4, "samples_per_item": 2}


def content(**stages):
    shared = mapping("runs/start", eval=EVAL)
    return {
        "shared": shared,
        "stages": {"one": {}, "two": {"algorithm": {"advantage_assignment": "joint"}}, **stages},
        "compare": {"assignment": ["one", "two"]},
    }


def numbers(rows):
    own = [value for value in rows if value is not None]
    return {"mean": sum(own) / len(own), "interval": 0.1, "greedy": 0.25, "rows": float(len(own)), "by_row": rows}


NAME = "generate_and_answer"


def summary():
    start = {
        "generate_and_answer": {"reddish": numbers([0.0, 0.5, 1.0, None]), "spacious": numbers([0.9, 0.9, 0.9, 0.9])}
    }
    ends = {
        "one": {
            "generate_and_answer": {
                "reddish": numbers([0.25, 0.5, 1.0, 1.0]),
                "spacious": numbers([0.0, 0.0, 0.0, 0.0]),
            }
        },
        "two": {
            "generate_and_answer": {
                "reddish": numbers([0.0, 0.25, 0.5, 0.0]),
                "spacious": numbers([1.0, 1.0, 1.0, 1.0]),
            }
        },
    }
    return {"stages": {name: {"before": start, "after": end, "seconds": 3.0} for name, end in ends.items()}}


def test_results_use_the_first_reward(tmp_path):
    one, two = before_after_rows(parse_plan(content(), tmp_path), summary())
    assert (one.stage, one.scenario, one.policy, one.advantage_assignment) == ("one", NAME, "start", "factorized")
    assert (one.reward, one.rows, two.advantage_assignment, two.trajectories) == ("reddish", 4, "joint", 4 * 2 * 2)
    assert one.before == 0.5 and one.after == pytest.approx(2.75 / 4) and one.greedy == (0.25, 0.25)
    assert one.difference == pytest.approx((0.25 / 3, 4.303 * 0.14434 / math.sqrt(3)), rel=1e-3)  # 1/4, 0, 0
    assert two.difference[0] == pytest.approx(-0.25)


def test_comparisons_are_differences_of_two_stages(tmp_path):
    (contrast,) = comparisons(parse_plan(content(), tmp_path), summary())
    assert contrast.before == (0.0, pytest.approx(1 - 0.05 ** (1 / 3)))  # three rows are equal
    assert contrast.after[0] == pytest.approx((0.25 + 0.25 + 0.5 + 1.0) / 4)
    tables = plan_tables(parse_plan(content(), tmp_path), summary() | {"starts": {}})
    assert len(tables) == 2 and "one \u2212 two" in printed(tables[1], 80)


def test_every_track_has_a_result(tmp_path):
    made = content(both={"tracks": TRACKS, "run": {"steps_per_track": 1, "steps": 5}})
    plan = parse_plan(made, tmp_path)
    assert trajectories(plan.stage("both").recipe) == {"draws": 3 * 3 * 2, "answers": 2 * 2 * 2}
    rows = numbers([0.0, 1.0])
    tables = {"draws": {"reddish": rows}, "answers": {"spacious": rows}}
    told = summary()
    told["stages"]["both"] = {"before": tables, "after": tables, "seconds": 1.0}
    found = before_after_rows(plan, told)[2:]
    assert [(gain.stage, gain.scenario, gain.trajectories) for gain in found] == [
        ("both: draws", "text_to_image", 18),
        ("both: answers", "answer", 8),
    ]


def printed(sheet, width):
    console = Console(width=width, file=io.StringIO())
    console.print(sheet)
    return console.file.getvalue()


def test_constant_columns_are_moved_below_the_table(tmp_path):
    sheet = before_after_table(before_after_rows(parse_plan(content(), tmp_path), summary()))
    text = sheet.markdown()
    assert "| stage | advantage | before | after | difference | greedy |" in text
    assert "| one | factorized | 0.500 | 0.688 | +0.083 \u00b1" in text
    assert text.endswith("\npolicy: start; seed: 0; trajectories: 16; rows: 4\n")
    alone = ReportTable("t", ("stage", "seed"), (("a|b", "1"),)).markdown()
    assert alone == "t\n\n| stage |\n| --- |\n| a\\|b |\n\nseed: 1\n"


def test_narrow_terminals_hide_columns_and_list_them():
    row = (
        "a_stage_of_some_length",
        "checkpoint",
        "joint",
        "0.500",
        "0.688",
        "+0.083 \u00b1 0.021",
        "0.250 \u2192 0.250",
    )
    headings = ("stage", "policy", "advantage", "before", "after", "difference", "greedy")
    sheet = ReportTable("t", headings, (row, ("b", "other", "factorized", *row[3:])))
    wide, narrow = printed(sheet, 110), printed(sheet, 80)
    assert all(heading in wide for heading in headings) and "hidden columns" not in wide
    assert "hidden columns: advantage, policy " in narrow and "factorized" not in narrow
    assert all(cell in narrow for cell in (row[0], *row[3:])) and "other" not in narrow
    assert "a_stage" in printed(sheet, 50)  # even if no more columns can be hidden


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare": {"x": ["one"]}}, "compare.x: ['one'] does not fit; expected a list of 2 entries, each text"),
        ({"compare": {"x": ["one", "too"]}}, "compare.x: 'too' is not a stage. Fix: name two of one, two"),
        ({"compare": {"x": ["one", ["two"]]}}, "compare.x.1: ['two'] does not fit; expected text"),
        ({"compare": ["one", "two"]}, "expected a mapping to a list of 2 entries"),
        (
            {"stages": {"one": {}, "two": {"eval": {"suite": "none"}}}},
            "compare.assignment: names 'two'; expected a stage of",
        ),
        ({"stages": {"one": {}, "two": {"eval": {"size": 5}}}}, "are not evaluated on the same rows"),
        ({"stages": {"one": {}, "two": {"data": {"options": {"max_objects": 2}}}}}, "not evaluated on the same rows"),
    ],
)
def test_recipes_without_comparable_rewards_are_rejected(changes, message, tmp_path):
    with pytest.raises(ConfigError) as error:
        parse_plan(content() | changes, tmp_path)
    assert message in str(error.value)
