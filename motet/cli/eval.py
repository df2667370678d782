"""`motet eval`: evaluate a checkpoint with the shapes suite, or with a recipe's rewards on the user's own rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motet.cli.outputs import show_results
from motet.config import Recipe, parse_recipe
from motet.config.stages import recipe_of
from motet.core.errors import ConfigError
from motet.weights.locate import resolve_checkpoint


@dataclass(frozen=True)
class EvalRequest:
    """The options of one evaluation.

    `settings` maps recipe keys to the values that options set, None if not given; `suite` are the options that only
    the shapes suite has.
    """

    checkpoint: str
    settings: Mapping[str, Any]
    suite: Mapping[str, Any]
    json_path: Path | None

    @property
    def overrides(self) -> list[str]:
        """The given settings as `key=value`."""
        return _overrides(self.settings)


def evaluate_suite(request: EvalRequest, recipe_options: Mapping[str, Any]) -> None:
    """Run the shapes suite on a checkpoint and print its table. `recipe_options`: options that need a recipe."""
    _reject_options(recipe_options, "needs a recipe", "use motet eval CHECKPOINT RECIPE.yaml ...")
    suite = request.suite["--suite"] or "shapes"
    if suite != "shapes":
        raise ConfigError(
            f"--suite {suite} cannot be used without a recipe.",
            fix="use --suite shapes, or give a recipe whose rewards to use: motet eval CHECKPOINT RECIPE.yaml.",
        )
    options = [f"data.options.{option}" for option in request.suite["--world"] or []]
    content: dict[str, Any] = {"eval": {"suite": {"name": suite}}, "sampling": {"text": {"max_tokens": 64}}}
    for key, name in (("--held-out-size", "held_out_size"), ("--guidance-scale", "guidance_scale")):
        if request.suite[key] is not None:
            content["eval"]["suite"][name] = request.suite[key]
    content |= {"policy": {"path": request.checkpoint}, "run": {"steps": 1}}
    # Parsing it as a recipe validates the values and the options of the world.
    _run_suite(parse_recipe(content, [*request.overrides, *options]), request.json_path)


def _run_suite(recipe: Recipe, json_path: Path | None) -> None:
    from motet.evaluation.shapes_suite import evaluate_shapes
    from motet.policies import load_policy
    from motet.report.progress import ProgressBar
    from motet.report.tables import suite_table
    from motet.report.terminal import Terminal
    from motet.training.setup import sampling_params
    from motet.training.suites import resolve_suite

    checkpoint = recipe.policy.path
    policy = load_policy(resolve_checkpoint(checkpoint))
    suite = resolve_suite(recipe)
    assert suite is not None
    suite.check(policy)
    world_options, samplings = dict(recipe.data.options), sampling_params(recipe)
    with ProgressBar(Terminal()) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.items("evaluate", done, total)

        table = evaluate_shapes(policy, recipe.eval, world_options, samplings, on_progress).table
    show_results(suite_table({Path(checkpoint).name: table}, "Validation items"), table, json_path)


def evaluate_recipe(
    request: EvalRequest, path: Path, overrides: list[str], *, data: str | None, split: str | None, stage: str | None
) -> None:
    """Run a recipe's scenarios with a checkpoint on validation rows and print the rewards."""
    from motet.data import has_splits

    fix = "leave out the option or the recipe."
    _reject_options(request.suite, "belongs to the shapes suite, but with a recipe its rewards are used", fix)
    given = {"eval.suite.data": data, "eval.suite.split": split}
    chosen = ["eval.suite.name=rewards", *_overrides(given)]
    recipe = recipe_of(path, [*overrides, *request.overrides, *chosen], stage)
    source = recipe.eval.suite.options.get("data")
    if split is not None and source is not None and not has_splits(source):
        raise ConfigError(
            f"--split {split}, but {source} has no splits.",
            fix="leave out --split, or give the file of the split as --data.",
        )
    policy = recipe.policy.model_copy(update={"path": str(resolve_checkpoint(request.checkpoint))})
    _run_rewards(recipe.model_copy(update={"policy": policy}), request)


def _run_rewards(recipe: Recipe, request: EvalRequest) -> None:
    from rich.markup import escape

    from motet.data import has_splits
    from motet.evaluation.rewards_suite import evaluate_tracks
    from motet.report.progress import ProgressBar
    from motet.report.tables import rewards_table
    from motet.report.terminal import Terminal
    from motet.training.setup import eval_data_config, setup_eval

    session = setup_eval(recipe)
    with ProgressBar(Terminal()) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.items("evaluate", done, total)

        table = evaluate_tracks(session, on_progress).table
    sources = [eval_data_config(recipe, track.data) for track in recipe.resolved_tracks().values()]
    places = ", ".join(
        dict.fromkeys(d.source if not has_splits(d.source) else f"{d.source} ({d.split})" for d in sources)
    )
    title = f"Rewards on {escape(places)}, with 95 % intervals"
    show_results(rewards_table({Path(request.checkpoint).name: table}, title), table, request.json_path)


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    """`key=value` of the settings that are not None; values as JSON, which is valid YAML for any path."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items() if value is not None]


def _reject_options(options: Mapping[str, Any], why: str, fix: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise ConfigError(f"{option} {why}.", fix=fix)
