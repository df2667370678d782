"""The keys of stage files and sweep files, beside those of the recipes in them. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BeforeValidator, Field

from motet.config.schema import Seed
from motet.config.section import PartialRecipe, Section

StageKind = Literal["rl", "sft", "merge"]
MergeMethod = Literal["gaussian", "average", "norm"]
Column = Literal[
    "draw",
    "answer",
    "multiple choice",
    "open-ended",
    "held-out draw",
    "held-out answer",
    "only-drawn draw",
    "only-drawn answer",
    "only-asked draw",
    "only-asked answer",
    "greedy draw",
    "greedy answer",
    "pass@k draw",
    "pass@k answer",
]
COLUMNS: tuple[Column, ...] = get_args(Column)
"""What the tables of stages and sweeps can show of the shapes suite; k is `eval.samples_per_item`."""


def _as_names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(cast("list[Any]", value)) if isinstance(value, list) else value


def _as_row(value: Any) -> Any:
    return dict.fromkeys(COLUMNS, value) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_names)]
"""A list of names, or one name."""
Row = Annotated[dict[Column, str], BeforeValidator(_as_row)]
"""Column -> stage; a stage's name alone stands for all columns."""


class StageConfig(PartialRecipe):
    """One stage: its place among the others, and the keys of its recipe that differ from `shared`."""

    kind: StageKind = "rl"
    """`rl`: reinforcement learning; `sft`: supervised training; `merge`: merge the weights of other stages."""
    init_from: Names = ()
    """The stage whose weights this one starts from, none: `policy.path`; of a merge the stages to merge."""
    method: MergeMethod = "gaussian"
    """Merge only: how to merge; see `motet merge`."""
    base: str | None = None
    """Merge only: the stage that the merged ones started from; None: `shared.policy.path`."""


class StagesConfig(Section):
    """A file of several stages, run one after another."""

    description: str = ""
    """What the stages do, on which hardware, in which time, with which expected results."""
    shared: PartialRecipe = PartialRecipe()
    """Keys of a recipe that all stages have in common; a stage overrides them key by key."""
    stages: dict[str, StageConfig]
    """The stages by name, each after those that it starts from."""
    table: dict[str, Row] | None = None
    """Rows of the closing table: label -> column -> stage, or `start` for the checkpoint; None: a row per stage."""
    compare: dict[str, tuple[str, str]] = Field(default_factory=dict[str, tuple[str, str]])
    """Label -> two stages that the suite `rewards` evaluates on the same rows."""


class StrategyConfig(Section):
    """One strategy of a sweep: stages, and which of them the columns of the comparison are taken from."""

    stages: dict[str, StageConfig] = Field(default_factory=dict[str, StageConfig])
    """The stages by name, as in a file of stages."""
    same_stages_as: str | None = None
    """Instead of stages: an earlier strategy whose runs this one shares."""
    result: Row
    """Column -> stage."""


class SweepConfig(Section):
    """A file that compares strategies over seeds on one budget."""

    description: str = ""
    """What is compared, on which hardware, in which time, with which expected results."""
    seeds: tuple[Seed, ...]
    """Every strategy is run once per seed."""
    shared: PartialRecipe = PartialRecipe()
    """Keys of a recipe that all stages of all strategies have in common."""
    strategies: dict[str, StrategyConfig]
    """The strategies by name, two or more."""
    baseline: str | None = None
    """The strategy that the others are compared with, seed by seed; None: the first."""
    budget: Literal["equal", "free"] = "equal"
    """`equal`: an error where strategies generate different numbers of images or answers; `free`: allowed."""
