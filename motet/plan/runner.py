"""Runs a plan: every stage in its own run folder below one output; what is finished is skipped, the rest resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from motet.config import to_yaml
from motet.config.plan import Plan, Stage, checkpoint_of
from motet.errors import MotetError, RunFolderError
from motet.interrupt import Stopped
from motet.merge import merge_folders
from motet.plan.measured import Measurements, measured_alike
from motet.plan.runs import run_measurement, run_supervised, run_training
from motet.plan.table import plan_tables
from motet.report.folder import RECIPE, RunFolder
from motet.report.resuming import refuse_changes
from motet.session import demonstrated_tracks, rewarded_tracks

SUMMARY = "summary.json"


def run_plan(
    plan: Plan, output: Path, again: str, *, resume: bool, measurements: Measurements | None = None
) -> dict[str, Any]:
    """Run the stages in order; returns, and writes to `output/summary.json`, what each of them came to.

    `again` is the command that goes on; `measurements` are those of earlier plans, and get those of this one. Raises
    RunFolderError when the output is in use and `resume` is not given; ConfigError when a stage that was begun had
    another recipe, or when the data, scenario or rewards of any stage do not fit each other, before the first of them
    runs; Stopped when the user interrupts.
    """
    if output.exists() and any(output.iterdir()) and not resume:
        fix = "add --resume to go on there, or give another --output."
        raise RunFolderError(f"The output folder {str(output)!r} is already in use.", fix=fix)
    _rehearse(plan, output)
    console = Console()
    results: dict[str, Any] = {}
    measurements = measurements or Measurements()
    for number, stage in enumerate(plan.stages, 1):
        console.rule(f"{number}/{len(plan.stages)}  {stage.name}", align="left")
        try:
            results[stage.name] = _run_stage(plan, stage, output, again, measurements)
        except KeyboardInterrupt:
            raise Stopped(f"Stopped in stage {stage.name!r}. Resume with: {again}") from None
        measurements.add(stage, output, results[stage.name])
    summary = {"description": plan.description, "starts": starts_of(plan, results), "stages": results}
    partial = output / f"{SUMMARY}.partial"
    partial.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, output / SUMMARY)
    for table in plan_tables(plan, summary):
        console.print(table)
    return summary


def _rehearse(plan: Plan, output: Path) -> None:
    """Open what every unfinished stage practises: a mistake in the last stage shows now, not hours from now."""
    for stage in plan.stages:
        if stage.kind == "merge" or (output / stage.name / SUMMARY).is_file():
            continue
        tracks_of = demonstrated_tracks if stage.kind == "sft" else rewarded_tracks
        try:
            tracks_of(stage.recipe)
        except MotetError as error:
            raise type(error)(f"Stage {stage.name!r}: {error.problem}", fix=error.fix) from error


def _run_stage(plan: Plan, stage: Stage, output: Path, again: str, measurements: Measurements) -> dict[str, Any]:
    """The stage's summary: read where it is finished, else what running it comes to."""
    path = output / stage.name
    folder = RunFolder(path, resume=(path / RECIPE).is_file())
    refuse_changes(folder, stage.recipe)
    finished = folder.read_json(SUMMARY)
    if finished is not None:
        Console().print("finished before", highlight=False)
        return finished
    if stage.kind == "sft":
        run_supervised(stage.recipe, folder, again)
    elif stage.kind == "rl":
        run_training(stage.recipe, folder, again, measurements.of_start(stage))
    else:
        merged, parts = checkpoint_of(stage, output), [plan.stage(name) for name in stage.start]
        folder.create(to_yaml(stage.recipe))
        if not merged.exists():
            merge_folders([checkpoint_of(part, output) for part in parts], merged, method=stage.method, base=stage.base)
        run_measurement(stage.recipe, RunFolder(path, resume=True), again)
    summary = folder.read_json(SUMMARY)
    assert summary is not None  # each of the three has written it, or raised
    return summary


def starts_of(plan: Plan, results: Mapping[str, Any]) -> dict[str, Any]:
    """What the shapes suite said of the beginning: the first measurement, and each made otherwise (guidance, say)."""
    found: dict[str, Any] = {}
    seen: list[Stage] = []
    for stage in plan.stages:
        shapes = stage.recipe.eval.suite == "shapes" and not stage.start
        before = results[stage.name].get("before") if shapes else None
        if before is not None and not any(measured_alike(stage.recipe, other.recipe) for other in seen):
            found["start" if not seen else f"start of {stage.name}"] = before
            seen.append(stage)
    return found
