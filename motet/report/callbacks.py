"""Callbacks: what is told how a run goes, such as the progress bar, a tracker, or a user's own object."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from motet.config import Recipe
from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean, first_line, registry


class Callback:
    """The events of a run. Any object with one or more of these methods is a callback; nothing needs to inherit.

    A callback that raises does not end the run: the first exception of each callback is shown as a warning. Metrics are
    those of `metrics.jsonl` (docs/reference/metrics.md).
    """

    def on_run_start(self, recipe: Recipe, folder: Path) -> None:
        """Before the first step, also of a resumed run, which writes to `folder`."""

    def on_step_end(self, step: int, metrics: Mapping[str, float]) -> None:
        """After step number `step`, counted from 1."""

    def on_eval(self, step: int, metrics: Mapping[str, float]) -> None:
        """After an evaluation when `step` steps are done, with its metrics, `eval/NAME`."""

    def on_checkpoint(self, step: int, checkpoint: Path) -> None:
        """After a checkpoint was written."""

    def on_run_end(self, step: int, metrics: Mapping[str, float]) -> None:
        """At the end, also of a run that was interrupted or failed, with the last step done and its metrics."""


EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class CallbackList(Callback):
    """Calls every callback, in order, for the events that it has methods for."""

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self.callbacks = list(callbacks)
        self._failed: set[int] = set()
        self.last: tuple[int, Mapping[str, float]] = (0, {})
        """The last step done and its metrics."""

    def on_run_start(self, recipe: Recipe, folder: Path) -> None:
        self._call("on_run_start", recipe, folder)

    def on_step_end(self, step: int, metrics: Mapping[str, float]) -> None:
        self.last = step, metrics
        self._call("on_step_end", step, metrics)

    def on_eval(self, step: int, metrics: Mapping[str, float]) -> None:
        self._call("on_eval", step, metrics)

    def on_checkpoint(self, step: int, checkpoint: Path) -> None:
        self._call("on_checkpoint", step, checkpoint)

    def on_run_end(self, step: int, metrics: Mapping[str, float]) -> None:
        self._call("on_run_end", step, metrics)

    def _call(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            method = getattr(callback, event, None)
            if method is None:
                continue
            try:
                method(*arguments)
            except Exception as error:
                if id(callback) not in self._failed:
                    self._failed.add(id(callback))
                    warnings.warn(
                        f"The callback {type(callback).__name__} raised {first_line(error)} in {event}(); the run goes "
                        "on. Further exceptions of this callback are not shown.",
                        stacklevel=2,
                    )


def resolve_callbacks(names: Sequence[str]) -> list[Any]:
    """The callbacks that a recipe's `run.callbacks` names; a class is called without arguments.

    Raises ConfigError for an unknown name, and for what has no method of `Callback`.
    """
    resolved = []
    for name in names:
        found = registry("callback").find(name)
        callback = found() if inspect.isclass(found) else found
        if not any(callable(getattr(callback, event, None)) for event in EVENTS):
            own = [attribute for attribute in dir(callback) if attribute.startswith("on")]
            hint = "".join(did_you_mean(attribute, EVENTS) for attribute in own[:1])
            raise ConfigError(
                f"run.callbacks: {name!r} is a {type(callback).__name__} without any of the methods "
                f"{', '.join(EVENTS)}.{hint}",
                fix="give an object with at least one of them (see motet.report.callbacks.Callback).",
            )
        resolved.append(callback)
    return resolved
