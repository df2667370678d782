"""`motet eval`: a checkpoint measured by the shapes suite, or with a recipe's rewards on rows of the user's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motet.cli.outputs import show_numbers
from motet.config import Recipe, parse_recipe
from motet.config.stages import recipe_of
from motet.core.errors import ConfigError
from motet.weights.locate import resolve_checkpoint


@dataclass(frozen=True)
class Asked:
    """What was asked for. `settings` are options by the recipe's key that they set, None: not given.

    `suite` are the options that only the shapes suite has.
    """

    checkpoint: str
    settings: Mapping[str, Any]
    suite: Mapping[str, Any]
    json_path: Path | None

    @property
    def overrides(self) -> list[str]:
        """The settings that were given, as one writes them on a command line."""
        return _overrides(self.settings)


def evaluate_suite(asked: Asked, of_recipes: Mapping[str, Any]) -> None:
    """Run the shapes suite on a checkpoint and print its table. `of_recipes`: options that a recipe alone has."""
    _refuse(of_recipes, "needs a recipe to measure with", "motet eval CHECKPOINT RECIPE.yaml ...")
    suite = asked.suite["--suite"] or "shapes"
    if suite != "shapes":
        raise ConfigError(
            f"--suite {suite} measures nothing.",
            fix="use --suite shapes, or give a recipe whose rewards measure: motet eval CHECKPOINT RECIPE.yaml.",
        )
    options = [f"data.options.{option}" for option in asked.suite["--world"] or []]
    content: dict[str, Any] = {"eval": {"suite": {"name": suite}}, "sampling": {"text": {"max_tokens": 64}}}
    for key, name in (("--held-out-size", "held_out_size"), ("--guidance-scale", "guidance_scale")):
        if asked.suite[key] is not None:
            content["eval"]["suite"][name] = asked.suite[key]
    content |= {"policy": {"path": asked.checkpoint}, "run": {"steps": 1}}
    # A recipe's own rules check the numbers, and read the options of the world.
    _run_suite(parse_recipe(content, [*asked.overrides, *options]), asked.json_path)


def _run_suite(recipe: Recipe, json_path: Path | None) -> None:
    from motet.evaluation.shapes_suite import evaluate_shapes
    from motet.policies import load_policy
    from motet.report.progress import ProgressBar
    from motet.report.tables import suite_table
    from motet.report.terminal import Terminal
    from motet.training.setup import check_suite, sampling_params

    checkpoint = recipe.policy.path
    policy = load_policy(resolve_checkpoint(checkpoint))
    check_suite(recipe.eval.suite.name, policy)
    world, longest = dict(recipe.data.options), recipe.sampling.text.max_tokens
    drawing = sampling_params(recipe)["denoising"]
    with ProgressBar(Terminal()) as bar:

        def tell(done: int, total: int) -> None:
            bar.items("measure", done, total)

        table = evaluate_shapes(policy, recipe.eval, world, longest, tell, denoising=drawing).table
    show_numbers(suite_table({Path(checkpoint).name: table}, "On held-back items, strict"), table, json_path)


def evaluate_recipe(
    asked: Asked, path: Path, overrides: list[str], *, data: str | None, split: str | None, stage: str | None
) -> None:
    """Play a recipe's scenarios with a checkpoint on held-back rows, and print what its rewards say."""
    from motet.data import has_splits

    fix = "leave it out, or leave out the recipe."
    _refuse(asked.suite, "belongs to the shapes suite, and a recipe measures with its own rewards", fix)
    given = {"eval.suite.data": data, "eval.suite.split": split}
    chosen = ["eval.suite.name=rewards", *_overrides(given)]
    recipe = recipe_of(path, [*overrides, *asked.overrides, *chosen], stage)
    source = recipe.eval.suite.options.get("data")
    if split is not None and source is not None and not has_splits(source):
        raise ConfigError(
            f"--split {split}, but {source} has no splits.",
            fix="leave --split out, or give the split's own file as --data.",
        )
    policy = recipe.policy.model_copy(update={"path": str(resolve_checkpoint(asked.checkpoint))})
    _run_rewards(recipe.model_copy(update={"policy": policy}), asked)


def _run_rewards(recipe: Recipe, asked: Asked) -> None:
    from rich.markup import escape

    from motet.data import has_splits
    from motet.evaluation.rewards_suite import evaluate_tracks
    from motet.report.progress import ProgressBar
    from motet.report.tables import rewards_table
    from motet.report.terminal import Terminal
    from motet.training.setup import eval_data_config, setup_eval

    session = setup_eval(recipe)
    with ProgressBar(Terminal()) as bar:

        def tell(done: int, total: int) -> None:
            bar.items("measure", done, total)

        table = evaluate_tracks(session, tell).table
    sources = [eval_data_config(recipe, track.data) for track in recipe.resolved_tracks().values()]
    places = ", ".join(
        dict.fromkeys(d.source if not has_splits(d.source) else f"{d.source} ({d.split})" for d in sources)
    )
    title = f"Rewards on {escape(places)}, with 95 % intervals"
    show_numbers(rewards_table({Path(asked.checkpoint).name: table}, title), table, asked.json_path)


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    """`key=value` of what was given; values as JSON, which is YAML whatever is in a path."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items() if value is not None]


def _refuse(options: Mapping[str, Any], why: str, fix: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise ConfigError(f"{option} {why}.", fix=fix)
