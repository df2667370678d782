"""A monitor of any metric of a step: a reward of weight 0 that is only watched, the KL, the entropy, a length."""

from __future__ import annotations

from typing import Any, ClassVar

from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean
from motet.report.callbacks import Metrics
from motet.report.monitors.base import Bound, Monitor, option_error


class MetricBound(Monitor):
    """Compares `metric`, as `metrics.jsonl` names it (`rewards/NAME/mean`), with min, max, min_ratio and max_ratio.

    A reward of weight 0 is logged and not trained on: one that falls while the others rise shows reward hacking. A step
    without the metric is not checked; if no step of the first `baseline` ones has it, ConfigError.
    """

    name: ClassVar[str] = "metric_bound"

    def __init__(
        self,
        metric: Any = None,
        *,
        min: Any = None,
        max: Any = None,
        min_ratio: Any = None,
        max_ratio: Any = None,
        action: Any = "warn",
        patience: Any = 3,
        baseline: Any = 5,
    ) -> None:
        super().__init__(action, patience, baseline)
        if not isinstance(metric, str) or not metric:
            raise option_error(self.name, "metric", metric, "the name of a metric, such as rewards/NAME/mean")
        self.metric = metric
        limits = {"min": min, "max": max, "min_ratio": min_ratio, "max_ratio": max_ratio}
        self.bound = Bound.of(self.name, limits)
        self._missed = 0

    def on_step_end(self, step: int, metrics: Metrics) -> None:
        if self.metric in metrics:
            fix = (
                "look at the samples of the last steps; start again from an earlier checkpoint with a larger "
                "algorithm.beta or a smaller learning rate, or give the reward a weight."
            )
            self._missed = -1
            self.check(step, self.metric, metrics[self.metric], self.bound, fix)
            super().on_step_end(step, metrics)
        elif self._missed >= 0:
            self._missed += 1
            if self._missed == self.baseline:
                raise ConfigError(
                    f"run.callbacks: {self.name!r} watches the metric {self.metric!r}, which none of the first "
                    f"{self.baseline} steps has.{did_you_mean(self.metric, metrics)}",
                    fix=f"name one of metrics.jsonl: {', '.join(sorted(metrics))}.",
                )
