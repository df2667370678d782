"""The bounds of the checks during a run: a warning when sampling and training drift apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

from motet.preflight.bounds import FLOAT32_MEAN, FLOAT32_SINGLE, ROUNDED_MEAN, ROUNDED_OUTSIDE
from motet.report.callbacks import Callback
from motet.report.run_dir import WARNINGS, RunFolder

AGAIN = 3.0
"""A further warning of a kind comes when the value is so many times that of the last."""
_DIFFERENCE, _LARGEST, _OUTSIDE = (
    f"/train_rollout_{name}" for name in ("logprob_diff", "logprob_diff_max", "ratio_outside")
)


class BoundsWatch(Callback):
    """Compares replayed with sampled log-probs in the first update of each step; see `docs/how-to/preflight.md`.

    `rounds`: whether sampling or training computes in less than float32, or samples come from older weights: then only
    the wider bounds hold. Warnings are printed, and written to `warnings.jsonl`.
    """

    def __init__(self, folder: RunFolder, *, rounds: bool) -> None:
        self.folder, self.rounds = folder, rounds
        self._told: dict[str, float] = {}

    def state_dict(self) -> dict[str, float]:
        """The values that it warned about last, by metric."""
        return dict(self._told)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self._told = dict(state)

    def on_step_end(self, step: int, metrics: Mapping[str, float]) -> None:
        """Warn about each bound that is exceeded."""
        for key, value, bound, unit in self._exceeded(metrics):
            if value <= AGAIN * self._told.get(key, 0.0):
                continue
            self._told[key] = value
            message = (
                f"Step {step}: {key} is {value:.3g}{unit}, more than {bound:g}: before the update, replayed log-probs "
                "should be the sampled ones. Sampling and training compute different things; see "
                "docs/how-to/preflight.md."
            )
            self.folder.append_line(WARNINGS, {"step": step - 1, "message": message})
            warnings.warn(message, stacklevel=2)

    def _exceeded(self, metrics: Mapping[str, float]) -> Iterator[tuple[str, float, float, str]]:
        mean = ROUNDED_MEAN if self.rounds else FLOAT32_MEAN
        bounds = {_DIFFERENCE: (mean, " nats"), _OUTSIDE: (ROUNDED_OUTSIDE if self.rounds else 0.0, "")}
        if not self.rounds:
            bounds[_LARGEST] = (FLOAT32_SINGLE, " nats")
        for key, value in metrics.items():
            for end, (bound, unit) in bounds.items():
                if key.endswith(end) and value > bound:
                    yield key, value, bound, unit
