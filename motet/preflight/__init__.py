"""Checks before the first step: a tiny rollout, its rewards, its replay and one backward pass, each checked by name.

Importing this package imports no torch; `motet doctor recipe.yaml`, `motet train` and `motet sft` call `run_preflight`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from motet.preflight.findings import PreflightReport
    from motet.training.engines import Engines
    from motet.training.setup import TrainingSetup


def run_preflight(session: TrainingSetup, engines: Engines, folder: Path) -> PreflightReport:
    """Check a run that was just set up. Weights, gradients, data cursors and random states are as before.

    A run of supervised training is checked on the acts that its data gives, without a rollout. `engines`: what will
    compute rollouts; `folder`: where it will write. All processes of a run call it together.
    """
    from motet.preflight.running import run

    return run(session, engines, folder)
