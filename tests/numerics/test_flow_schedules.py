"""Noise schedules: by hand, against diffusers, and rejected values."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from motet.numerics.flow.schedules import check_times, dynamic_shift, linear_sigmas, scheduler_sigmas, shift_sigmas


def test_steps_are_equal_without_shift() -> None:
    torch.testing.assert_close(linear_sigmas(4), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))


def test_shift_by_hand() -> None:
    """Shift 3 at 0.25, 0.5: 0.75 / 1.5 and 1.5 / 2. The ends stay."""
    torch.testing.assert_close(linear_sigmas(4, 3.0), torch.tensor([1.0, 2.25 / 2.5, 0.75, 0.5, 0.0]))


def test_shift_multiplies_the_odds() -> None:
    sigmas = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    shifted = shift_sigmas(sigmas, 2.5)
    torch.testing.assert_close(shifted / (1 - shifted), 2.5 * sigmas / (1 - sigmas))
    torch.testing.assert_close(shift_sigmas(shift_sigmas(sigmas, 2.0), 1.5), shift_sigmas(sigmas, 3.0))


def test_values_of_blip3o() -> None:
    """Ten steps of a scheduler with shift 3, which shifts twice (measured in the released pipeline)."""
    published = [1, 0.960, 0.913, 0.858, 0.790, 0.707, 0.602, 0.465, 0.278, 0.0089, 0]
    assert scheduler_sigmas(10, 3.0).tolist() == pytest.approx(published, abs=5e-4)


def test_dynamic_shift_by_hand() -> None:
    assert dynamic_shift(256) == pytest.approx(math.exp(0.5))
    assert dynamic_shift(4096) == pytest.approx(math.exp(1.15))
    assert math.log(dynamic_shift(1024)) == pytest.approx(0.5 + 0.65 * (1024 - 256) / (4096 - 256))  # 512 px: 0.63
    other = dynamic_shift(30, base_seq_len=10, max_seq_len=20, base_shift=1.0, max_shift=2.0)
    assert other == pytest.approx(math.exp(3.0))  # not clamped


@pytest.mark.parametrize("num_steps", [1, 7, 20])
def test_schedules_are_well_formed(num_steps: int) -> None:
    for times in (linear_sigmas(num_steps, 3.0), scheduler_sigmas(num_steps, 3.0), linear_sigmas(num_steps, 0.5)):
        assert times.shape == (num_steps + 1,) and times.dtype == torch.float32
        check_times(times)
        assert times[0] == 1 and times[-1] == 0


@pytest.mark.parametrize(
    "values", [[0.0], [1.0, 0.5], [1.0, 0.5, 0.5, 0.0], [0.0, 0.5, 0.0], [1.1, 0.5, 0.0], [1.0, float("nan"), 0.0]]
)
def test_invalid_schedules_are_rejected(values: list[float]) -> None:
    with pytest.raises(ValueError, match="decrease strictly"):
        check_times(torch.tensor(values))


def test_a_schedule_may_start_below_one() -> None:
    check_times(torch.tensor([0.8, 0.3, 0.0]))  # an edit that starts at a noised image


def test_invalid_values_are_rejected() -> None:
    with pytest.raises(ValueError, match="shift is 0"):
        linear_sigmas(4, 0.0)
    for schedule in (linear_sigmas, scheduler_sigmas):
        with pytest.raises(ValueError, match="num_steps is 0"):
            schedule(0)


# --- diffusers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("num_steps", [2, 10, 28])
def test_spacing_equals_diffusers(num_steps: int, shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(num_steps)
    torch.testing.assert_close(scheduler_sigmas(num_steps, shift), scheduler.sigmas, rtol=0, atol=3e-7)
    scheduler.set_timesteps(sigmas=[1 - step / num_steps for step in range(num_steps)])  # as FLUX's pipeline does
    torch.testing.assert_close(linear_sigmas(num_steps, shift), scheduler.sigmas, rtol=0, atol=3e-7)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("image_seq_len", [256, 1024, 4096])
def test_dynamic_shift_equals_diffusers(image_seq_len: int, kind: str) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    shift = dynamic_shift(image_seq_len)
    mu = math.log(shift) if kind == "exponential" else shift
    scheduler.set_timesteps(sigmas=[1 - step / 20 for step in range(20)], mu=mu)
    torch.testing.assert_close(linear_sigmas(20, shift), scheduler.sigmas, rtol=0, atol=3e-7)
