"""What share of its peak a device reaches: stated constants, or measured ones from a file of `motet bench step`.

The constants are typical of well-written code, not measured by us on these devices. With `--calibrate FILE` the times
of each phase are scaled so that the estimate of the measured run equals the measurement. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motet.core.errors import ConfigError


@dataclass(frozen=True)
class Efficiency:
    """Shares of the peak: of large products while training, of products and of memory bandwidth while decoding, of
    links.

    `kernel_seconds` is the time to launch one kernel where nothing hides it: with CUDA graphs about 1.5 microseconds,
    of which a decoder layer has `kernels_per_layer`. `overlap` is the share of communication that computation hides.
    `scale` multiplies the seconds of a phase: what a calibration found.
    """

    training: float = 0.5
    decoding: float = 0.5
    bandwidth: float = 0.7
    links: float = 0.7
    kernel_seconds: float = 1.5e-6
    kernels_per_layer: int = 12
    overlap: float = 0.8
    scale: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class MeasuredRun:
    """What `motet bench step --json` wrote: seconds by phase, and what it ran."""

    seconds: Mapping[str, float]
    num_trainable: int
    trajectories: int
    peak_gb: float


def measured_run(path: Path, with_texts: bool) -> MeasuredRun:
    """The run in a file of `motet bench step --json` (`motet.evaluation.bench_step.StepTimes`), or that of the two runs
    in a file of `scripts/gpu_check.sh` that has texts or not. Raises ConfigError.
    """
    fix = "give a file that motet bench step RECIPE --json FILE or scripts/gpu_check.sh wrote."
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--calibrate {str(path)!r} cannot be read: {error}.", fix=fix) from None
    try:
        if "parts" in content:  # of scripts/gpu_check.sh
            content = content["parts"]["steps"]["images_and_texts" if with_texts else "images"]
        seconds = {phase: float(content["seconds"][phase]) for phase in ("rollout", "learn")}
        run = MeasuredRun(
            seconds, int(content["num_trainable"]), int(content["trajectories"]), float(content["peak_gb"])
        )
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"--calibrate {str(path)!r} lacks seconds.rollout, seconds.learn, num_trainable, trajectories or peak_gb.",
            fix=fix,
        ) from None
    if not min(seconds.values()) > 0:
        raise ConfigError(f"--calibrate {str(path)!r} has a phase of 0 seconds.", fix="measure more steps.")
    return run
