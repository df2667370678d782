"""A sweep: strategies, each in stages, over the same seeds on one budget. Imports no torch.

seeds: [0, 1, 2]
shared: {...}                 keys that all stages of all strategies have in common
strategies:
  unified:  {stages: {...}, result: {draw: STAGE, answer: STAGE}}
  separate: {stages: {...}, result: {draw: STAGE, answer: STAGE}}
  merged:   {same_stages_as: separate, result: STAGE}   other stages of the same runs
baseline: unified             the strategy that the others are compared with, seed by seed
budget: equal                 an error where strategies generate different numbers of images or answers; or free
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from motet.config.error_messages import Root
from motet.config.keys import show
from motet.config.load import apply_overrides, config_error, read_file, read_mapping, read_yaml
from motet.config.plan import Plan, trajectories
from motet.config.problem import Problem
from motet.config.renamed import SWEEP_KEYS
from motet.config.schema import LONGEST_NAME
from motet.config.stage_builder import PlanBuilder
from motet.config.stage_files import COLUMNS, Row, StrategyConfig, SweepConfig
from motet.core.errors import ConfigError
from motet.core.printable import printable

_COUNTS_AS = {"generate_and_answer": ("text_to_image", "answer")}
"""Scenarios that a scenario counts as; any other counts as itself."""


@dataclass(frozen=True)
class StrategySweep:
    """`plans[strategy][seed]` is what is run; `results[strategy]` maps columns of the comparison to stages."""

    description: str
    seeds: tuple[int, ...]
    plans: Mapping[str, Mapping[int, Plan]]
    results: Mapping[str, Row]
    baseline: str
    runs: Mapping[str, str]
    """Strategy -> the strategy whose runs it uses: itself, or the one whose stages it shares."""

    def folder(self, output: Path, strategy: str, seed: int) -> Path:
        """The folder of a strategy's runs under one seed."""
        return folder_of(output, self.runs[strategy], seed)

    def part(self, strategies: Collection[str], seeds: Collection[int]) -> StrategySweep:
        """These strategies and seeds alone, all if none is given, to be run by one of several processes.

        The baseline stays. Raises ConfigError for one that the sweep does not have.
        """
        for what, chosen, known in (("strategy", strategies, self.plans), ("seed", seeds, self.seeds)):
            for name in chosen:
                if name not in known:
                    raise ConfigError(
                        f"{show(name)} is not a {what} of the sweep.", fix=f"choose from {', '.join(map(str, known))}."
                    )
        plans = {name: plans for name, plans in self.plans.items() if not strategies or name in strategies}
        return replace(self, plans=plans, seeds=tuple(seed for seed in self.seeds if not seeds or seed in seeds))

    def suite(self, strategy: str) -> str:
        """The evaluation suite whose results are compared."""
        plan = next(iter(self.plans[strategy].values()))
        return plan.stage(next(iter(self.results[strategy].values()))).recipe.eval.suite.name

    def budget(self, strategy: str) -> dict[str, int]:
        """Rollouts of one seed of a strategy by scenario, in RL; generate_and_answer counts as one of each."""
        counts: dict[str, int] = {}
        for stage in next(iter(self.plans[strategy].values())).stages:
            if stage.kind == "rl":
                tracks = stage.recipe.resolved_tracks()
                for name, count in trajectories(stage.recipe).items():
                    for act in _COUNTS_AS.get(tracks[name].scenario.name, (tracks[name].scenario.name,)):
                        counts[act] = counts.get(act, 0) + count
        return counts


def is_sweep(path: str | os.PathLike[str]) -> bool:
    """Whether a YAML file describes a sweep."""
    content = read_yaml(Path(path))
    return isinstance(content, dict) and "strategies" in content


def folder_of(output: Path, strategy: str, seed: int) -> Path:
    """The folder of one strategy under one seed."""
    return output / strategy / f"seed_{seed}"


def load_sweep(path: str | os.PathLike[str], output: Path, overrides: Sequence[str] = ()) -> StrategySweep:
    """The sweep in a YAML file, its run folders below `output`. Raises ConfigError for whatever is wrong."""
    source = str(path)
    content = apply_overrides(read_mapping(Path(path)), overrides, source, SweepConfig)
    config = read_file(content, Root(SweepConfig, what="a sweep"), SWEEP_KEYS)
    problems = config if isinstance(config, list) else list(_own_problems(config))
    if problems or isinstance(config, list):
        raise config_error(problems, overrides, source)
    plans: dict[str, dict[int, Plan]] = {}
    for name, strategy in config.strategies.items():
        if strategy.same_stages_as is not None:
            plans[name] = plans.get(strategy.same_stages_as, {})
        else:
            plans[name] = _plans(config, name, strategy, output, problems)
        stages = [] if problems else [stage.name for stage in plans[name][config.seeds[0]].stages]
        problems += [] if problems else _result_problems(name, strategy, plans[name][config.seeds[0]], stages)
    baseline = config.baseline if config.baseline is not None else next(iter(plans))
    results = {name: strategy.result for name, strategy in config.strategies.items()}
    runs = {name: strategy.same_stages_as or name for name, strategy in config.strategies.items()}
    sweep = StrategySweep(config.description, config.seeds, plans, results, baseline, runs)
    if not problems and config.budget == "equal":
        problems = list(_budget_problems(sweep))
    if problems:
        raise config_error(problems, overrides, source)
    return sweep


def _own_problems(config: SweepConfig) -> Iterator[Problem]:
    """Problems of the sweep's own keys."""
    if not config.seeds:
        yield Problem("seeds", "is empty.", "write seeds: [0, 1, 2].")
    if len(config.strategies) < 2:
        yield Problem("strategies", "expected two or more strategies to compare.", "add one.")
    if config.baseline is not None and config.baseline not in config.strategies:
        close = get_close_matches(config.baseline, config.strategies, n=1) or list(config.strategies)
        yield Problem("baseline", f"{config.baseline!r} is not a strategy.", f"write one of {', '.join(close)}.")
    earlier: list[str] = []
    for name, strategy in config.strategies.items():
        key, shared = f"strategies.{name}", strategy.same_stages_as
        if not _is_folder_name(name):
            fix = f"use letters without / and \\, at most {LONGEST_NAME} bytes."
            yield Problem(key, f"{show(name)} is used as a folder name.", fix)
        if shared is not None and strategy.stages:
            yield Problem(f"{key}.same_stages_as", "has no effect beside stages.", "remove one of them.")
        elif shared is not None and shared not in earlier:
            fix = f"write one of {', '.join(earlier)}." if earlier else "write stages."
            yield Problem(f"{key}.same_stages_as", f"{shared!r} is not an earlier strategy with stages.", fix)
        elif shared is None:
            earlier.append(name)


def _is_folder_name(name: str) -> bool:
    free = not name.startswith(".") and not set(name) & {"/", "\\"} and printable(name, lines=False) == name
    return free and bool(name.strip()) and len(name.encode()) <= LONGEST_NAME


def _plans(
    config: SweepConfig, name: str, strategy: StrategyConfig, output: Path, problems: list[Problem]
) -> dict[int, Plan]:
    """Seed -> the strategy's stages; what is wrong with them is added to the problems, once for all seeds."""
    plans: dict[int, Plan] = {}
    for seed in config.seeds:
        shared = _seeded(config.shared.recipe, seed)
        builder = PlanBuilder(folder_of(output, name, seed), shared, strategy.stages, f"strategies.{name}.")
        plans[seed] = Plan("", tuple(builder.build().values()), {})
        problems += [problem for problem in builder.problems if problem not in problems]
    return plans


def _budget_problems(sweep: StrategySweep) -> Iterator[Problem]:
    expected = sweep.budget(sweep.baseline)
    for name in sweep.plans:
        budget = sweep.budget(name)
        if budget != expected:
            one, two = (
                ", ".join(f"{n} {scenario}" for scenario, n in sorted(counts.items())) for counts in (expected, budget)
            )
            text = f"is equal, but a seed of {sweep.baseline!r} generates {one}, of {name!r} {two}."
            yield Problem("budget", text, "give all the same number of steps and prompts, or set budget to free.")


def _seeded(shared: Mapping[str, Any], seed: int) -> dict[str, Any]:
    run: Any = shared.get("run") or {}
    return (
        {**shared, "run": {**cast("Mapping[str, Any]", run), "seed": seed}} if isinstance(run, Mapping) else {**shared}
    )


def _result_problems(name: str, strategy: StrategyConfig, plan: Plan, stages: Sequence[str]) -> Iterator[Problem]:
    key = f"strategies.{name}.result"
    if not strategy.result:
        yield Problem(key, "is empty.", f"map columns to stages ({', '.join(stages)}).")
    for stage in dict.fromkeys(strategy.result.values()):
        if stage not in stages:
            yield Problem(key, f"{stage!r} is not a stage.", f"write one of {', '.join(stages)}.")
        elif (suite := plan.stage(stage).recipe.eval.suite.name) == "none":
            yield Problem(key, f"names {stage!r}, which is not evaluated.", "set its eval.suite.")
        elif suite != "shapes" and not _is_whole(strategy.result):
            text = f"names {stage!r}, whose eval.suite is {suite}; the columns are those of the shapes suite."
            yield Problem(key, text, f"name one stage, whose results are all compared: result: {stage}.")


def _is_whole(result: Row) -> bool:
    """Whether all columns are taken from one stage, as where its name alone is written."""
    return len(result) == len(COLUMNS) and len(set(result.values())) == 1
