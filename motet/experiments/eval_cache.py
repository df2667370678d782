"""What is known of weights: what one stage has measured, no other measures again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motet.config import Recipe
from motet.config.plan import Stage, checkpoint_of
from motet.evaluation.shapes_suite import plain_sampling
from motet.evaluation.suites import ShapesSuite, world_of
from motet.shapes.world import TRAIN_SPLIT_OPTIONS
from motet.training.setup import sampling_params
from motet.training.suites import resolve_suite
from motet.weights.locate import weights_digest

Table = dict[str, Any]


class EvalCache:
    """Tables by the weights and the way of measuring, over one plan or several."""

    def __init__(self) -> None:
        self._known: list[tuple[str, Recipe, Table]] = []

    def add(self, stage: Stage, output: Path, result: Mapping[str, Any]) -> None:
        """What a finished stage of a plan in `output` has measured: where it started, and what it left."""
        for path, table in (
            (stage.recipe.policy.path, result.get("before")),
            (checkpoint_of(stage, output), result.get("after")),
        ):
            if table is not None:
                self._known.append((_weights(path), stage.recipe, table))

    def of_start(self, stage: Stage) -> Table | None:
        """A measurement of the weights that the stage starts from, if one was made as the stage would make it."""
        start = _weights(stage.recipe.policy.path)
        known = (
            table
            for weights, recipe, table in self._known
            if weights == start and same_eval_settings(recipe, stage.recipe)
        )
        return next(known, None)


def _weights(path: str | Path) -> str:
    """Their digest: a path may come to hold others. A hub id stands for itself."""
    return weights_digest(path) or str(path)


def same_eval_settings(one: Recipe, other: Recipe) -> bool:
    """Whether the suite asks both the same of the same weights."""
    return _asked(one) == _asked(other)


def _asked(recipe: Recipe) -> list[Any]:
    """What a measurement depends on beside the weights. Options of the world that tilt training alone do not count."""
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
