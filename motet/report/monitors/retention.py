"""A monitor of an ability that is not trained, by an evaluation every few steps."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ValidationError

from motet.config.choice import Choice
from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean
from motet.report.callbacks import Metrics, Probe
from motet.report.monitors.base import Bound, Monitor, check_count, option_error


class Retention(Monitor):
    """Evaluates `suite` (a name, or a mapping with its options) every `every` steps, and before the first one.

    The suite runs as it does for `eval.every`: quick, on fixed items with `eval.seed`. `metric` is one of the suite's
    metrics, compared with `min`, `max`, `min_ratio` and `max_ratio`; ratios are of the value before the first step.
    """

    name: ClassVar[str] = "retention"

    def __init__(
        self,
        suite: Any = None,
        metric: Any = None,
        every: Any = None,
        *,
        min: Any = None,
        max: Any = None,
        min_ratio: Any = None,
        max_ratio: Any = None,
        action: Any = "warn",
        patience: Any = 1,
    ) -> None:
        super().__init__(action, patience, 1)
        try:
            chosen = Choice.model_validate(suite)
        except ValidationError:
            raise option_error(self.name, "suite", suite, "the name of a suite, or {name: NAME, options}") from None
        if not isinstance(metric, str) or not metric:
            raise option_error(self.name, "metric", metric, "the name of a metric of the suite")
        check_count(self.name, "every", every)
        self.probe, self.metric = Probe(chosen, every), metric
        limits = {"min": min, "max": max, "min_ratio": min_ratio, "max_ratio": max_ratio}
        self.bound = Bound.of(self.name, limits)

    def on_probe(self, step: int, metrics: Metrics) -> Metrics:
        assert self.probe is not None
        if self.metric not in metrics:
            raise ConfigError(
                f"run.callbacks: {self.name!r} watches {self.metric!r}, which the suite {self.probe.suite.name!r} does "
                f"not measure; its metrics are: {', '.join(sorted(metrics))}.{did_you_mean(self.metric, metrics)}",
                fix="name one of them as its option metric.",
            )
        name, value = f"monitor/{self.probe.suite.name}/{self.metric}", metrics[self.metric]
        fix = (
            "mix data of this ability into training (tracks), use a larger algorithm.beta or a smaller learning rate; "
            "start again from an earlier checkpoint."
        )
        self.check(step, name, value, self.bound, fix)
        return {name: value}
