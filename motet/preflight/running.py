"""Make the tiny step, then run all checks on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import motet.preflight.checks  # registers them
from motet.core.errors import MotetError
from motet.core.registry import first_line
from motet.preflight.findings import CHECKS, Check, CheckResult, Finding, NotApplicable, PreflightReport, stop
from motet.preflight.probe import Probe, backward, read_rows, replay, roll_out, score
from motet.preflight.restoring import restored
from motet.preflight.targets import encode_targets
from motet.training.engines import Engines
from motet.training.setup import TrainingSetup
from motet.training.sft import is_supervised
from motet.training.weights_digest import weights_digest

assert motet.preflight.checks


def _read(probe: Probe) -> None:
    probe.tracks = read_rows(probe.session)


Stages = dict[str, tuple[Callable[[Probe], None], str]]
_READ: Stages = {"data_readable": (_read, "a row of the first step cannot be read")}
_TRAIN: Stages = {
    "replay": (replay, "the policy raised while it replayed acts"),
    "backward": (backward, "a loss or the backward pass raised"),
}
STAGES: Stages = {
    **_READ,
    "rollout": (roll_out, "the policy or the scenario raised while the first prompts were rolled out"),
    "rewards": (score, "the reward's function, called with completions of the first step"),
    **_TRAIN,
}
"""What makes the tiny step, in order; a stage that raises is a finding of this name."""
SFT_STAGES: Stages = {
    **_READ,
    "targets": (encode_targets, "the first rows and their targets do not fit the scenario or the policy"),
    **_TRAIN,
}
"""The same of supervised training."""
MEANINGS = {
    "targets": "The targets of the first rows can be encoded as acts",
    "rewards": "Rewards can be called, with one number for each trajectory",
    "replay": "The acts can be replayed",
    "backward": "One backward pass of the run's losses",
}


def run(session: TrainingSetup, engines: Engines, folder: Path) -> PreflightReport:
    """See `motet.preflight.run_preflight`."""
    began = time.perf_counter()
    probe = Probe(session, engines, folder, weights_digest(session.policy))
    failed: dict[str, Finding] = {}
    causes: list[Exception] = []
    stages, training = (SFT_STAGES, "sft") if is_supervised(session) else (STAGES, "rl")
    checks = [check for check in CHECKS.values() if training in check.of]
    with restored(session):
        for name, (stage, cause) in stages.items():
            try:
                stage(probe)
            except NotApplicable:
                continue
            except Exception as error:
                if session.processes.size > 1:
                    raise  # the others wait for this process: the error is that of all of them
                failed[name] = _as_finding(error, cause)
                causes.append(error)
                break
        results = [_result(check, probe, failed.get(check.name)) for check in checks]
    named = [name for name in MEANINGS if name in stages]
    own = [CheckResult(name, MEANINGS[name], (failed[name],) if name in failed else ()) for name in named]
    done = [one for one in own if one.findings or not failed]
    report = PreflightReport((*results, *done), time.perf_counter() - began, causes[0] if causes else None)
    return session.processes.broadcast(report)  # what one process finds, all of them stop for


def _as_finding(error: Exception, cause: str) -> Finding:
    if isinstance(error, MotetError):
        return stop(error.problem, cause=cause, fix=error.fix)
    return stop(first_line(error), cause=cause, fix="correct what raised; MOTET_TRACEBACK=1 shows where.")


def _result(check: Check, probe: Probe, failure: Finding | None) -> CheckResult:
    """The outcome of a check; one that raises is a fault of what it checks."""
    if failure is not None:
        return CheckResult(check.name, check.meaning, (failure,))
    try:
        return CheckResult(check.name, check.meaning, tuple(check.function(probe)))
    except NotApplicable as reason:
        return CheckResult(check.name, check.meaning, note=str(reason))
    except Exception as error:
        return CheckResult(check.name, check.meaning, (_as_finding(error, "the check itself raised"),))
