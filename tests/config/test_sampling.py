"""The keys of `sampling`: what becomes of them, and where a window of stochastic steps is at each training step."""

from __future__ import annotations

from collections import Counter

import pytest

from motet.config.choice import Choice
from motet.config.sampling import DenoisingSamplingConfig, ImageSamplingConfig, SdeWindowConfig, TextSamplingConfig
from motet.core.sampling import Sampling


@pytest.mark.parametrize("settings", [TextSamplingConfig(), ImageSamplingConfig(), DenoisingSamplingConfig()])
def test_the_default_settings_are_the_default_sampling(settings) -> None:
    assert settings.at() == Sampling()


def test_a_guidance_scale_counts_only_with_guidance() -> None:
    for kind in (ImageSamplingConfig, DenoisingSamplingConfig):
        assert kind(guidance_scale=3.0).at().guidance_scale == 1.0
        assert kind(guidance_scale=3.0, guidance="guided").at().guidance_scale == 3.0


@pytest.mark.parametrize(
    ("num_steps", "size", "stride", "expected"),
    [(5, 2, 1, (0, 1, 2)), (5, 2, 2, (0, 2)), (6, 2, 2, (0, 2, 3)), (7, 4, 9, (0, 2)), (4, 3, 1, (0,))],
)
def test_where_windows_begin(num_steps: int, size: int, stride: int, expected: tuple[int, ...]) -> None:
    assert SdeWindowConfig(size=size, stride=stride).starts(num_steps) == expected


def test_a_progressive_window_slides_and_begins_again() -> None:
    window = SdeWindowConfig(size=2, schedule=Choice.of("progressive", steps_per_position=2))
    assert [window.at(5, step, 0.0) for step in range(8)] == [(n, 2) for n in (0, 0, 1, 1, 2, 2, 0, 0)]


def test_a_random_window_is_uniform_over_the_positions() -> None:
    window = SdeWindowConfig(size=2, stride=2, schedule=Choice.of("random"))  # starts 0, 2, 3
    seen = Counter(window.at(6, 0, (n + 0.5) / 99)[0] for n in range(99))
    assert seen == {0: 33, 2: 33, 3: 33}
    assert window.at(6, 0, 1 - 2**-53) == (3, 2)


def test_a_fixed_window_stays() -> None:
    window = SdeWindowConfig(size=2, schedule=Choice.of("fixed"))
    assert {window.at(6, step, 0.9) for step in range(99)} == {(0, 2)}
