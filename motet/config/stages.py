"""A plan: named stages, each a recipe of its own or a merge of others' weights. Imports no torch.

    shared: {...}             what the stages have in common; each changes what it names
    stages:
      unified: {scenario: generate_and_answer, ...}                         starts from shared.policy.path
      mc:      {from: unified, scenario: answer, ...}        starts from the weights that `unified` left
      oe:      {from: unified, scenario: answer, ...}
      merged:  {kind: merge, from: [mc, oe], base: unified}
    rows:                     what the closing table compares; default: one row per stage
      CoRL: {draw: draw, multiple choice: mc}
    compare:                  pairs of stages that the suite `rewards` measures on the same rows
      worth of the critique: [reflect, regenerate]

A stage that brings tracks takes no scenario, rewards or prompts_per_step from `shared`; its tracks take the data where
they name none.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast, get_args

from motet.config.choice import merge_choice
from motet.config.keys import annotation_at, is_choice, show
from motet.config.load import apply_overrides, load_recipe, parse_recipe, read_mapping, read_yaml
from motet.config.schema import LONGEST_NAME, Recipe
from motet.core.errors import ConfigError

StageKind = Literal["rl", "sft", "merge"]
MergeMethod = Literal["gaussian", "average", "norm"]
COLUMNS: tuple[str, ...] = ("draw", "answer", "multiple choice", "open-ended", "held-out draw", "held-out answer")
"""What a row of the closing table shows."""


@dataclass(frozen=True)
class Stage:
    """One run of a plan. `start` names the stages that it goes on from; empty: the recipe's own checkpoint.

    A training stage has at most one start. A merge has two or more, a method, and the `base` that they were trained
    from (a stage's checkpoint, or that of `shared`; a plain average has none); its recipe says how the result is
    measured.
    """

    name: str
    kind: StageKind
    start: tuple[str, ...]
    recipe: Recipe
    method: MergeMethod = "gaussian"
    base: Path | None = None


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which each comes after what it needs; `rows`: label -> column -> stage.

    `compare`: label -> two stages, whose first rewards the closing table compares row by row.
    """

    description: str
    stages: tuple[Stage, ...]
    rows: Mapping[str, Mapping[str, str]]
    compare: Mapping[str, tuple[Stage, Stage]] = field(default_factory=dict[str, "tuple[Stage, Stage]"])

    def stage(self, name: str) -> Stage:
        """The stage of this name."""
        return next(stage for stage in self.stages if stage.name == name)

    def needed(self, names: Sequence[str], output: Path) -> set[str]:
        """These stages and all that they go on from. Raises ConfigError for a name that the plan does not have."""
        known = {stage.name: stage for stage in self.stages}
        check_known(names, known, "--only")
        by_weights = {checkpoint_of(stage, output): stage.name for stage in self.stages}
        found, asked = set[str](), list(names)
        while asked:
            stage = known[asked.pop()]
            found.add(stage.name)
            asked += stage.start
            if stage.base in by_weights:
                asked.append(by_weights[stage.base])
        return found

    def part(self, names: Collection[str]) -> Plan:
        """The plan of these stages alone, with what is left of its rows and comparisons."""
        rows = {
            label: {column: name for column, name in row.items() if name in names or name == "start"}
            for label, row in self.rows.items()
        }
        return replace(
            self,
            stages=tuple(stage for stage in self.stages if stage.name in names),
            rows={label: row for label, row in rows.items() if row},
            compare={label: pair for label, pair in self.compare.items() if all(stage.name in names for stage in pair)},
        )


def checkpoint_of(stage: Stage, output: Path) -> Path:
    """Where the weights lie that a finished stage leaves."""
    if stage.kind == "merge":
        return output / stage.name / "merged"
    return output / stage.name / "checkpoints" / f"step_{stage.recipe.run.steps:06d}"


def trajectories(recipe: Recipe) -> dict[str, int]:
    """How many trajectories a run of reinforcement learning plays, by track; without tracks under the name ""."""
    tracks, turn = recipe.resolved_tracks(), recipe.run.steps_per_track
    played: dict[str, int] = {}
    for place, (name, track) in enumerate(tracks.items()):
        steps = sum(turn is None or step // turn % len(tracks) == place for step in range(recipe.run.steps))
        played[name] = steps * track.prompts_per_step * recipe.algorithm.num_generations
    return played


def is_plan(path: str | os.PathLike[str]) -> bool:
    """Whether a YAML file describes a plan and not a single recipe."""
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
    if not is_plan(path):
        if stage is not None:
            raise ConfigError(f"--stage is {stage!r}, and {path} is one recipe, not a plan.", fix="leave it out.")
        return load_recipe(path, overrides)
    plan = load_plan(path, Path("OUTPUT"))
    named = {one.name: one for one in plan.stages}
    if stage is None:
        text = f"{path} is a plan of the stages {', '.join(named)}."
        raise ConfigError(text, fix=f"say which one is meant: --stage {next(iter(named))}.")
    check_known([stage], named, "--stage")
    return parse_recipe(named[stage].recipe.model_dump(exclude_unset=True), overrides)


def parse_plan(
    mapping: Mapping[str, Any], output: Path, overrides: Sequence[str] = (), source: str = "the plan"
) -> Plan:
    """The plan that nested mappings describe; otherwise as `load_plan`."""
    content = apply_overrides(mapping, overrides, source)
    for key in content:
        if key not in ("description", "shared", "stages", "rows", "compare"):
            raise ConfigError(
                f"{source}: the key {key!r} is unknown; a plan has description, shared, stages, rows and compare.",
                fix=f"move {key!r} below shared, or below a stage.",
            )
    shared = section(content.get("shared") or {}, f"{source}: shared")
    stages = section(content.get("stages"), f"{source}: stages")
    if not stages:
        raise ConfigError(f"{source}: stages is empty.", fix="name a stage.")
    reader = _Reader(source, output, shared, tuple(stages))
    for name, given in stages.items():
        reader.read(name, section(given, f"{source}: stages.{name}"))
    built = reader.built
    rows, compare = _rows(content.get("rows"), built, source), _compare(content.get("compare") or {}, built, source)
    return Plan(str(content.get("description", "")), tuple(built.values()), rows, compare)


def check_known(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises ConfigError for the first name that is none of the known, with the nearest of them."""
    names = sorted(known)
    for name in given:
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}."
            raise ConfigError(f"{where} is {name!r}, which the plan does not have.", fix=hint)


def section(value: Any, where: str) -> dict[str, Any]:
    """A mapping with keys that are text; raises ConfigError, naming the place, for anything else."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}; expected keys with values.", fix="write them below it, indented.")
    return cast("dict[str, Any]", value)


@dataclass
class _Reader:
    """Reads stages one after another; `names` are all there will be."""

    source: str
    output: Path
    shared: Mapping[str, Any]
    names: tuple[str, ...]
    built: dict[str, Stage] = field(default_factory=dict[str, "Stage"])

    def read(self, name: str, settings: Mapping[str, Any]) -> None:
        where, own = f"{self.source}: stages.{name}", dict(settings)
        if not name.replace("-", "_").isidentifier() or len(name.encode()) > LONGEST_NAME:
            fix = f"use letters, digits, _ and -, at most {LONGEST_NAME} of them."
            raise ConfigError(f"{where}: {show(name)} is a folder's name.", fix=fix)
        kind = own.pop("kind", "rl")
        if kind not in get_args(StageKind):
            raise ConfigError(f"{where}.kind is {kind!r}; expected {', '.join(get_args(StageKind))}.", fix="write one.")
        given = own.pop("from", [])
        start = tuple(str(name) for name in (cast("list[Any]", given) if isinstance(given, list) else [given]))
        for needed in start:
            self._refuse_unknown(needed, name, where)
        self.built[name] = (self._merge if kind == "merge" else self._training)(name, kind, start, own, where)

    def _training(self, name: str, kind: StageKind, start: tuple[str, ...], own: dict[str, Any], where: str) -> Stage:
        if len(start) > 1 or "method" in own or "base" in own:
            fix = "name one stage in from, or write kind: merge."
            raise ConfigError(f"{where} trains from one stage and merges nothing.", fix=fix)
        begin = checkpoint_of(self.built[start[0]], self.output) if start else None
        recipe = self._recipe(own, begin, where)
        if kind == "rl" and recipe.sft.model_fields_set:
            raise ConfigError(f"{where}.sft has no effect in a stage of kind rl.", fix="move it to stages of kind sft.")
        return Stage(name, kind, start, recipe)

    def _merge(self, name: str, kind: StageKind, start: tuple[str, ...], own: dict[str, Any], where: str) -> Stage:
        method, base = own.pop("method", "gaussian"), own.pop("base", None)
        if len(start) < 2:
            raise ConfigError(f"{where} merges {len(start)} stages; expected two or more.", fix="write from: [A, B].")
        if method not in get_args(MergeMethod):
            raise ConfigError(f"{where}.method is {method!r}.", fix=f"write one of {', '.join(get_args(MergeMethod))}.")
        if method == "gaussian" and len(start) != 2:
            raise ConfigError(f"{where}: gaussian merges two stages, not {len(start)}.", fix="use average or norm.")
        recipe = self._recipe(own, self.output / name / "merged", where)
        if method == "average":
            if base is not None:
                raise ConfigError(f"{where}.base: a plain average knows no base.", fix="remove it, or change method.")
            return Stage(name, kind, start, recipe, method)
        if base is not None:
            self._refuse_unknown(base, name, where)
            return Stage(name, kind, start, recipe, method, checkpoint_of(self.built[base], self.output))
        path = section(self.shared.get("policy") or {}, f"{self.source}: shared.policy").get("path")
        if not isinstance(path, str):
            raise ConfigError(f"{where} names no base.", fix="write base: STAGE, or give shared.policy.path.")
        return Stage(name, kind, start, recipe, method, Path(path))

    def _recipe(self, own: Mapping[str, Any], begin: Path | None, where: str) -> Recipe:
        """The stage's recipe; `begin` is the checkpoint that it goes on from, None for its own."""
        content = _combined(self.shared, own)
        if begin is not None:
            content["policy"] = {**content.get("policy", {}), "path": str(begin)}
        try:
            return parse_recipe(content)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.problem}", fix=error.fix) from None

    def _refuse_unknown(self, needed: str, name: str, where: str) -> None:
        if needed in self.built:
            return
        close = get_close_matches(needed, self.names, n=1)
        hint = f"write {close[0]!r}." if close else "name a stage."
        if needed in self.names:
            hint = f"move {needed!r} before {name!r}."
        raise ConfigError(f"{where} goes on from {needed!r}, which is no earlier stage.", fix=hint)


def _combined(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own` over `shared`, section by section."""
    content = _merge(shared, own)
    if "tracks" in own:
        data = content.get("data")
        for key in {"scenario", "data", "rewards"} - own.keys():
            content.pop(key, None)
        if data is not None and "data" not in own and isinstance(content["tracks"], Mapping):
            tracks = cast("Mapping[str, Any]", content["tracks"])
            content["tracks"] = {
                name: {"data": data, **track} if isinstance(track, Mapping) else track for name, track in tracks.items()
            }
        if isinstance(content.get("run"), dict) and "prompts_per_step" not in (own.get("run") or {}):
            content["run"].pop("prompts_per_step", None)
    return content


def _merge(under: Any, over: Any, path: tuple[str, ...] = ()) -> Any:
    if path and is_choice(annotation_at(path)[0]):
        return merge_choice(under, over)
    if not (isinstance(under, Mapping) and isinstance(over, Mapping)):
        return over
    below, above = cast("Mapping[str, Any]", under), cast("Mapping[str, Any]", over)
    return {
        key: _merge(below[key], above[key], (*path, key)) if key in below and key in above else {**below, **above}[key]
        for key in (*below, *(key for key in above if key not in below))
    }


def _rows(given: Any, stages: Mapping[str, Stage], source: str) -> dict[str, dict[str, str]]:
    if given is None:
        return {name: dict.fromkeys(COLUMNS, name) for name in stages}
    rows: dict[str, dict[str, str]] = {}
    for label, cells in section(given, f"{source}: rows").items():
        where = f"{source}: rows.{label}"
        row: dict[str, Any] = dict.fromkeys(COLUMNS, cells) if isinstance(cells, str) else section(cells, where)
        for column, stage in row.items():
            if column not in COLUMNS or (stage not in stages and stage != "start"):
                raise ConfigError(
                    f"{source}: rows.{label} takes {column!r} from {stage!r}.",
                    fix=f"columns are {', '.join(COLUMNS)}; stages are start, {', '.join(stages)}.",
                )
        rows[label] = row
    return rows


def _compare(given: Any, stages: Mapping[str, Stage], source: str) -> dict[str, tuple[Stage, Stage]]:
    pairs: dict[str, tuple[Stage, Stage]] = {}
    for label, names in section(given, f"{source}: compare").items():
        where = f"{source}: compare.{label}"
        chosen = cast("list[Any]", names) if isinstance(names, list) else []
        if len(chosen) != 2 or not all(isinstance(name, str) and name in stages for name in chosen):
            raise ConfigError(f"{where} is {names!r}; expected two stages.", fix=f"name two of {', '.join(stages)}.")
        one, other = (stages[name] for name in chosen)
        for stage in (one, other):
            if stage.kind != "rl" or stage.recipe.eval.suite.name != "rewards" or stage.recipe.tracks:
                text = "expected a stage of kind rl with one scenario, measured by eval.suite: rewards"
                raise ConfigError(f"{where} names {stage.name!r}; {text}.", fix="name others, or change eval.suite.")
        if (one.recipe.eval, one.recipe.data) != (other.recipe.eval, other.recipe.data):
            text = "are not measured on the same rows: their eval or data differ"
            raise ConfigError(f"{where}: {one.name!r} and {other.name!r} {text}.", fix="give both the same.")
        pairs[label] = (one, other)
    return pairs
