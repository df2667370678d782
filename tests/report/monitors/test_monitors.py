"""Monitors: each catches a run that trips it, and says nothing of one that does not."""

import json

import pytest
import torch
from PIL import Image

from motet.config import Recipe
from motet.config.choice import Choice
from motet.core.errors import ConfigError
from motet.numerics import image_statistics as stats
from motet.report.callbacks import CallbackList, StopTraining, resolve_callbacks
from motet.report.monitors import ImageDiversity, MetricBound, Retention
from motet.report.monitors.base import Bound
from motet.report.monitors.image_diversity import group_statistics, mean_statistics


def square(colour, place=4, size=16):
    image = Image.new("RGB", (size, size), "white")
    image.paste(colour, (place, place, place + 8, place + 8))
    return image


FOUR = [square(colour) for colour in ("red", "blue", "green", "black")]
BLACK = [square("black", place) for place in (2, 4, 6, 4)]


def run(callback, folder, values, step=1):
    """The metrics of steps as a run tells them; returns the step that asked for the end, None if none did."""
    callbacks = CallbackList([callback])
    callbacks.on_run_start(Recipe.model_construct(), folder)
    for number, value in enumerate(values, step):
        callbacks.on_step_end(number, {"rewards/look/mean": value})
        line = {"step": number - 1, "rewards/look/mean": value}
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if callbacks.stop is not None:
            return number
    return None


def test_statistics_by_hand():
    pixels = torch.zeros(2, 3, 4, 4)
    pixels[1, :, :, 2:] = 1.0  # black, then white from column 2 on
    assert stats.edge_density(pixels).tolist() == [0.0, 1.0]  # both inner columns are beside the step
    histogram = stats.colour_histogram(pixels)
    assert histogram[0, 0] == 1.0 and histogram[1, 0] == histogram[1, 63] == 0.5
    assert stats.colour_entropy(histogram).tolist() == [0.0, 1.0]
    assert stats.dominant_colour(histogram).tolist() == [1.0, 0.5]
    assert stats.colour_distance(histogram) == 0.5
    assert stats.pixel_distance(pixels) == pytest.approx(0.5**0.5)


def test_one_colour_for_every_noise_differs_in_place_but_not_in_colour():
    before, after = group_statistics(FOUR), group_statistics(BLACK)
    assert before["colour_distance"] == pytest.approx(0.25) and after["colour_distance"] == 0.0
    assert after["pixel_distance"] > 0 and before["pixel_distance"] > 0
    assert mean_statistics([FOUR[:1]]) == {} and mean_statistics([FOUR, FOUR[:1]]) == before


def test_images_of_other_sizes_and_modes_are_compared():
    large = Image.new("L", (300, 200), 255)
    assert group_statistics([large, large])["pixel_distance"] == 0.0
    assert group_statistics([square("red"), square("red", size=16).resize((32, 32))])["colour_entropy"] > 0


@pytest.mark.parametrize(
    ("limits", "value", "baseline", "said"),
    [
        ({"min": 0.5}, 0.4, None, "below 0.5"),
        ({"max": 0.5}, 0.6, None, "above 0.5"),
        ({"min_ratio": 0.5}, 0.4, 1.0, "below 0.5 times its value at the start, 1"),
        ({"max_ratio": 2}, 2.1, 1.0, "above 2 times"),
        ({"min": 0.0}, float("nan"), None, "below 0"),
        ({"min": 0.5, "max_ratio": 2}, 0.5, 0.3, None),
        ({"min_ratio": 0.5}, 0.1, None, None),
    ],
)
def test_bounds(limits, value, baseline, said):
    found = Bound.of("m", limits).violation(value, baseline)
    assert (found is None) if said is None else said in found


def test_a_watched_reward_that_falls_stops_the_run_after_three_steps(tmp_path):
    monitor = MetricBound("rewards/look/mean", min_ratio=0.5, action="stop", baseline=2)
    assert run(monitor, tmp_path, [0.8, 0.8, 0.7, 0.3, 0.5, 0.3, 0.2, 0.1]) == 8  # 0.5 is within: it starts again


def test_a_resumed_run_keeps_the_baseline_of_its_start(tmp_path):
    settings = {"min_ratio": 0.5, "action": "stop", "baseline": 3, "patience": 2}
    assert run(MetricBound("rewards/look/mean", **settings), tmp_path, [0.8, 0.8, 0.8, 0.3]) is None
    assert run(MetricBound("rewards/look/mean", **settings), tmp_path, [0.3, 0.3], step=5) == 6


def test_a_warning_comes_once_until_the_value_came_back(tmp_path):
    monitor = MetricBound("rewards/look/mean", min=0.5, patience=2)
    with pytest.warns(
        UserWarning, match=r"'metric_bound': rewards/look/mean is 0.1 after step [26], below 0.5"
    ) as warned:
        assert run(monitor, tmp_path, [0.1, 0.1, 0.1, 0.9, 0.1, 0.1]) is None
    steps = [json.loads(line)["step"] for line in (tmp_path / "warnings.jsonl").read_text().splitlines()]
    assert len(warned) == 2 and steps == [1, 5]


def test_a_metric_that_no_step_has_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"'rewards/loook/mean'.* Did you mean 'rewards/look/mean'"):
        run(MetricBound("rewards/loook/mean", min=0), tmp_path, [0.1] * 5)


def test_a_collapse_of_fixed_prompts_is_compared_with_the_start(tmp_path):
    monitor = ImageDiversity(prompts=["an image of a cross"], n=4, every=10, action="stop")
    monitor.on_run_start(Recipe.model_construct(), tmp_path)
    assert monitor.on_probe(0, group_statistics(FOUR))["monitor/prompts/colour_distance"] == 0.25
    again = ImageDiversity(prompts=["an image of a cross"], n=4, every=10, action="stop")  # as in a resumed run
    again.on_run_start(Recipe.model_construct(), tmp_path)
    again.on_probe(10, group_statistics(BLACK))
    with pytest.raises(StopTraining, match=r"monitor/prompts/colour_distance is 0 after step 10, below 0.25 times"):
        again.on_step_end(10, {})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("image_diversity", {"bonds": {}}, "Did you mean 'bounds'?"),
        ("image_diversity", {"bounds": {"colours": {"min": 1}}}, "colour_distance, pixel_distance"),
        ("image_diversity", {"bounds": {"edge_density": {"minimum": 1}}}, "Did you mean 'min'"),
        ("image_diversity", {"bounds": {"edge_density": {"min": "a"}}}, "bounds.edge_density.min='a'"),
        ("image_diversity", {"prompts": "a cross", "every": 5}, "a list of prompts"),
        ("image_diversity", {"prompts": ["a cross"]}, "every=None"),
        ("image_diversity", {"every": 5}, "left out without prompts"),
        ("image_diversity", {"action": "halt"}, "warn or stop"),
        ("metric_bound", {"metric": "reward"}, "has no limit"),
        ("metric_bound", {"min": 1}, "metric=None"),
        ("retention", {"suite": "shapes", "metric": "answer", "every": 0, "min": 1}, "every=0"),
        ("retention", {"suite": 3, "metric": "answer", "every": 1, "min": 1}, "suite=3"),
        ("best_checkpoint", {"metric": "eval/draw", "mode": "largest"}, "max or min"),
        ("best_checkpoint", {}, "metric=None"),
        ("best_checkpont", {}, "Did you mean 'best_checkpoint'"),
    ],
)
def test_wrong_options_are_rejected(name, options, message):
    with pytest.raises(ConfigError) as caught:
        resolve_callbacks([Choice.of(name, **options)])
    assert message in str(caught.value) and "run.callbacks" in str(caught.value)


def test_a_suite_without_the_metric_is_an_error():
    monitor = Retention("shapes", "answers", 5, min=0.5)
    with pytest.raises(ConfigError, match=r"Did you mean 'answer'"):
        monitor.on_probe(0, {"answer": 0.9, "draw": 0.5})
