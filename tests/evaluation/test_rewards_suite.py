"""The rewards suite: means over validation rows, intervals and samples."""

import io
import statistics

import pytest

from motet.config import parse_recipe
from motet.core.conversation import user
from motet.data import open_rows
from motet.evaluation.rewards_suite import _summary, evaluate_tracks
from motet.numerics.statistics import mean_interval
from motet.report.tables import rewards_table
from motet.report.terminal import Terminal
from motet.scenarios import GenerateImage, scenario
from motet.training.setup import setup_rl
from tests.experiments.test_tracks import ALONE
from tests.runs import mapping

EVAL = {"suite": "rewards", "size": 5, "samples_per_item": 3}


def taste(completions, prompt):
    """Half of the rows are applies: by the length of their prompt."""
    return [None if len(asked) % 2 else float(n) for n, asked in enumerate(prompt)]


@pytest.fixture(scope="module")
def evaluated(tiny_checkpoint):
    content = mapping(tiny_checkpoint, eval=EVAL)
    content["rewards"].append({"name": f"{__file__}:taste"})
    session = setup_rl(parse_recipe(content))
    progress = []
    return evaluate_tracks(session, lambda done, total: progress.append((done, total))), progress


def test_mean_and_interval_are_over_rows(evaluated):
    (table, progress) = evaluated[0].table["generate_and_answer"], evaluated[1]
    assert list(table) == ["reddish", "spacious", "taste"] and progress == [(5, 5)]
    for numbers in table.values():
        own = [value for value in numbers["by_row"] if value is not None]
        mean, half = mean_interval(own)
        assert numbers["mean"] == pytest.approx(mean, abs=2e-4) and len(numbers["by_row"]) == 5
        assert numbers["interval"] == pytest.approx(half, abs=2e-3) and numbers["rows"] == len(own)
    assert len(set(table["reddish"]["by_row"])) > 1


def test_rows_without_the_reward_have_no_value(evaluated):
    table = evaluated[0].table["generate_and_answer"]
    given = [value is not None for value in table["taste"]["by_row"]]
    assert 0 < sum(given) < 5
    generations = [(3 * n, 3 * n + 1, 3 * n + 2) for n in range(5)]
    means = [statistics.fmean(places) if applies else None for places, applies in zip(generations, given, strict=True)]
    assert table["taste"]["by_row"] == means


def test_a_reward_without_values_has_no_mean():
    nothing = _summary([[None, None]], [[None]])
    assert (nothing["mean"], nothing["interval"], nothing["greedy"], nothing["rows"]) == (None, None, None, 0.0)
    single = _summary([[1.0, 0.0], [None, None]], [[1.0], [None]])
    assert (single["mean"], single["interval"], single["greedy"], single["rows"]) == (0.5, None, 1.0, 1.0)
    shown = rewards_table({"before": {"generate_and_answer": {"a": nothing}}}, "x")
    assert list(shown.columns[1].cells) == ["no row"]


@scenario("twice", acts={"one": "image", "other": "image"}, columns=("prompt",))
def twice(task):
    one = yield GenerateImage(user("the one\nin red"), name="one")
    yield GenerateImage(user(one.image, "the other"), name="other")


@pytest.mark.parametrize(("acts", "asked"), [(["one"], "the one"), (["one", "other"], "the other")])
def test_samples_are_images_with_the_first_reward(tiny_checkpoint, acts, asked):
    content = mapping(tiny_checkpoint, scenario=f"{__file__}:twice", eval={**EVAL, "size": 2})
    reddish = content["rewards"][0]["name"]
    content["rewards"] = [{"name": reddish, "acts": acts}, {"name": reddish}]
    shown = evaluate_tracks(setup_rl(parse_recipe(content))).samples
    assert [one.prompt for one in shown] == [asked] * 2


def test_a_split_with_fewer_rows_is_used_completely(tiny_checkpoint, monkeypatch):
    def opened(data, columns, *, seed, check):
        assert data.size is None  # what bounds training does not bound the measurement
        return open_rows(data.model_copy(update={"size": 3}), columns, seed=seed, check=check)

    session = setup_rl(parse_recipe(mapping(tiny_checkpoint, eval=EVAL, data={"size": 4})))
    monkeypatch.setattr("motet.training.setup.open_rows", opened)
    progress = []
    table = evaluate_tracks(session, lambda done, total: progress.append((done, total))).table["generate_and_answer"]
    assert progress == [(3, 3)] and len(table["reddish"]["by_row"]) == 3


def test_training_rows_are_not_evaluated(tiny_checkpoint, monkeypatch):
    seen = []

    def opened(data, columns, *, seed, check):
        seen.append((data.split, seed))
        return open_rows(data, columns, seed=seed, check=check)

    content = mapping(tiny_checkpoint, **ALONE, eval={**EVAL, "size": 1, "samples_per_item": 1, "seed": 77})
    content["tracks"] = {"one": {**content["tracks"]["draws"]}}
    content["run"] = {"steps": 1}
    session = setup_rl(parse_recipe(content))
    monkeypatch.setattr("motet.training.setup.open_rows", opened)
    evaluate_tracks(session)
    assert seen == [("test", 77)]


def test_the_change_is_paired():
    def numbers(rows):
        return {"draw": {"x": {"mean": 0.5, "interval": 0.4, "greedy": 0.5, "rows": 3.0, "by_row": rows}}}

    table = rewards_table({"before": numbers([0.0, 0.5, 0.9]), "after": numbers([0.1, 0.7, 1.0])}, "t")
    assert list(table.columns[3].cells) == ["+0.133 \u00b1 0.143"]


@pytest.mark.parametrize("tracks", [["generate_and_answer"], ["generate_and_answer", "answer"]])
def test_no_column_is_cut_off_in_80_columns(tracks):
    row = {"mean": -8.402, "interval": 0.88, "greedy": -5.125, "rows": 2.0, "by_row": [-8.0, -9.0]}
    shown = {track: {"two_colours": row} for track in tracks}
    file = io.StringIO()
    Terminal(file=file, width=80).print(rewards_table({"before": shown, "after": shown}, "t"))
    assert file.getvalue().count("-5.125") == 2 * len(tracks) and "\u2513\n" in file.getvalue()
    assert ("answer:" in file.getvalue()) == (len(tracks) > 1)
