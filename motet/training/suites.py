"""Evaluation suites: what one is, and how a recipe's `eval.suite` names it.

A suite is a function `f(policy, settings, **options) -> {metric: value}`, or a `Suite` where it needs more: rewards,
a table or images of its own. It is registered under a name (`motet.register("suite", "mine")`) or given as a path.
`NAME:TASK` is one task of a registered suite that has several (`Suite.for_task`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image
from pydantic import BaseModel
from rich.table import Table

from motet.config import Recipe
from motet.core.errors import ConfigError, MotetError
from motet.core.protocols import Policy
from motet.core.registry import first_line, registry

if TYPE_CHECKING:
    from motet.training.setup import TrainingSetup


def _no_progress(done: int, total: int) -> None:
    """Whoever does not show progress."""


@dataclass(frozen=True, eq=False)
class SuiteSettings:
    """What a suite is told beside the policy.

    `quick`: an evaluation during training, which should take seconds. `same_items_as`: the table of an earlier
    evaluation whose items are to be used again. `progress(done, total)` shows progress, and may raise to interrupt.
    `folder`: an existing folder for everything that the suite generates, so that it can be checked by hand or by a
    benchmark's own evaluator; None: nothing is written.
    """

    setup: TrainingSetup
    quick: bool = False
    same_items_as: Mapping[str, Any] | None = None
    folder: Path | None = None
    progress: Callable[[int, int], None] = _no_progress

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run: `recipe.eval` holds size, samples_per_item, seed and minutes."""
        return self.setup.recipe


@dataclass(frozen=True)
class SuiteResult:
    """An evaluation: a JSON table for `summary.json`, metrics by name, and images to show, if any."""

    table: dict[str, Any]
    metrics: dict[str, float]
    samples: Sequence[tuple[Image.Image, str, bool]] = field(default=())
    """Generated images with their prompts, and whether each is correct."""
    intervals: Mapping[str, float] = field(default_factory=dict)
    """Half-widths of the 95 % intervals over items of those metrics that have one."""


class Suite:
    """A suite that is more than a function. Subclasses are registered as instances."""

    Settings: ClassVar[type[BaseModel] | None] = None
    """The class of its options in `eval.suite`, by which they are validated; None: it validates them itself."""
    default_samples = 8
    """`eval.samples_per_item` of `motet eval` where no recipe and no option says it."""
    needs_rewards = False
    """Whether it evaluates with the recipe's rewards, on rows of its own: tracks are then set up with them."""
    shares_items = False
    """Whether it shares its items among the processes of a run, and gives every process the whole result. Others are
    called in the main process alone."""
    before_sft = True
    """Whether supervised training evaluates before its first step too."""
    samples_title = "first samples"

    def check(self, policy: Policy) -> None:
        """Raise ConfigError for a policy that it cannot evaluate."""

    def for_task(self, task: str) -> Suite:
        """The suite that `NAME:TASK` names. Raises ConfigError where there is no such task, as in this class."""
        raise ConfigError(
            f"eval.suite names the task {task!r} of a suite that has no tasks.", fix="write the suite's name alone."
        )

    def __call__(self, policy: Policy, settings: SuiteSettings) -> SuiteResult:
        """Evaluate."""
        raise NotImplementedError

    def show(self, tables: Mapping[str, Mapping[str, Any]]) -> Table:
        """Results by heading (before, after) as a table for the terminal."""
        shown = Table("", *tables, title="Evaluation", title_justify="left")
        for name in next(iter(tables.values()), {}):
            shown.add_row(name, *(f"{table[name]:.4g}" for table in tables.values()))
        return shown


class FunctionSuite(Suite):
    """A user's function as a suite; its keyword arguments are the options of `eval.suite`."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name, self.function = name, function

    def __call__(self, policy: Policy, settings: SuiteSettings) -> SuiteResult:
        """Call it. Raises ConfigError when it raises, and for what is not a mapping of numbers."""
        try:
            metrics = self.function(policy, settings, **settings.recipe.eval.suite.options)
        except MotetError:
            raise
        except Exception as error:
            fix = "correct the suite; it is called with (policy, settings, **options of eval.suite)."
            raise ConfigError(f"eval.suite={self.name!r} raised {first_line(error)}.", fix=fix) from error
        if not isinstance(metrics, Mapping) or not all(isinstance(value, int | float) for value in metrics.values()):
            raise ConfigError(
                f"eval.suite={self.name!r} returned {metrics!r:.80}, not a mapping of metrics to numbers.",
                fix='return such as {"accuracy": 0.5}.',
            )
        numbers = {str(name): float(value) for name, value in metrics.items()}
        return SuiteResult(dict(numbers), numbers)


def evaluate(suite: Suite, policy: Policy, settings: SuiteSettings) -> SuiteResult:
    """The suite's result, in every process of the run."""
    processes = settings.setup.processes
    with settings.setup.parallel.full_weights(settings.setup.policy):
        if suite.shares_items:
            return suite(policy, settings)
        result = None
        with processes.phase("evaluation"):
            if processes.is_main:
                result = suite(policy, replace(settings, progress=_no_progress) if processes.size > 1 else settings)
        shown = None if result is None else replace(result, samples=())
        table = processes.broadcast(shown)
        assert table is not None
        return result or table


def resolve_suite(recipe: Recipe) -> Suite | None:
    """The suite that a recipe names; None for `none`. Raises ConfigError for an unknown one."""
    name = recipe.eval.suite.name
    return None if name == "none" else find_suite(name)


def find_suite(name: str) -> Suite:
    """The suite of that name, `NAME:TASK` or path. Raises ConfigError for an unknown one."""
    prefix, colon, task = name.partition(":")
    several = registry("suite").get(prefix) if colon else None
    if isinstance(several, Suite):
        return several.for_task(task)
    found = registry("suite").find(name)
    if not isinstance(found, Suite) and not callable(found):
        fix = "name a function of (policy, settings) that returns metrics."
        raise ConfigError(f"eval.suite={name!r} leads to {found!r:.80}, which is not a suite.", fix=fix)
    return found if isinstance(found, Suite) else FunctionSuite(name, found)
