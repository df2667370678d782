"""A pilot study: strategies, each a plan, over the same seeds on one budget. Imports no torch.

seeds: [0, 1, 2]
shared: {...}                 what all stages of all strategies have in common
strategies:
  unified:  {stages: {...}, result: {draw: STAGE, answer: STAGE}}
  separate: {stages: {...}, result: {draw: STAGE, answer: STAGE}}
  merged:   {stages: separate, result: STAGE}         the stages of another strategy, run once and read otherwise
against: unified              the strategy that the others are compared with, seed by seed
budget: equal                 refuse strategies that play more drawings or answers than others; or free
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from motet.config.keys import show
from motet.config.load import apply_overrides, read_mapping, read_yaml
from motet.config.schema import LONGEST_NAME
from motet.config.stages import COLUMNS, Plan, parse_plan, section, trajectories
from motet.core.errors import ConfigError
from motet.core.printable import printable

KEYS = ("description", "seeds", "shared", "strategies", "against", "budget")
_PLAYED = {"generate_and_answer": ("text_to_image", "answer")}
"""What a scenario counts as; any other counts as itself."""


@dataclass(frozen=True)
class StrategySweep:
    """`plans[strategy][seed]` are what is run; `results[strategy]` says which stage a column is read from."""

    description: str
    seeds: tuple[int, ...]
    plans: Mapping[str, Mapping[int, Plan]]
    results: Mapping[str, Mapping[str, str]]
    against: str
    runs: Mapping[str, str]
    """Strategy -> the strategy whose runs it reads: itself, or the one whose stages it shares."""

    def folder(self, output: Path, strategy: str, seed: int) -> Path:
        """Where the runs of a strategy are under one seed."""
        return folder_of(output, self.runs[strategy], seed)

    def budget(self, strategy: str) -> dict[str, int]:
        """Rollouts of one seed of a strategy by scenario, in RL; generate_and_answer counts as one of each."""
        played: dict[str, int] = {}
        for stage in next(iter(self.plans[strategy].values())).stages:
            if stage.kind == "rl":
                tracks = stage.recipe.resolved_tracks()
                for name, count in trajectories(stage.recipe).items():
                    for act in _PLAYED.get(tracks[name].scenario.name, (tracks[name].scenario.name,)):
                        played[act] = played.get(act, 0) + count
        return played


def is_pilot(path: str | os.PathLike[str]) -> bool:
    """Whether a YAML file describes a pilot study."""
    content = read_yaml(Path(path))
    return isinstance(content, dict) and "strategies" in content


def folder_of(output: Path, strategy: str, seed: int) -> Path:
    """Where one strategy's plan runs under one seed."""
    return output / strategy / f"seed_{seed}"


def load_sweep(path: str | os.PathLike[str], output: Path, overrides: Sequence[str] = ()) -> StrategySweep:
    """The pilot study in a YAML file, its run folders below `output`. Raises ConfigError for whatever is wrong."""
    source = str(path)
    content = apply_overrides(read_mapping(Path(path)), overrides, source)
    for key in content:
        if key not in KEYS:
            raise ConfigError(f"{source}: the key {key!r} is unknown.", fix=f"a pilot study has {', '.join(KEYS)}.")
    seeds, strategies = content.get("seeds"), content.get("strategies")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in cast("list[Any]", seeds)):
        raise ConfigError(f"{source}: seeds is {seeds!r}; expected a list of whole numbers.", fix="seeds: [0, 1, 2].")
    named = section(strategies, f"{source}: strategies")
    if len(named) < 2:
        raise ConfigError(f"{source}: expected two or more strategies to compare.", fix="name them in strategies.")
    plans: dict[str, dict[int, Plan]] = {}
    results: dict[str, dict[str, str]] = {}
    runs: dict[str, str] = {}
    for name, given in named.items():
        where = f"{source}: strategies.{name}"
        _require_folder_name(name, where)
        settings = section(given, where)
        if set(settings) != {"stages", "result"}:
            raise ConfigError(f"{where} needs the keys stages and result, and no others.", fix="write both.")
        stages = settings["stages"]
        if isinstance(stages, str):
            if stages not in plans:
                names = ", ".join(plans) or "a mapping of stages"
                raise ConfigError(f"{where}.stages is {stages!r}, no strategy before it.", fix=f"write {names}.")
            plans[name], runs[name] = plans[stages], runs[stages]
        else:
            shared: Mapping[str, Any] = content.get("shared") or {}
            runs[name] = name
            plans[name] = {
                seed: parse_plan(
                    {"shared": _seeded(shared, seed), "stages": stages}, folder_of(output, name, seed), source=where
                )
                for seed in cast("list[int]", seeds)
            }
        results[name] = _result(settings["result"], plans[name][seeds[0]], where)
    against = content.get("against", next(iter(plans)))
    if against not in plans:
        raise ConfigError(f"{source}: against is {against!r}.", fix=f"name one of {', '.join(plans)}.")
    study = StrategySweep(
        str(content.get("description", "")), tuple(cast("list[int]", seeds)), plans, results, against, runs
    )
    _check_budget(study, content.get("budget", "equal"), source)
    return study


def _require_folder_name(name: str, where: str) -> None:
    free = not name.startswith(".") and not set(name) & {"/", "\\"} and printable(name, lines=False) == name
    if not free or not name.strip() or len(name.encode()) > LONGEST_NAME:
        fix = f"use words without / and \\, at most {LONGEST_NAME} bytes."
        raise ConfigError(f"{where}: {show(name)} is a folder's name.", fix=fix)


def _check_budget(study: StrategySweep, budget: Any, source: str) -> None:
    if budget not in ("equal", "free"):
        raise ConfigError(f"{source}: budget is {budget!r}; expected equal or free.", fix="write one of them.")
    own = study.budget(study.against)
    for name in study.plans:
        other = study.budget(name)
        if budget == "equal" and other != own:
            one, two = (", ".join(f"{n} {act}" for act, n in sorted(played.items())) for played in (own, other))
            text = f"a seed of {study.against!r} plays {one}, of {name!r} {two}"
            raise ConfigError(f"{source}: {text}.", fix="give all as many steps and prompts, or write budget: free.")


def _seeded(shared: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {**shared, "run": {**(shared.get("run") or {}), "seed": seed}}


def _result(given: Any, plan: Plan, where: str) -> dict[str, str]:
    """Column -> stage; a single stage stands for all columns."""
    names = [stage.name for stage in plan.stages]
    row: dict[str, Any] = dict.fromkeys(COLUMNS, given) if isinstance(given, str) else section(given, f"{where}.result")
    if not row or set(row) - set(COLUMNS) or set(row.values()) - set(names):
        raise ConfigError(
            f"{where}.result is {given!r}.",
            fix=f"map columns ({', '.join(COLUMNS)}) to stages ({', '.join(names)}).",
        )
    for name in dict.fromkeys(row.values()):
        suite = plan.stage(name).recipe.eval.suite.name
        if suite != "shapes":
            text = f"is read from {name!r}, whose eval.suite is {suite}; the columns are those of shapes"
            raise ConfigError(f"{where}.result {text}.", fix="set eval.suite: shapes.")
    return row
