"""Stages as they are run, and where their checkpoints are. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from motet.config.schema import Recipe
from motet.config.stage_files import Column, MergeMethod, StageKind
from motet.core.errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """One run of a plan. `init_from` names the stages that it starts from; empty: the recipe's own checkpoint.

    A training stage starts from one at most. A merge has two or more, a method, and the `base` that they were trained
    from (a stage's checkpoint, or that of `shared`; method average has none); its recipe says how the result is
    evaluated.
    """

    name: str
    kind: StageKind
    init_from: tuple[str, ...]
    recipe: Recipe
    method: MergeMethod = "gaussian"
    base: Path | None = None


@dataclass(frozen=True)
class Plan:
    """Stages, each after those that it starts from; `table`: label -> column -> stage.

    `compare`: label -> two stages, whose first rewards the closing table compares row by row.
    """

    description: str
    stages: tuple[Stage, ...]
    table: Mapping[str, Mapping[Column, str]]
    compare: Mapping[str, tuple[Stage, Stage]] = field(default_factory=dict[str, "tuple[Stage, Stage]"])

    def stage(self, name: str) -> Stage:
        """The stage of this name."""
        return next(stage for stage in self.stages if stage.name == name)

    def needed(self, names: Sequence[str], output: Path) -> set[str]:
        """These stages and all that they start from. Raises ConfigError for a name that the plan does not have."""
        known = {stage.name: stage for stage in self.stages}
        check_known(names, known, "--only")
        by_weights = {checkpoint_of(stage, output): stage.name for stage in self.stages}
        found, asked = set[str](), list(names)
        while asked:
            stage = known[asked.pop()]
            found.add(stage.name)
            asked += stage.init_from
            if stage.base in by_weights:
                asked.append(by_weights[stage.base])
        return found

    def part(self, names: Collection[str]) -> Plan:
        """The plan of these stages only, with what is left of its table and comparisons."""
        table = {
            label: {column: name for column, name in row.items() if name in names or name == "start"}
            for label, row in self.table.items()
        }
        return replace(
            self,
            stages=tuple(stage for stage in self.stages if stage.name in names),
            table={label: row for label, row in table.items() if row},
            compare={label: pair for label, pair in self.compare.items() if all(stage.name in names for stage in pair)},
        )


def checkpoint_of(stage: Stage, output: Path) -> Path:
    """The last checkpoint of a finished stage."""
    if stage.kind == "merge":
        return output / stage.name / "merged"
    return output / stage.name / "checkpoints" / f"step_{stage.recipe.run.steps:06d}"


def trajectories(recipe: Recipe) -> dict[str, int]:
    """Number of trajectories that a run of reinforcement learning generates, by track; without tracks under ""."""
    tracks, turn = recipe.resolved_tracks(), recipe.run.steps_per_track
    played: dict[str, int] = {}
    for place, (name, track) in enumerate(tracks.items()):
        steps = sum(turn is None or step // turn % len(tracks) == place for step in range(recipe.run.steps))
        played[name] = steps * track.prompts_per_step * recipe.algorithm.num_generations
    return played


def check_known(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise ConfigError for the first unknown name, with the most similar known one."""
    names = sorted(known)
    for name in given:
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}."
            raise ConfigError(f"{where} is {name!r}, which the plan does not have.", fix=hint)
