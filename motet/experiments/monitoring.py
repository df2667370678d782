"""What callbacks ask of a run: evaluations, which all its processes make, and its end."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from motet.core.errors import ConfigError
from motet.report.callbacks import CallbackList
from motet.training.run_loop import Run, RunProbe
from motet.training.setup import TrainingSetup, needs_rewards
from motet.training.signals import Stopped
from motet.training.suites import Suite, SuiteSettings, evaluate, resolve_suite


def make_probes(session: TrainingSetup, callbacks: CallbackList) -> list[RunProbe]:
    """The evaluations (`Probe`) that the main process's callbacks ask for. ConfigError for others."""
    made: list[RunProbe] = []
    for place, probe in session.processes.broadcast(callbacks.probes):
        recipe = session.recipe
        config = recipe.eval.model_copy(update={"suite": probe.suite})
        own = replace(session, recipe=recipe.model_copy(update={"eval": config}))
        suite = resolve_suite(own.recipe)
        if suite is None or (suite.needs_rewards and not needs_rewards(recipe)):
            problem = "does not evaluate" if suite is None else "needs the recipe's rewards on validation rows"
            raise ConfigError(
                f"run.callbacks: the suite {probe.suite.name!r} of a monitor {problem}.",
                fix="name another suite." if suite is None else f"set eval.suite={probe.suite.name} too.",
            )
        suite.check(session.policy)
        made.append((probe.every, partial(_run_probe, suite, own, callbacks, place)))
    return made


def raise_if_stopped(run: Run, resume_command: str) -> None:
    """Raise Stopped, with the cause, for a run that a callback ended; warn if that was in its last step."""
    stop = run.stopped_by
    if stop is None:
        return
    if not run.finished:
        fix = f"{stop.fix} To go on nevertheless, change run.callbacks and resume with: {resume_command}"
        raise Stopped(f"{stop.problem} The run is saved after step {run.progress.step}. Fix: {fix}")
    if run.processes.is_main:
        warnings.warn(f"In the last step: {stop}", stacklevel=2)


def _run_probe(
    suite: Suite, session: TrainingSetup, callbacks: CallbackList, place: int, step: int
) -> Mapping[str, float]:
    """Evaluate and tell the callback that asked. Returns the metrics that it returns, in the main process."""
    metrics = evaluate(suite, session.policy, SuiteSettings(session, quick=True)).metrics
    with session.processes.phase("callbacks"):
        return callbacks.on_probe_of(place, step, metrics) if session.processes.is_main else {}
