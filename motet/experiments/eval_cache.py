"""Cache of evaluation results, keyed by weights digest and evaluation settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motet.config import Recipe
from motet.config.plan import Stage, checkpoint_of
from motet.evaluation.shapes_suite import plain_sampling
from motet.evaluation.suites import ShapesSuite, world_of
from motet.shapes.options import TRAIN_SPLIT_OPTIONS
from motet.training.setup import sampling_params
from motet.training.suites import resolve_suite
from motet.weights.locate import weights_digest

Table = dict[str, Any]


class EvalCache:
    """Evaluation results by weights and settings, shared by the stages of one or several plans."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, Recipe, Table]] = []

    def add(self, stage: Stage, output: Path, result: Mapping[str, Any]) -> None:
        """Add the results of a finished stage in `output`: of its starting weights and of its final weights."""
        for path, table in (
            (stage.recipe.policy.path, result.get("before")),
            (checkpoint_of(stage, output), result.get("after")),
        ):
            if table is not None:
                self._entries.append((_weights_id(path), stage.recipe, table))

    def for_start(self, stage: Stage) -> Table | None:
        """A result for the stage's starting weights with the stage's evaluation settings; None if there is none."""
        start = _weights_id(stage.recipe.policy.path)
        matching = (
            table
            for weights, recipe, table in self._entries
            if weights == start and same_eval_settings(recipe, stage.recipe)
        )
        return next(matching, None)


def _weights_id(path: str | Path) -> str:
    """The digest of the weights at a path, since its content may change; a hub id itself."""
    return weights_digest(path) or str(path)


def same_eval_settings(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes would give the same evaluation results for the same weights."""
    return _eval_settings(one) == _eval_settings(other)


def _eval_settings(recipe: Recipe) -> list[Any]:
    """The settings that an evaluation depends on, besides the weights; options of the training split do not matter."""
    policy = recipe.policy
    types = (policy.dtype, policy.rollout_dtype)
    how = [recipe.eval, types, policy.diffusion, policy.max_pixels]
    if isinstance(resolve_suite(recipe), ShapesSuite):
        samplings = {kind: plain_sampling(sampling) for kind, sampling in sampling_params(recipe).items()}
        return [*how, samplings, _without_training(world_of(recipe))]
    tracks = [
        (name, track.scenario, track.rewards, _rows(track.data.model_dump()))
        for name, track in recipe.resolved_tracks().items()
    ]
    return [*how, recipe.sampling, tracks]


def _rows(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"options": _without_training(data["options"]), "targets": {}}


def _without_training(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in TRAIN_SPLIT_OPTIONS}
