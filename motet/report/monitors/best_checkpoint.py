"""Keep the checkpoint that is best by an evaluation metric, beside the newest ones."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from motet.config import Recipe
from motet.core.atomic_files import write_atomic
from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean
from motet.report.callbacks import Callback, Metrics
from motet.report.monitors.base import option_error
from motet.weights.locate import BEST, checkpoint_name


class BestCheckpoint(Callback):
    """Saves a checkpoint whenever `metric`, as `metrics.jsonl` names it (`eval/NAME`), is better than ever before.

    `mode` is max or min. `checkpoints/best.json` names the checkpoint, which `run.keep_checkpoints` neither counts nor
    removes; a resumed run goes on with it. Evaluations every `eval.every` steps count, those before and after the run,
    which use more items, do not.
    """

    name: ClassVar[str] = "best_checkpoint"

    def __init__(self, metric: Any = None, mode: Any = "max") -> None:
        if not isinstance(metric, str) or not metric:
            raise option_error(self.name, "metric", metric, "the name of a metric, such as eval/NAME")
        if mode not in ("max", "min"):
            raise option_error(self.name, "mode", mode, "max or min")
        self.metric, self.sign = metric, 1.0 if mode == "max" else -1.0
        self._file: Path | None = None
        self._found: tuple[int, float] | None = None
        self._pending: tuple[int, float] | None = None  # better, and not saved yet

    @property
    def wants_checkpoint(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the last step is the best so far."""
        return self._pending is not None

    def on_run_start(self, recipe: Recipe, folder: Path) -> None:
        if self.metric.startswith("eval/") and recipe.eval.every is None:
            raise ConfigError(
                f"run.callbacks: {self.name!r} compares {self.metric!r}, which no step is evaluated for.",
                fix="set eval.every to the steps between evaluations.",
            )
        self._file = folder / "checkpoints" / BEST

    def state_dict(self) -> dict[str, Any]:
        """The best so far, the checkpoint that is being written included: a kill may come before `on_checkpoint`."""
        found = self._pending or self._found
        return {} if found is None else {"metric": self.metric, "step": found[0], "value": found[1]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["metric"] == self.metric:
            self._note(int(state["step"]), float(state["value"]))

    def on_step_end(self, step: int, metrics: Metrics) -> None:
        value = metrics.get(self.metric)
        evaluated = [name for name in sorted(metrics) if name.startswith("eval/") and not name.endswith("/interval")]
        if value is None and evaluated:
            raise ConfigError(
                f"run.callbacks: {self.name!r} compares {self.metric!r}, which is not a metric of the step."
                f"{did_you_mean(self.metric, metrics)}",
                fix=f"name one of {', '.join(evaluated)}.",
            )
        best = -math.inf if self._found is None else self.sign * self._found[1]
        better = value is not None and self.sign * value > best
        self._pending = (step, value) if better and value is not None else None

    def on_checkpoint(self, step: int, checkpoint: Path) -> None:
        if self._pending is not None and self._pending[0] == step:
            self._note(*self._pending)
            self._pending = None

    def _note(self, step: int, value: float) -> None:
        self._found = step, value
        if self._file is not None:
            content = {"checkpoint": checkpoint_name(step), "step": step, "metric": self.metric, "value": value}
            write_atomic(self._file, (json.dumps(content, indent=2) + "\n").encode("utf-8"))
