"""Builds the stages of a file, and collects all that is wrong with them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from motet.config.choice import merge_choice
from motet.config.keys import annotation_at, is_choice, show
from motet.config.load import read_recipe
from motet.config.plan import Stage, checkpoint_of
from motet.config.problem import Problem
from motet.config.renamed import renamed_problems
from motet.config.schema import LONGEST_NAME, Recipe, SftConfig
from motet.config.stage_files import StageConfig


class PlanBuilder:
    """Builds stages one after another, and collects all problems; `prefix` goes before the keys of stages."""

    def __init__(
        self, output: Path, shared: Mapping[str, Any], configs: Mapping[str, StageConfig], prefix: str = ""
    ) -> None:
        self.output, self.shared, self.configs, self.prefix = output, shared, configs, prefix
        self.names = tuple(configs)
        self.problems = list(renamed_problems(shared, "shared."))
        self.stages: dict[str, Stage] = {}

    def build(self) -> dict[str, Stage]:
        """The stages by name; those with problems, and those that start from them, are left out."""
        if not self.configs:
            self._add("", "is empty.", "name a stage.")
        for name, config in self.configs.items():
            found = len(self.problems)
            self._check(name, config)
            depends_on = (*config.init_from, *([] if config.base is None else [config.base]))
            if len(self.problems) == found and all(needed in self.stages for needed in depends_on):
                stage = self._merge(name, config) if config.kind == "merge" else self._training(name, config)
                self.stages |= {} if stage is None else {name: stage}
        return self.stages

    def _add(self, key: str, text: str, fix: str) -> None:
        self.problems.append(Problem(f"{self.prefix}stages{'.' if key else ''}{key}", text, fix))

    def _check(self, name: str, config: StageConfig) -> None:
        """Problems of a stage's own keys."""
        if not name.replace("-", "_").isidentifier() or len(name.encode()) > LONGEST_NAME:
            fix = f"use letters, digits, _ and -, at most {LONGEST_NAME} of them."
            self._add(name, f"{show(name)} is used as a folder name.", fix)
        self.problems += renamed_problems(config.recipe, f"{self.prefix}stages.{name}.")
        earlier = self.names[: self.names.index(name)]
        given = {"init_from": config.init_from, "base": () if config.base is None else (config.base,)}
        for key, needed in ((key, needed) for key, names in given.items() for needed in names):
            if needed not in earlier:
                close = get_close_matches(needed, self.names, n=1)
                fix = f"move {needed!r} before {name!r}." if needed in self.names else "name an earlier stage."
                fix = f"write {close[0]!r}." if close and needed not in self.names else fix
                self._add(f"{name}.{key}", f"{needed!r} is not an earlier stage.", fix)
        count = len(config.init_from)
        if config.kind == "merge":
            self._check_merge(name, config)
        elif count > 1:
            fix = "name one, or set kind: merge."
            self._add(f"{name}.init_from", f"names {count} stages; a stage of kind {config.kind} starts from one.", fix)
        for key in ("method", "base") if config.kind != "merge" else ():
            if key in config.model_fields_set:
                fix = "remove it, or set kind: merge."
                self._add(f"{name}.{key}", f"has no effect in a stage of kind {config.kind}.", fix)

    def _check_merge(self, name: str, config: StageConfig) -> None:
        count = len(config.init_from)
        if count < 2:
            text = f"names {count} stages; a merge needs two or more."
            self._add(f"{name}.init_from", text, "write init_from: [A, B].")
        elif config.method == "gaussian" and count != 2:
            text = f"is gaussian, which merges two stages, not {count}."
            self._add(f"{name}.method", text, "set it to average or norm.")
        if config.method == "average" and config.base is not None:
            self._add(f"{name}.base", "has no effect with method average.", "remove it, or change method.")

    def _training(self, name: str, config: StageConfig) -> Stage | None:
        start = checkpoint_of(self.stages[config.init_from[0]], self.output) if config.init_from else None
        recipe = self._recipe(name, config, start)
        if recipe is not None and config.kind == "rl" and recipe.sft != SftConfig():
            self._add(f"{name}.sft", "has no effect in a stage of kind rl.", "move it to stages of kind sft.")
        return None if recipe is None else Stage(name, config.kind, config.init_from, recipe)

    def _merge(self, name: str, config: StageConfig) -> Stage | None:
        recipe = self._recipe(name, config, self.output / name / "merged")
        base: Path | None = None
        if config.base is not None:
            base = checkpoint_of(self.stages[config.base], self.output)
        elif config.method != "average":
            policy = self.shared.get("policy")
            path = cast("Mapping[str, Any]", policy).get("path") if isinstance(policy, Mapping) else None
            base = Path(path) if isinstance(path, str) else None
            if base is None:
                self._add(f"{name}.base", "missing.", "write base: STAGE, or give shared.policy.path.")
        return None if recipe is None else Stage(name, "merge", config.init_from, recipe, config.method, base)

    def _recipe(self, name: str, config: StageConfig, start: Path | None) -> Recipe | None:
        """The stage's recipe; `start` is the checkpoint that it starts from, None: that of the recipe."""
        content = _combined(self.shared, config.recipe)
        if start is not None and isinstance(content.setdefault("policy", {}), Mapping):
            content["policy"] = {**content["policy"], "path": str(start)}
        recipe = read_recipe(content)
        if isinstance(recipe, Recipe):
            return recipe
        for problem in recipe:
            shared = _has(self.shared, problem.key) and not _has(config.recipe, problem.key)
            key = f"shared.{problem.key}" if shared else f"{self.prefix}stages.{name}.{problem.key}"
            moved = replace(problem, key=key)
            if moved not in self.problems:
                self.problems.append(moved)
        return None


def _has(content: Any, key: str) -> bool:
    """Whether a mapping holds a value at a dotted key."""
    for part in key.split("."):
        if isinstance(content, list) and part.isdecimal() and int(part) < len(cast("list[Any]", content)):
            content = cast("list[Any]", content)[int(part)]
        elif isinstance(content, Mapping) and part in content:
            content = cast("Mapping[str, Any]", content)[part]
        else:
            return False
    return True


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
