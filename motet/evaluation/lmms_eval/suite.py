"""Tasks of lmms-eval as evaluation suites: `eval.suite: lmms:TASK`, `motet eval CKPT --suite lmms:TASK`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt

from motet.config.options import read_options
from motet.core.errors import ConfigError
from motet.core.protocols import Policy
from motet.core.registry import did_you_mean
from motet.training.suites import Suite, SuiteResult, SuiteSettings

TASKS = Path(__file__).parent / "tasks"
"""motet's own tasks; lmms-eval takes the folder as `--include_path`."""
QUICK_SIZE = 256


class LmmsOptions(BaseModel):
    """Options of `lmms:TASK`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: PositiveInt | None = None
    """Documents of each task, from the first; null: all."""
    batch_size: PositiveInt = 16
    """Questions that are answered at once."""
    max_new_tokens: PositiveInt = 512
    """Most tokens of an answer, whatever the task asks for."""
    include_path: str | None = None
    """A folder with further tasks as YAML files."""


class LmmsSuite(Suite):
    """One task or group of lmms-eval, by the harness's own prompts, filters and metrics. Needs `motet[lmms]`."""

    Settings = LmmsOptions
    before_sft = False

    def __init__(self, task: str = "") -> None:
        self.task = task

    def for_task(self, task: str) -> LmmsSuite:
        """The suite of one task."""
        return LmmsSuite(task)

    def check(self, policy: Policy) -> None:
        """It answers questions. Raises ConfigError also where lmms-eval is missing."""
        if not self.task:
            raise ConfigError("eval.suite=lmms has no task.", fix="write lmms:TASK, such as lmms:mmstar.")
        if importlib.util.find_spec("lmms_eval") is None:
            raise ConfigError(
                f"eval.suite=lmms:{self.task} needs the package lmms-eval.", fix="pip install 'motet[lmms]'."
            )
        if "text" not in policy.kinds:
            raise ConfigError(
                f"eval.suite=lmms:{self.task} needs text, but the policy generates only: "
                f"{', '.join(sorted(policy.kinds))}.",
                fix="choose a policy that answers questions.",
            )

    def __call__(self, policy: Policy, settings: SuiteSettings) -> SuiteResult:
        """Quick: at most 256 documents."""
        from lmms_eval import evaluator  # type: ignore[import-not-found]
        from lmms_eval.tasks import TaskManager  # type: ignore[import-not-found]

        from motet.evaluation.lmms_eval.model import MotetModel

        options = read_options(settings.recipe.eval.suite, LmmsOptions, "eval.suite")
        limit = min(options.limit or QUICK_SIZE, QUICK_SIZE) if settings.quick else options.limit
        folders = [str(TASKS), *([options.include_path] if options.include_path else [])]
        manager = TaskManager("ERROR", include_path=folders, model_name="motet")
        if self.task not in manager.all_tasks:
            raise ConfigError(
                f"eval.suite=lmms:{self.task}: lmms-eval has no such task.{did_you_mean(self.task, manager.all_tasks)}",
                fix="correct the name, or give the folder of its YAML file: --option include_path=FOLDER.",
            )
        model = MotetModel(
            policy=policy,
            batch_size=options.batch_size,
            max_new_tokens=options.max_new_tokens,
            progress=settings.progress,
        )
        found = evaluator.simple_evaluate(
            model, tasks=[self.task], limit=limit, task_manager=manager, log_samples=False, bootstrap_iters=0
        )
        assert found is not None
        table = metrics_of(found["results"])
        return SuiteResult(
            table, {f"{task}/{name}": value for task, own in table.items() for name, value in own.items()}
        )

    def show(self, tables: Mapping[str, Mapping[str, Any]]) -> Any:
        """A row for each metric of each task."""
        flat = {
            heading: {f"{task} {name}": value for task, own in table.items() for name, value in own.items()}
            for heading, table in tables.items()
        }
        return super().show(flat)


def metrics_of(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Task -> metric -> value, of lmms-eval's `results`: `metric,filter` without the filter `none`, no errors."""
    table: dict[str, dict[str, float]] = {}
    for task, values in results.items():
        own = {
            key.removesuffix(",none"): float(value)
            for key, value in values.items()
            if "," in key and "_stderr" not in key and isinstance(value, int | float)
        }
        if own:
            table[task] = own
    if not table:
        raise ConfigError(
            f"lmms-eval has no metric for {', '.join(results)}.",
            fix="choose a task whose metrics need no judge, or run lmms_eval --model motet with the judge it needs.",
        )
    return table
