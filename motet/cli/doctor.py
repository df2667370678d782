"""`motet doctor RECIPE`: the checks before the first step of a run, without the run."""

from __future__ import annotations

from pathlib import Path

from motet.config.stages import recipe_of, stage_of
from motet.core.errors import ConfigError, MotetError
from motet.report.terminal import Terminal, say


def check_recipe(path: Path, overrides: list[str], stage: str | None, *, supervised: bool) -> bool:
    """Print the outcome of every check; whether a run would start. `supervised`: a run of `motet sft`.

    An error of the setup (recipe, data, checkpoint) is printed as the outcome of a check `setup`. Raises ConfigError
    for a stage that does not train.
    """
    found = stage_of(path, stage)
    if found is not None and found.kind == "merge":
        raise ConfigError(f"--stage is {stage!r}, which merges weights and does not train.", fix="name another stage.")
    supervised = supervised if found is None else found.kind == "sft"
    recipe = recipe_of(path, overrides, stage)
    from motet.preflight import run_preflight
    from motet.preflight.findings import CheckResult, PreflightReport, stop
    from motet.preflight.table import report_table
    from motet.training.engines import LOCAL
    from motet.training.setup import setup_rl, setup_sft

    try:
        session = (setup_sft if supervised else setup_rl)(recipe)
    except MotetError as error:
        problem = stop(
            error.problem, cause="the recipe, its data and its checkpoint do not fit each other", fix=error.fix
        )
        report = PreflightReport((CheckResult("setup", "The run can be set up", (problem,)),), 0.0)
    else:
        report = run_preflight(session, LOCAL, Path.cwd())
    Terminal().print(report_table(report))
    say(report.line)
    return not report.with_outcome("stop")
