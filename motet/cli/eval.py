"""`motet eval`: evaluate a checkpoint with suites, or with a recipe's rewards on the user's own rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet.cli.eval_outputs import Evaluated, show_evaluated, suite_folder
from motet.cli.outputs import show_results
from motet.cli.run_recipe import run_recipe
from motet.config import Recipe, parse_recipe
from motet.config.stages import recipe_of
from motet.core.errors import ConfigError
from motet.weights.locate import resolve_checkpoint

if TYPE_CHECKING:
    from motet.training.suites import Suite


FLAGS = {"--held-out-size": "held_out_size", "--guidance-scale": "guidance_scale"}
"""Option of the command -> option of a suite."""


@dataclass(frozen=True)
class EvalRequest:
    """The options of one evaluation.

    `settings` maps recipe keys to the values that options set, None if not given; `flags` are the command's options
    that only some suites take, `options` the suites' own as `key=value` or `suite.key=value`.
    """

    checkpoint: str
    settings: Mapping[str, Any]
    flags: Mapping[str, Any]
    options: Sequence[str]
    json_path: Path | None
    output: Path | None

    @property
    def overrides(self) -> list[str]:
        """The given settings as `key=value`."""
        return _overrides(self.settings)


@dataclass(frozen=True)
class RecipeRequest:
    """The recipe that gives the settings of an evaluation, as the command line names it."""

    path: Path
    overrides: Sequence[str]
    stage: str | None


def evaluate_suites(
    request: EvalRequest, named: str | None, recipe: RecipeRequest | None, recipe_options: Mapping[str, Any]
) -> None:
    """Evaluate a checkpoint with each suite of `named` (names with commas between them) and show their tables.

    `recipe_options`: options that only an evaluation with a recipe has.
    """
    if recipe is None:
        _reject_options(recipe_options, "needs a recipe.", "use motet eval CHECKPOINT RECIPE.yaml ...")
    else:
        unfit = {option: value for option, value in recipe_options.items() if option != "--stage"}
        _reject_options(unfit, "belongs to the suite rewards.", "leave out --suite.")
    suites = _find_suites(named, request)
    # Everything is checked before the checkpoint is loaded.
    recipes = {name: _suite_recipe(request, name, suites, recipe) for name in suites}
    _run_suites(request, recipes, suites)


def _suite_recipe(request: EvalRequest, name: str, suites: Mapping[str, Suite], given: RecipeRequest | None) -> Recipe:
    """The recipe by which one suite evaluates the checkpoint."""
    flags = {key: value for key, value in request.flags.items() if value is not None}
    world = [f"data.options.{option}" for option in flags.pop("--world", ())] if name == "shapes" else []
    options = [f"eval.suite.{option}" for option in _own_options(request.options, name, list(suites))]
    for flag in flags.keys() & FLAGS.keys():
        if FLAGS[flag] in _fields(suites[name]):
            options.append(f"eval.suite.{FLAGS[flag]}={flags[flag]}")
    if given is not None:
        chosen = [f"eval.suite.name={json.dumps(name)}", *options]
        return recipe_of(given.path, [*given.overrides, *request.overrides, *chosen, *world], given.stage)
    content: dict[str, Any] = {"eval": {"suite": {"name": name}}, "sampling": {"text": {"max_tokens": 64}}}
    content["eval"]["samples_per_item"] = suites[name].default_samples
    content |= {"policy": {"path": request.checkpoint}, "run": {"steps": 1}}
    if name == "shapes":
        content |= _of_run(request.checkpoint, chosen=bool(world))
        options[:0] = _few_held_out(request.settings["eval.size"])
    # Parsing it as a recipe validates the values and the options of the world.
    return parse_recipe(content, [*request.overrides, *options, *world])


def _of_run(checkpoint: str, *, chosen: bool) -> dict[str, Any]:
    """The world and the sampling settings of the run that made the checkpoint; `chosen`: options of a world are given.

    Without a run, and without a choice, it says which world is taken.
    """
    from motet.evaluation.suites import world_of
    from motet.report.terminal import Terminal

    run = run_recipe(checkpoint)
    if run is not None:
        return {
            "data": {"source": "shapes", "options": world_of(run)},
            "sampling": run.sampling.model_dump(exclude_unset=True),
        }
    if not chosen:
        Terminal().say("suite shapes: the small world (the large one: --world world=large)")
    return {}


def _few_held_out(size: int | None) -> list[str]:
    """As many items of held-out compositions as validation items, if those are fewer than the suite's default."""
    from motet.config.schema import ShapesSuiteOptions

    default = ShapesSuiteOptions().held_out_size
    return [] if size is None or size >= default else [f"eval.suite.held_out_size={size}"]


def _find_suites(named: str | None, request: EvalRequest) -> dict[str, Suite]:
    """The suites by name. Raises ConfigError for unknown ones, and for flags that none of them takes."""
    from motet.training.suites import find_suite

    names = [name.strip() for name in (named or "shapes").split(",")]
    if len(set(names)) != len(names) or "" in names:
        raise ConfigError(
            f"--suite {named} must be names with commas between them, each once.", fix="write such as geneval,dpg."
        )
    suites: dict[str, Suite] = {}
    for name in names:
        if name == "none":
            raise ConfigError("--suite none evaluates nothing.", fix="name a suite, such as shapes.")
        suites[name] = find_suite(name)
        if suites[name].needs_rewards:
            fix = "give the recipe whose rewards to use, and no other suite: motet eval CHECKPOINT RECIPE.yaml."
            raise ConfigError(f"--suite {name} evaluates with a recipe's rewards.", fix=fix)
    taken = {field for suite in suites.values() for field in _fields(suite)}
    unfit = {flag: request.flags.get(flag) for flag, field in FLAGS.items() if field not in taken}
    if "shapes" not in suites:
        unfit["--world"] = request.flags.get("--world")
    _reject_options(unfit, f"is not an option of {', '.join(suites)}.", "leave it out.")
    return suites


def _fields(suite: Suite) -> Collection[str]:
    return () if suite.Settings is None else suite.Settings.model_fields.keys()


def _own_options(options: Sequence[str], name: str, names: Sequence[str]) -> list[str]:
    """The options `key=value` of one suite: those that begin with its name, and with a single suite all others."""
    own = []
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option {option} is not key=value.", fix="write --option key=value.")
        owner = next((other for other in names if key.startswith(f"{other}.")), None)
        if owner is None and len(names) > 1:
            raise ConfigError(
                f"--option {option} does not say which suite it belongs to.",
                fix=f"write --option SUITE.{option}; the suites are {', '.join(names)}.",
            )
        if owner in (None, name):
            own.append(f"{key.removeprefix(f'{name}.')}={value}")
    return own


def _run_suites(request: EvalRequest, recipes: Mapping[str, Recipe], suites: Mapping[str, Suite]) -> None:
    from motet.report.progress import LOADING, ProgressBar, waiting
    from motet.report.terminal import Terminal
    from motet.training.setup import setup_eval
    from motet.training.suites import SuiteSettings

    first = next(iter(recipes.values()))
    path = str(resolve_checkpoint(request.checkpoint))
    with waiting(LOADING):
        setup = setup_eval(first.model_copy(update={"policy": first.policy.model_copy(update={"path": path})}))
    for suite in suites.values():
        suite.check(setup.policy)
    results: dict[str, Evaluated] = {}
    try:
        with ProgressBar(Terminal()) as bar:
            for name, suite in suites.items():
                minutes = recipes[name].eval.minutes
                seconds = None if minutes is None else 60 * minutes

                def on_progress(done: int, total: int, name: str = name, seconds: float | None = seconds) -> None:
                    bar.items(f"evaluate {name}", done, total, seconds)

                bar.phase(f"evaluate {name}")
                own = replace(setup, recipe=recipes[name].model_copy(update={"policy": setup.recipe.policy}))
                folder = None if request.output is None else suite_folder(request.output, name)
                result = suite(own.policy, SuiteSettings(own, progress=on_progress, folder=folder))
                results[name] = Evaluated(own.recipe, result, suite.show({Path(request.checkpoint).name: result.table}))
    finally:  # an error in one suite does not lose the results of those before it
        if results:
            json_path = request.json_path
            show_evaluated(request.checkpoint, results, json_path, request.output, single=len(suites) == 1)


def evaluate_recipe(request: EvalRequest, recipe: RecipeRequest, *, data: str | None, split: str | None) -> None:
    """Run a recipe's scenarios with a checkpoint on validation rows and print the rewards."""
    from motet.data import has_splits

    fix = "leave out the option or the recipe, or name the suite: --suite."
    unfit = {**request.flags, "--option": request.options or None, "--output": request.output}
    _reject_options(unfit, "belongs to a suite, but with a recipe its rewards are used.", fix)
    given = {"eval.suite.data": data, "eval.suite.split": split}
    chosen = ["eval.suite.name=rewards", *_overrides(given)]
    parsed = recipe_of(recipe.path, [*recipe.overrides, *request.overrides, *chosen], recipe.stage)
    source = parsed.eval.suite.options.get("data")
    if split is not None and source is not None and not has_splits(source):
        raise ConfigError(
            f"--split {split}, but {source} has no splits.",
            fix="leave out --split, or give the file of the split as --data.",
        )
    policy = parsed.policy.model_copy(update={"path": str(resolve_checkpoint(request.checkpoint))})
    _run_rewards(parsed.model_copy(update={"policy": policy}), request)


def _run_rewards(recipe: Recipe, request: EvalRequest) -> None:
    from motet.data import has_splits
    from motet.evaluation.rewards_suite import evaluate_tracks
    from motet.report.progress import LOADING, ProgressBar, waiting
    from motet.report.tables import rewards_table
    from motet.report.terminal import Terminal
    from motet.training.setup import eval_data_config, setup_eval

    with waiting(LOADING):
        session = setup_eval(recipe)
    with ProgressBar(Terminal()) as bar:
        bar.phase("evaluate")

        def on_progress(done: int, total: int) -> None:
            bar.items("evaluate", done, total)

        table = evaluate_tracks(session, on_progress).table
    sources = [eval_data_config(recipe, track.data) for track in recipe.resolved_tracks().values()]
    places = ", ".join(
        dict.fromkeys(d.source if not has_splits(d.source) else f"{d.source} ({d.split})" for d in sources)
    )
    title = f"Rewards on {places}, with 95 % intervals"
    show_results(rewards_table({Path(request.checkpoint).name: table}, title), table, request.json_path)


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    """`key=value` of the settings that are not None; values as JSON, which is valid YAML for any path."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items() if value is not None]


def _reject_options(options: Mapping[str, Any], why: str, fix: str) -> None:
    for option, value in options.items():
        if value is not None:
            raise ConfigError(f"{option} {why}", fix=fix)
