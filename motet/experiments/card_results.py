"""What a model card says of evaluations: a table, and the hub's `model-index`; of one run, or means over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from motet.config import Recipe
from motet.core.errors import ConfigError
from motet.numerics.statistics import mean_interval
from motet.report.evaluation_results import Measured, measured
from motet.report.markdown import escape_markdown, markdown_table
from motet.report.run_dir import RunFolder
from motet.training.suites import resolve_suite

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASKS = {
    "shapes": {"image": "text-to-image", "answer": "visual-question-answering"},
    "easy_vqa": {"image": "text-to-image", "answer": "visual-question-answering"},
    "geneval": {"": "text-to-image"},
    "dpg": {"": "text-to-image"},
    "wise": {"": "text-to-image"},
    "lmms": {"": "image-text-to-text"},
}
"""The hub's task of a suite's results, by the first part of their labels; of other suites `reinforcement-learning`."""
ACCURACIES = ("shapes", "easy_vqa", "geneval")


@dataclass(frozen=True)
class Evaluated:
    """The evaluations of the runs of one recipe, one per seed."""

    recipe: Recipe
    seeds: tuple[int, ...]
    before: tuple[dict[str, Any] | None, ...]
    after: tuple[dict[str, Any] | None, ...]

    @property
    def suite(self) -> str:
        """The name of `eval.suite`."""
        return self.recipe.eval.suite.name


def read_evaluations(runs: Sequence[tuple[RunFolder, Recipe]]) -> Evaluated:
    """Raises ConfigError unless the runs have one recipe, with different seeds."""
    first, recipe = runs[0]
    for folder, other in runs[1:]:
        if different := _differences(recipe, other):
            raise ConfigError(
                f"{str(folder.path)!r} is not a run of the recipe of {str(first.path)!r}: {', '.join(different)} "
                f"{'differs' if len(different) == 1 else 'differ'}.",
                fix="name runs that differ in run.seed alone.",
            )
    seeds = tuple(recipe.run.seed for _, recipe in runs)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"Two of the runs have the same seed (run.seed: {', '.join(map(str, seeds))}).",
            fix="name one run of each seed.",
        )
    summaries = [folder.read_json("summary.json") or {} for folder, _ in runs]
    starts = [folder.read_json("before.json") for folder, _ in runs]
    before = tuple(summary.get("before") or start for summary, start in zip(summaries, starts, strict=True))
    after = tuple(summary.get("after") for summary in summaries)
    for (folder, _), table in zip(runs, after, strict=True):
        if len(runs) > 1 and table is None:
            raise ConfigError(
                f"{str(folder.path)!r} has no evaluation after training.",
                fix="finish it (`motet train --resume`) with an eval.suite, or leave it out.",
            )
    return Evaluated(recipe, seeds, before, after)


def _differences(one: Recipe, other: Recipe) -> list[str]:
    """The keys in which they differ besides the seed; of a checkpoint's folder the name counts."""
    flat = [dict(_flatten(recipe.model_dump(mode="json"))) for recipe in (one, other)]
    for own in flat:
        own |= {"run.seed": None, "description": None, "policy.path": Path(own["policy.path"]).name}
    return [key for key in {**flat[0], **flat[1]} if flat[0].get(key) != flat[1].get(key)]


def _flatten(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in content.items():
        nested = isinstance(value, Mapping) and value
        pairs += _flatten(value, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", value)]
    return pairs


def results_section(evaluated: Evaluated) -> str:
    """The evaluations before and after training as Markdown; nothing without any."""
    suite = resolve_suite(evaluated.recipe)
    one_run = {"before": evaluated.before[0], "after": evaluated.after[0]}
    tables = {name: table for name, table in one_run.items() if table}
    if suite is None or not tables:
        return ""
    heading, seeds = f"## Evaluation\n\nSuite `{escape_markdown(evaluated.suite)}`", evaluated.seeds
    if len(seeds) == 1:
        return f"{heading}, of this run (one seed); \u00b1 is a 95 % interval.\n\n{markdown_table(suite.show(tables))}"
    what = (
        f"means of {len(seeds)} runs with the seeds {', '.join(map(str, seeds))}; \u00b1 is a 95 % interval over seeds"
    )
    table = markdown_table(_table_over_seeds(evaluated))
    return f"{heading}: {what}. The weights are those of seed {seeds[0]}.\n\n{table}"


def _table_over_seeds(evaluated: Evaluated) -> Table:
    table = Table("", "before", "after", "change")
    before, after = (over_seeds(tables) for tables in (evaluated.before, evaluated.after))
    for label in after:
        change = None
        if label in before:
            pairs = zip(before[label], after[label], strict=True)
            change = mean_interval([new - old for old, new in pairs])
        was = mean_interval(before[label]) if label in before else None
        table.add_row(escape(label), _cell(was), _cell(mean_interval(after[label])), _cell(change, "+"))
    return table


def over_seeds(tables: Sequence[Mapping[str, Any] | None]) -> dict[str, list[float]]:
    """The mean of every run by label; labels that some run lacks are left out."""
    found = [{label: one.mean for label, one in measured(table) if one.mean is not None} for table in tables]
    return {label: [own[label] for own in found] for label in found[0] if all(label in own for own in found)}


def _cell(interval: tuple[float, float] | None, sign: str = "") -> str:
    return "" if interval is None else f"{interval[0]:{sign}.3f} \u00b1 {interval[1]:.3f}"


def eval_results(evaluated: Evaluated) -> list[EvalResult]:
    """The evaluation after training, as the hub's model index has it: none without one."""
    from huggingface_hub import EvalResult

    if evaluated.after[0] is None:
        return []
    one_run, seeds = dict(measured(evaluated.after[0])), len(evaluated.seeds)
    if seeds == 1:
        intervals = {label: (one.mean, one.half) for label, one in one_run.items()}
    else:
        intervals = {label: mean_interval(means) for label, means in over_seeds(evaluated.after).items()}
    return [
        EvalResult(
            task_type=_task(evaluated.suite, label),
            dataset_type=evaluated.suite,
            dataset_name=evaluated.suite,
            metric_type=_metric(evaluated),
            metric_name=label,
            metric_value=round(mean, 4),
            metric_args=_interval_args(one_run.get(label), half, seeds),
        )
        for label, (mean, half) in intervals.items()
        if mean is not None
    ]


def _interval_args(one: Measured | None, half: float | None, seeds: int) -> dict[str, Any]:
    """How sure a value is: of one run over items, of several over seeds."""
    over = {"seeds": seeds} if seeds > 1 or one is None or not one.items else {"seeds": 1, "items": len(one.items)}
    return over if half is None or not math.isfinite(half) else {**over, "interval_95": round(half, 4)}


def _metric(evaluated: Evaluated) -> str:
    suite = resolve_suite(evaluated.recipe)
    if evaluated.suite in ACCURACIES:
        return "accuracy"
    return "reward" if suite is not None and suite.needs_rewards else "score"


def _task(suite: str, label: str) -> str:
    tasks = TASKS.get(suite.partition(":")[0], {})
    return tasks.get(label.partition(":")[0]) or tasks.get("", "reinforcement-learning")
