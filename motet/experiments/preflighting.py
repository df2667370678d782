"""The checks before the first step of a run, and the watch over their bounds during it."""

from __future__ import annotations

import warnings

from motet import preflight
from motet.experiments.run_context import RunContext
from motet.preflight.table import warnings_table
from motet.preflight.watch import BoundsWatch
from motet.report.run_dir import WARNINGS
from motet.training.engines import LOCAL, Engines
from motet.training.setup import TrainingSetup
from motet.training.sft import is_supervised
from motet.weights.locate import latest_checkpoint


def check_before_first_step(
    context: RunContext, session: TrainingSetup, wanted: bool, engines: Engines = LOCAL
) -> None:
    """Run the preflight unless the run goes on from a checkpoint; print one line, and a table of its warnings.

    Raises PreflightError, which tells all findings of level `stop`. Whether it is wanted or not, the bounds of replayed
    log-probs are watched, unless the data gives the acts.
    """
    policy = session.policy
    rounds = policy.autocast is not None or policy.rollout_autocast is not None or engines.max_staleness > 0
    if context.processes.is_main and not is_supervised(session):
        context.callbacks.callbacks.append(BoundsWatch(context.folder, rounds=rounds))
    if context.processes.broadcast(latest_checkpoint(context.folder.checkpoints)) is not None:
        return
    context.folder.truncate_metrics(-1)  # what a run left that was killed before its first checkpoint
    if not wanted:
        if context.processes.is_main:
            warnings.warn("The checks before the first step are skipped.", stacklevel=2)
        return
    report = preflight.run_preflight(session, engines, context.folder.path)
    context.say(report.line)
    if warned := report.findings("warn"):
        context.console.print(warnings_table(report))
    report.raise_if_stopped()
    for name, one in warned:
        context.folder.append_line(WARNINGS, {"step": -1, "message": f"[{name}] {one.problem} Fix: {one.fix}"})
