"""Training in stages: each has a recipe of its own, or merges the weights of others. Imports no torch.

    shared: {...}             keys that the stages have in common; each overrides what it names
    stages:
      unified: {scenario: generate_and_answer, ...}          starts from shared.policy.path
      mc:      {init_from: unified, scenario: answer, ...}   starts from the last checkpoint of `unified`
      oe:      {init_from: unified, scenario: answer, ...}
      merged:  {kind: merge, init_from: [mc, oe], base: unified}
    table:                    rows of the closing table; default: one per stage
      CoRL: {draw: draw, multiple choice: mc}
    compare:                  pairs of stages that the suite `rewards` evaluates on the same rows
      effect of the critique: [reflect, regenerate]

A stage with tracks takes no scenario, rewards or prompts_per_step from `shared`; its tracks take the shared data where
they have none of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from motet.config.error_messages import Root
from motet.config.load import (
    apply_overrides,
    config_error,
    load_recipe,
    parse_recipe,
    read_file,
    read_mapping,
    read_yaml,
)
from motet.config.plan import Plan, Stage, check_known
from motet.config.problem import Problem
from motet.config.renamed import STAGE_KEYS
from motet.config.schema import Recipe
from motet.config.stage_builder import PlanBuilder
from motet.config.stage_files import COLUMNS, StagesConfig
from motet.core.errors import ConfigError


def is_plan(path: str | os.PathLike[str]) -> bool:
    """Whether a YAML file has stages, and is not a single recipe."""
    content = read_yaml(Path(path))
    return isinstance(content, dict) and "stages" in content


def load_plan(path: str | os.PathLike[str], output: Path, overrides: Sequence[str] = ()) -> Plan:
    """The plan in a YAML file, its stages' run folders below `output`; overrides as in `stages.mc.run.steps=5`.

    Raises ConfigError, naming the stage, for whatever is wrong in any of them.
    """
    return parse_plan(read_mapping(Path(path)), output, overrides, source=str(path))


def recipe_of(path: str | os.PathLike[str], overrides: Sequence[str] = (), stage: str | None = None) -> Recipe:
    """A recipe, or that of a plan's stage. Overrides are of the recipe itself.

    Raises ConfigError when a plan's stage is not named, or a recipe's is.
    """
    found = stage_of(path, stage)
    if found is None:
        return load_recipe(path, overrides)
    return parse_recipe(found.recipe.model_dump(exclude_unset=True), overrides)


def stage_of(path: str | os.PathLike[str], stage: str | None) -> Stage | None:
    """The named stage of a plan; None for the file of one recipe. ConfigError as of `recipe_of`."""
    if not is_plan(path):
        if stage is not None:
            raise ConfigError(f"--stage is {stage!r}, and {path} is one recipe, not a plan.", fix="leave it out.")
        return None
    named = {one.name: one for one in load_plan(path, Path("OUTPUT")).stages}
    if stage is None:
        text = f"{path} is a plan of the stages {', '.join(named)}."
        raise ConfigError(text, fix=f"say which one is meant: --stage {next(iter(named))}.")
    check_known([stage], named, "--stage")
    return named[stage]


def parse_plan(
    mapping: Mapping[str, Any], output: Path, overrides: Sequence[str] = (), source: str = "the plan"
) -> Plan:
    """The plan that nested mappings describe; otherwise as `load_plan`."""
    content = apply_overrides(mapping, overrides, source, StagesConfig)
    config = read_file(content, Root(StagesConfig, what="a file of stages"), STAGE_KEYS)
    if isinstance(config, list):
        raise config_error(config, overrides, source)
    builder = PlanBuilder(output, config.shared.recipe, config.stages)
    stages = builder.build()
    problems = builder.problems or [*_table_problems(config, stages), *_compare_problems(config, stages)]
    if problems:
        raise config_error(problems, overrides, source)
    table = config.table if config.table is not None else {name: dict.fromkeys(COLUMNS, name) for name in stages}
    compare = {label: (stages[one], stages[other]) for label, (one, other) in config.compare.items()}
    return Plan(config.description, tuple(stages.values()), table, compare)


def _table_problems(config: StagesConfig, stages: Mapping[str, Stage]) -> Iterator[Problem]:
    for label, row in (config.table or {}).items():
        for stage in dict.fromkeys(row.values()):
            if stage != "start" and stage not in stages:
                fix = f"write one of start, {', '.join(stages)}."
                yield Problem(f"table.{label}", f"{stage!r} is not a stage.", fix)


def _compare_problems(config: StagesConfig, stages: Mapping[str, Stage]) -> Iterator[Problem]:
    for label, names in config.compare.items():
        key = f"compare.{label}"
        unknown = [name for name in names if name not in stages]
        unfit = [name for name in names if name in stages and not _is_comparable(stages[name])]
        if unknown:
            yield Problem(key, f"{unknown[0]!r} is not a stage.", f"name two of {', '.join(stages)}.")
        elif unfit:
            text = "expected a stage of kind rl with one scenario, evaluated by eval.suite: rewards"
            yield Problem(key, f"names {unfit[0]!r}; {text}.", "name others, or change eval.suite.")
        else:
            one, other = (stages[name].recipe for name in names)
            if (one.eval, one.data) != (other.eval, other.data):
                text = f"{names[0]!r} and {names[1]!r} are not evaluated on the same rows: their eval or data differ."
                yield Problem(key, text, "give both the same.")


def _is_comparable(stage: Stage) -> bool:
    return stage.kind == "rl" and stage.recipe.eval.suite.name == "rewards" and not stage.recipe.tracks
