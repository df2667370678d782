"""`motet bench rewards-overlap`: what of the rewards' time no step waits for."""

import pytest

from motet.config import parse_recipe
from motet.core.errors import ConfigError
from motet.evaluation.bench_overlap import bench_overlap
from motet.report.callbacks import Callback
from tests.runs import mapping

CORRECTED = {"loss": {"name": "grpo", "rollout_is": "token"}}


def measure(recipe, delay):
    return bench_overlap(parse_recipe(recipe), delay, steps=2, warmup=1, repeats=1, callback=Callback())


@pytest.mark.slow
def test_a_short_delay_is_hidden_and_a_long_one_in_part(tiny_checkpoint):
    recipe = mapping(tiny_checkpoint, algorithm=CORRECTED)
    short, long = measure(recipe, 0.02), measure(recipe, 0.6)
    assert short.steps == 2 and short.called >= 0.02 and short.hidden_low <= short.hidden <= short.hidden_high
    assert short.hidden > 0.8 and long.hidden < short.hidden
    assert long.called >= 0.6 and long.waited == pytest.approx((1 - long.hidden) * long.called, rel=1e-6)
    assert long.ratio_low <= long.ratio <= long.ratio_high and long.step_seconds >= long.waited


def test_recipes_that_cannot_overlap_are_rejected(tiny_checkpoint):
    with pytest.raises(ConfigError, match=r"set algorithm.loss.rollout_is to token"):
        measure(mapping(tiny_checkpoint), 0.0)
    rewards = [*mapping(tiny_checkpoint)["rewards"], {"name": "token_matching"}]
    with pytest.raises(ConfigError, match=r"'token_matching' uses the policy"):
        measure(mapping(tiny_checkpoint, rewards=rewards, algorithm=CORRECTED), 0.0)
