"""Time and memory of a training step against what it consists of, for `motet bench scaling`.

One quantity varies at a time: group size, prompts, image tokens, or the length of prompts. Every point runs in a
process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from motet.evaluation.bench_learner import MotetStep
from motet.evaluation.bench_models import BenchSizes, StepShape, make_policy
from motet.evaluation.measuring import in_new_process, matmul_rate, peak_memory, reset_peak_memory


@dataclass(frozen=True)
class ScalingPoint:
    """One step: P prompts of T tokens, G images each, every image with `image_side`^2 tokens."""

    prompts: int = 2
    generations: int = 8
    image_side: int = 8
    prompt_tokens: int = 64


SIZES = BenchSizes(hidden=256, layers=4, heads=4, intermediate=704, vocab=1024, codes=1024)
AXES: Mapping[str, Sequence[int]] = {
    "generations": (2, 4, 8, 16, 32),
    "prompts": (1, 2, 4, 8),
    "image_side": (4, 8, 12, 16),
    "prompt_tokens": (16, 64, 256, 512),
}
"""What varies, and its values."""


def bench_scaling(
    repeats: int,
    axes: Mapping[str, Sequence[int]] = AXES,
    sizes: BenchSizes = SIZES,
    base: ScalingPoint | None = None,
    on_point: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """One row per axis and value, everything else as in `base`.

    `seconds` are medians over the repeats; `peak_gb` the process's peak memory during the steps, `step_gb` what it is
    above that of the loaded model: activations, gradients, moments and caches. It is 0 where a step needs no more
    than loading left free. `matmul_share` is the arithmetic of training (6 operations per weight of the layers and
    the head and per token) over what the machine's matrix products do in the time that training takes.
    """
    base = base or ScalingPoint()
    points = [(axis, value, replace(base, **{axis: value})) for axis, values in axes.items() for value in values]
    measured: dict[ScalingPoint, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for number, (axis, value, point) in enumerate(points):
        if point not in measured:
            measured[point] = in_new_process(_measure, point, sizes, repeats)
        shown = {"axis": "image_tokens", "value": value**2} if axis == "image_side" else {"axis": axis, "value": value}
        rows.append({**shown, **measured[point]})
        on_point(number + 1, len(points))
    return rows


def _measure(point: ScalingPoint, sizes: BenchSizes, repeats: int) -> dict[str, Any]:
    sizes = replace(sizes, image_side=point.image_side)
    shape = StepShape(point.prompts, point.generations, point.prompt_tokens)
    policy = make_policy(sizes)
    step = MotetStep(policy, "image", shape)
    reset_peak_memory(policy.device)
    loaded = peak_memory(policy.device)
    step()
    times = [step() for _ in range(repeats)]
    peak = max(loaded, peak_memory(policy.device))  # Linux counts pages per core, and reads a peak some pages too low
    seconds = {phase: statistics.median(one[phase] for one in times) for phase in times[0]}
    tokens = point.prompts * (point.prompt_tokens + point.generations * point.image_side**2)
    limit = matmul_rate(policy.device, policy.adapter.language_model.embed_tokens.weight.dtype)
    return {
        "seconds": seconds,
        "step_seconds_low": min(one["step"] for one in times),
        "step_seconds_high": max(one["step"] for one in times),
        "peak_gb": peak / 1e9,
        "step_gb": (peak - loaded) / 1e9,
        "matmul_share": 6 * _matmul_weights(sizes) * tokens / seconds["learn"] / limit,
    }


def _matmul_weights(sizes: BenchSizes) -> int:
    """Numbers in the matrices that every token of an image is multiplied with."""
    layer = 4 * sizes.hidden**2 + 3 * sizes.hidden * sizes.intermediate
    return sizes.layers * layer + sizes.hidden**2 + sizes.hidden * sizes.codes


def doublings(rows: Sequence[Mapping[str, Any]], axis: str) -> dict[int, float]:
    """How many times longer a step takes where a value of the axis doubles, by the doubled value."""
    seconds = {row["value"]: row["seconds"]["step"] for row in rows if row["axis"] == axis}
    return {value: time / seconds[value // 2] for value, time in seconds.items() if value // 2 in seconds}
