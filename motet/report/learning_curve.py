"""The learning curve of a run as an image."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

SMOOTHED = 20
"""Steps that the thick line averages over."""


def has_plots() -> bool:
    """Whether matplotlib, which plots the curve, is installed (`pip install "motet[plots]"`)."""
    return find_spec("matplotlib") is not None


def curve_keys(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The reward of every track; without rewards (SFT) the loss."""
    keys = sorted({key for line in metrics for key in line if key.split("/")[-1] == "reward"})
    return keys or [key for key in ("loss",) if any(key in line for line in metrics)]


def learning_curve(metrics: Sequence[Mapping[str, Any]]) -> bytes | None:
    """A PNG of the rewards by step, each with its mean over the last 20; None without metrics. Needs matplotlib."""
    keys = curve_keys(metrics)
    if not keys:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(keys), 3), layout="constrained")
    for panel, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        steps, values = zip(
            *((line["step"] + 1, line[key]) for line in metrics if line.get(key) is not None), strict=True
        )
        panel.plot(steps, values, color="tab:blue", alpha=0.3, linewidth=0.8)
        means = [
            sum(window) / len(window)
            for window in (values[max(0, n - SMOOTHED) : n] for n in range(1, len(values) + 1))
        ]
        panel.plot(steps, means, color="tab:blue")
        panel.set(xlabel="step", title=key)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
