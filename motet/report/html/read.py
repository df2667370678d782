"""What a run folder holds, as far as it can be read: a report is made of the rest.

Old, interrupted or damaged folders leave parts out; `RunData.unread` says which and why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from motet.core.errors import RunFolderError
from motet.report.rollouts import FIXED_PROMPTS, ROLLOUTS
from motet.report.run_dir import FAILURES, METRICS, RECIPE, WARNINGS
from motet.report.versions import VERSIONS

FAILURE = "failure.json"
"""What ended a run that failed: {"error": its message}. A run that goes on removes it."""
_STEP = re.compile(r"step_(\d+)(?:_(.+))?")


@dataclass(eq=False)
class RunData:
    """The files of one run. `label` is its name in legends; `unread` the files that cannot be read."""

    path: Path
    label: str
    recipe_text: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    rollouts: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def steps_done(self) -> int:
        """Steps with metrics."""
        return 1 + max((int(line["step"]) for line in self.metrics), default=-1)

    @property
    def steps_planned(self) -> int | None:
        """`run.steps` of the recipe."""
        steps = _section(self.recipe, "run").get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def minutes(self) -> Any:
        """`run.minutes` of the recipe, the time limit of training."""
        return _section(self.recipe, "run").get("minutes")

    @property
    def state(self) -> str:
        """`finished`, `failed` or `not finished`."""
        return "finished" if self.summary else "failed" if self.failure else "not finished"

    @property
    def suite(self) -> str:
        """The name of `eval.suite`."""
        suite = _section(self.recipe, "eval").get("suite", "")
        return str(suite.get("name", "") if isinstance(suite, dict) else suite)


def read_run(path: Path, label: str) -> RunData:
    """Read a run folder. Raises RunFolderError for a folder without a run."""
    if not (path / RECIPE).is_file() and not (path / METRICS).is_file():
        raise RunFolderError(
            f"{str(path)!r} does not contain a run: neither {RECIPE} nor {METRICS} is in it.",
            fix="name the folder that `motet train`, `sft` or `sweep` wrote (--output).",
        )
    run = RunData(path, label)
    run.recipe_text = _text(run, RECIPE)
    run.recipe = _mapping(run, run.recipe_text)
    run.metrics = [line for line in _lines(run, METRICS) if isinstance(line.get("step"), int)]
    run.failures, run.warnings = list(_lines(run, FAILURES)), list(_lines(run, WARNINGS))
    run.versions = list(_lines(run, VERSIONS))
    run.summary = _json(run, "summary.json") or {}
    run.before = _json(run, "before.json") or _table(run.summary.get("before"))
    run.after = _table(run.summary.get("after"))
    run.failure = str((_json(run, FAILURE) or {}).get("error", ""))
    run.rollouts, run.prompts = list(_steps(run, ROLLOUTS)), list(_steps(run, FIXED_PROMPTS))
    return run


def _section(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    section = recipe.get(name)
    return section if isinstance(section, dict) else {}


def _table(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


def _text(run: RunData, name: str) -> str:
    path = run.path / name
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError as error:
        run.unread.append(f"{name}: {error.strerror or error}")
        return ""


def _mapping(run: RunData, text: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        run.unread.append(f"{RECIPE}: is not YAML")
        return {}
    return content if isinstance(content, dict) else {}


def _json(run: RunData, name: str) -> dict[str, Any] | None:
    text = _text(run, name)
    try:
        value = json.loads(text) if text else None
    except json.JSONDecodeError:
        run.unread.append(f"{name}: is not JSON")
        return None
    return value if isinstance(value, dict) else None


def _lines(run: RunData, name: str) -> Iterator[dict[str, Any]]:
    bad = 0
    for line in _text(run, name).split("\n"):
        if line.strip():
            try:
                value = json.loads(line)
            except json.JSONDecodeError:
                value = None
            if isinstance(value, dict):
                yield value
            else:
                bad += 1
    if bad:
        run.unread.append(f"{name}: {bad} incomplete lines")


def _steps(run: RunData, folder: str) -> Iterator[dict[str, Any]]:
    """The step files of a folder, in the order of tracks and steps."""
    try:
        files = sorted((run.path / folder).glob("step_*.json"))
    except OSError:
        return
    for file in files:
        if not (match := _STEP.fullmatch(file.stem)):
            continue
        content = _json(run, f"{folder}/{file.name}")
        if content is not None:
            yield {**content, "step": int(match[1]), "track": match[2] or ""}
