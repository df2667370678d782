"""Run the stages of a recipe, each in its own run folder; finished stages are skipped, others started or resumed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.text import Text

from motet.config import to_yaml
from motet.config.plan import Plan, Stage, checkpoint_of
from motet.core.atomic_files import write_atomic
from motet.core.errors import CheckpointError, MotetError, RunFolderError
from motet.experiments.eval_cache import EvalCache, same_eval_settings
from motet.experiments.run_report import with_comparison
from motet.experiments.single_run import run_evaluation, run_sft, run_training
from motet.experiments.tables import plan_tables
from motet.report.progress import waiting
from motet.report.resume_check import POLICY, check_resume_compatible
from motet.report.resume_mode import SUMMARY, ResumeChoice, finished_summary, resumes_any
from motet.report.run_dir import RECIPE, RunFolder, is_leftover
from motet.report.run_lock import held_output
from motet.report.terminal import Terminal
from motet.training.setup import build_eval_tracks, build_rl_tracks, build_sft_tracks, needs_rewards
from motet.training.signals import Stopped
from motet.weights.locate import find_damage, resolve_checkpoint, weights_digest
from motet.weights.merge import merge_folders


def run_plan(
    plan: Plan,
    output: Path,
    resume_command: str,
    *,
    resume: ResumeChoice,
    eval_cache: EvalCache | None = None,
    only: Sequence[str] = (),
    preflight: bool = True,
) -> dict[str, Any]:
    """Run the stages in order; return the summary of each and write it to `output/summary.json`.

    `resume_command` is the shell command that resumes the run. `eval_cache` holds results of earlier stages and gets
    those of these. With `only`, those stages and their dependencies are run; finished others are included in the
    summary. `preflight`: whether stages that train check a tiny step before their first one.
    Without `only`, one process at a time runs an output; with it, one process at a time runs a stage.
    Raises RunFolderError if the output is in use by another process, or used and not to be resumed (`resume` "auto": if
    no stage was started);
    ConfigError, before any stage runs, if a started stage had another recipe or if the data, scenario or rewards of a
    stage do not fit each other; Stopped if the user interrupts.
    """
    wanted = plan.needed(only or [stage.name for stage in plan.stages], output)
    folders = [output / stage.name for stage in plan.stages]
    check_unused(output, resume, folders)
    with waiting("check the stages"):
        _check_stages(plan, output, wanted)
    console = Terminal()
    results: dict[str, Any] = {}
    eval_cache = eval_cache or EvalCache()
    with nullcontext() if only else held_output(output), with_comparison(folders, output, console):
        for number, stage in enumerate(plan.stages, 1):
            if stage.name not in wanted and _finished_summary(stage, _folder_of(plan, stage, output)) is None:
                continue
            console.rule(Text(f"{number}/{len(plan.stages)}  {stage.name}"), align="left")
            try:
                results[stage.name] = _run_stage(plan, stage, output, resume_command, eval_cache, preflight=preflight)
            except KeyboardInterrupt:
                raise Stopped(f"Stopped in stage {stage.name!r}. Resume with: {resume_command}") from None
            eval_cache.add(stage, output, results[stage.name])
    plan = plan.part(results)
    summary = {"description": plan.description, "starts": start_results(plan, results), "stages": results}
    for table in plan_tables(plan, summary):
        console.print(table)
    _write(output / SUMMARY, summary)
    return summary


def check_unused(output: Path, resume: ResumeChoice, folders: Sequence[Path]) -> None:
    """Raise RunFolderError if the output is in use and not resumed; `folders` are those of its runs."""
    names = [entry.name for entry in output.iterdir()] if output.exists() else []
    if not all(map(is_leftover, names)) and not resumes_any(output, resume, folders):
        used = any(folder.is_dir() for folder in folders)
        fix = "add --resume to continue there, or choose another --output." if used else "choose another --output."
        raise RunFolderError(f"The output folder {str(output)!r} is already in use.", fix=fix)


def _write(path: Path, summary: Mapping[str, Any]) -> None:
    try:
        write_atomic(path, (json.dumps(summary, indent=2) + "\n").encode())
    except OSError as error:
        problem = f"{str(path)!r} cannot be written: {error.strerror or error}."
        raise RunFolderError(problem, fix="free some disk space and use --resume; finished stages are kept.") from error


def _check_stages(plan: Plan, output: Path, wanted: Collection[str]) -> None:
    """Check that every wanted stage can be started or resumed, so that a mistake in the last one is found now."""
    open_tracks = {"sft": build_sft_tracks, "rl": build_rl_tracks, "merge": build_eval_tracks}
    for stage in plan.stages:
        if stage.name not in wanted:
            continue
        try:
            if _finished_summary(stage, _folder_of(plan, stage, output)) is not None:
                continue
            if stage.kind != "merge" or needs_rewards(stage.recipe):
                open_tracks[stage.kind](stage.recipe)
        except MotetError as error:
            raise type(error)(f"Stage {stage.name!r}: {error.problem}", fix=error.fix) from error


def _folder_of(plan: Plan, stage: Stage, output: Path) -> RunFolder:
    """The stage's run folder. Raises ConfigError if the stage was started with an incompatible recipe."""
    path = output / stage.name
    folder = RunFolder(path, resume=(path / RECIPE).is_file())
    check_resume_compatible(folder, stage.recipe, _merge_inputs(plan, stage, output) if stage.kind == "merge" else None)
    return folder


def _merge_inputs(plan: Plan, stage: Stage, output: Path) -> dict[str, str | None]:
    """The method of a merge and the digests of its input weights."""
    parts = {f"from {name}": checkpoint_of(plan.stage(name), output) for name in stage.init_from}
    if stage.base is not None:
        parts["base"] = stage.base
    # The path in its recipe is that of the result.
    return {POLICY: "merged", "method": stage.method, **{key: weights_digest(path) for key, path in parts.items()}}


def _finished_summary(stage: Stage, folder: RunFolder) -> dict[str, Any] | None:
    """The summary of a finished stage; None if steps remain."""
    return folder.read_json(SUMMARY) if stage.kind == "merge" else finished_summary(folder, stage.recipe)


def _run_stage(
    plan: Plan, stage: Stage, output: Path, resume_command: str, eval_cache: EvalCache, *, preflight: bool
) -> dict[str, Any]:
    """The stage's summary: read if it is finished, otherwise from running it."""
    folder = _folder_of(plan, stage, output)
    finished = _finished_summary(stage, folder)
    if finished is not None:
        Terminal().print("already finished, skipped", highlight=False)
        return finished
    for part in stage.init_from:
        _check_undamaged(checkpoint_of(plan.stage(part), output), output / part)
    if stage.kind == "sft":
        run_sft(stage.recipe, folder, resume_command, eval_cache.for_start(stage), preflight=preflight)
    elif stage.kind == "rl":
        run_training(stage.recipe, folder, resume_command, eval_cache.for_start(stage), preflight=preflight)
    else:
        merged, parts = checkpoint_of(stage, output), [plan.stage(name) for name in stage.init_from]
        with folder.held():
            folder.create(to_yaml(stage.recipe), _merge_inputs(plan, stage, output))
            if not merged.exists():
                sources = [checkpoint_of(part, output) for part in parts]
                base = None if stage.base is None else Path(resolve_checkpoint(stage.base))
                with waiting("merge"):
                    merge_folders(sources, merged, method=stage.method, base=base)
            folder.resume = True  # keep the merged weights if their evaluation fails
            run_evaluation(stage.recipe, folder, resume_command)
    summary = folder.read_json(SUMMARY)
    assert summary is not None  # written by each of the three branches
    return summary


def _check_undamaged(checkpoint: Path, folder: Path) -> None:
    damage = find_damage(checkpoint)
    if damage is not None:
        fix = f"restore the file, or remove {str(folder)!r} to train that stage again."
        raise CheckpointError(f"{str(checkpoint)!r} cannot be used to start this stage: {damage}.", fix=fix)


def start_results(plan: Plan, results: Mapping[str, Any]) -> dict[str, Any]:
    """The shapes suite's results for the starting weights, one per evaluation setting (guidance)."""
    starts: dict[str, Any] = {}
    seen: list[Stage] = []
    for stage in plan.stages:
        shapes = stage.recipe.eval.suite.name == "shapes" and not stage.init_from
        before = results[stage.name].get("before") if shapes else None
        if before is not None and not any(same_eval_settings(stage.recipe, other.recipe) for other in seen):
            starts["start" if not seen else f"start of {stage.name}"] = before
            seen.append(stage)
    return starts
