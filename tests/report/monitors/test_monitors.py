"""Monitors: each catches a run that trips it, and says nothing of one that does not."""

import json
from pathlib import Path

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
from motet.report.monitors.image_groups import group_statistics, mean_statistics


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
    assert before["colour_modes"] == pytest.approx(4.0) and after["colour_modes"] == pytest.approx(1.0)
    assert mean_statistics([]) == {} and mean_statistics([before, after])["colour_modes"] == pytest.approx(2.5)


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


def test_content_is_what_is_not_background():
    noise = torch.rand(4, 3, 16, 16, generator=torch.manual_seed(0)) * 0.1 + 0.7  # across the border of two levels
    pixels = noise.clone()
    pixels[0, :, 4:8, 4:8] = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    pixels[1, :, 4:8, 4:8] = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
    pixels[2, :, 4, 4] = 0.0  # one pixel of 256 is less than EMPTY
    contents = stats.content_colours(pixels)
    assert contents[0, 48] == contents[1, 3] == 1.0
    assert torch.allclose(contents[2:], stats.colour_histogram(pixels)[2:])


def test_effective_number_of_colours_by_hand():
    one, other, half = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    assert stats.effective_number(torch.stack([one] * 4)) == pytest.approx(1.0)
    assert stats.effective_number(torch.stack([one, other, one, other])) == pytest.approx(2.0)
    shares = torch.tensor([0.75, 0.25])  # eigenvalues of [[1, 0.5], [0.5, 1]] / 2
    assert stats.effective_number(torch.stack([one, half])) == pytest.approx(
        float(torch.exp(torch.special.entr(shares).sum()))
    )


def probe(**prompts):
    """The metrics of the suite for prompts, each with its images."""
    measured = {prompt.replace("_", " "): group_statistics(images) for prompt, images in prompts.items()}
    return {f"{name}/{prompt}": value for prompt, group in measured.items() for name, value in group.items()}


def diversity(folder, **options):
    monitor = ImageDiversity(["a cross"], every=10, **options)
    monitor.on_run_start(Recipe.model_construct(), folder)
    return monitor


def test_a_prompt_that_lost_its_colours_is_compared_with_its_own_start(tmp_path):
    closed = [square("red", place) for place in (2, 4, 6, 4)]
    start = diversity(tmp_path).on_probe(0, probe(a_cross=FOUR, a_red_cross=closed))
    assert start["monitor/prompts/colour_modes_beyond"] == 0.0
    resumed = diversity(tmp_path, action="stop")
    found = resumed.on_probe(10, probe(a_cross=BLACK, a_red_cross=closed))
    assert found["monitor/prompts/colour_modes_beyond"] == 1.0  # of the one prompt that leaves colours open
    with pytest.raises(
        StopTraining, match=r"after step 10 1 of 1 prompts are beyond the limit of colour_modes: 'a cross'"
    ):
        resumed.on_step_end(10, {})
    again = diversity(tmp_path, share=1.0).on_probe(20, probe(a_cross=FOUR, a_red_cross=closed))
    assert again["monitor/prompts/colour_modes_beyond"] == 0.0  # the start is still that of step 0
    assert '"colour_modes/a cross": 4.0' in (tmp_path / "monitors.json").read_text()


def test_a_share_of_the_prompts_must_be_beyond_the_limit(tmp_path, recwarn):
    shapes = ("a_cross", "a_circle", "a_square", "a_star", "a_heart")
    before = probe(**dict.fromkeys(shapes, FOUR))
    for share, warned in ((0.25, 0), (0.2, 1)):
        (tmp_path / str(share)).mkdir()
        monitor = diversity(tmp_path / str(share), share=share)
        monitor.on_probe(0, before)
        monitor.on_probe(10, before | probe(a_cross=BLACK))
        assert len(recwarn) == warned, share
    assert "'a cross': 1, below 0.5 times its value at the start, 4" in str(recwarn[0].message)


def crosses(name):
    """16 images of "an image of a cross" of the unified model of the shapes world, in the runs of
    docs/how-to/monitors.md: before, after 60 steps on `shapes`, and after 10 steps on `shapes` and contrast."""
    strip = Image.open(Path(__file__).parent / f"crosses_{name}.png").convert("RGB")
    return [strip.crop((x, 0, x + strip.height, strip.height)) for x in range(0, strip.width, strip.height)]


def test_crosses_that_became_black_are_caught_by_default(tmp_path, recwarn):
    monitor = diversity(tmp_path)
    for step, name in ((0, "before"), (60, "after_60_steps")):
        monitor.on_probe(step, probe(an_image_of_a_cross=crosses(name)))
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"colour_modes: 'an image of a cross': 2[.\d]*, below 0.5 times"):
        monitor.on_probe(70, probe(an_image_of_a_cross=crosses("black")))
    before, black = group_statistics(crosses("before")), group_statistics(crosses("black"))
    assert black["pixel_distance"] > before["pixel_distance"]  # the places still differ: only the colours tell


def test_prompts_without_open_colours_are_told_once(tmp_path, recwarn):
    monitor = diversity(tmp_path)
    for step in (0, 10):
        assert "monitor/prompts/colour_modes_beyond" not in monitor.on_probe(step, probe(a_cross=BLACK))
    assert [str(warning.message) for warning in recwarn if "leave colours open" in str(warning.message)] != []
    assert len(recwarn) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("image_diversity", {"bonds": {}}, "Did you mean 'bounds'?"),
        ("image_diversity", {"bounds": {"colours": {"min": 1}}}, "colour_distance, pixel_distance"),
        ("image_diversity", {"bounds": {"edge_density": {"minimum": 1}}}, "Did you mean 'min'"),
        ("image_diversity", {"bounds": {"edge_density": {"min": "a"}}}, "bounds.edge_density.min='a'"),
        ("image_diversity", {"prompts": "a cross", "every": 5}, "a list of prompts"),
        ("image_diversity", {"every": 0}, "every=0"),
        ("image_diversity", {"n": 1}, "n=1"),
        ("image_diversity", {"share": 0}, "share=0"),
        ("image_diversity", {"split": 3}, "split=3"),
        ("rollout_images", {"groups": 0}, "groups=0"),
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
