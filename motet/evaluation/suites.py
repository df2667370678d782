"""The built-in suites by name: `shapes`, `easy_vqa`, `rewards`, and the benchmarks of image generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.table import Table

from motet.config import EvalConfig, Recipe, RewardsSuiteOptions, ShapesSuiteOptions
from motet.core.act_kinds import kinds_making
from motet.core.errors import ConfigError
from motet.core.protocols import Policy
from motet.core.registry import registry
from motet.evaluation import image_statistics_suite as image_statistics_suite
from motet.evaluation.easy_vqa_suite import EasyVqaSuite
from motet.evaluation.image_benchmarks.dpg import DPGSuite
from motet.evaluation.image_benchmarks.geneval import GenEvalSuite
from motet.evaluation.image_benchmarks.wise import WiseSuite
from motet.evaluation.lmms_eval.suite import LmmsSuite
from motet.evaluation.rewards_suite import evaluate_tracks
from motet.evaluation.shapes_suite import evaluate_shapes
from motet.numerics.statistics import item_interval
from motet.report.tables import rewards_table, suite_table
from motet.training.setup import sampling_params
from motet.training.suites import Suite, SuiteResult, SuiteSettings


class ShapesSuite(Suite):
    """Image generation and question answering in the shapes world."""

    Settings = ShapesSuiteOptions
    shares_items = True
    before_sft = False
    samples_title = "first samples, hard prompts first"

    def check(self, policy: Policy) -> None:
        """It generates images and text."""
        if not (kinds_making("text", policy.kinds) and kinds_making("image", policy.kinds)):
            raise ConfigError(
                f"eval.suite=shapes needs images and text, but the policy generates only: "
                f"{', '.join(sorted(policy.kinds))}.",
                fix="set eval.suite to rewards or none, or choose a policy that generates both.",
            )

    def __call__(self, policy: Policy, settings: SuiteSettings) -> SuiteResult:
        """Quick: 256 items, 32 of held-out compositions, 2 samples each."""
        recipe, config = settings.recipe, settings.recipe.eval
        if settings.quick:
            suite = config.suite.with_options(held_out_size=32)
            config = config.model_copy(update={"size": 256, "suite": suite, "samples_per_item": 2, "minutes": None})
        elif settings.same_items_as is not None:
            config = _same_items(config, settings.same_items_as["items"])
        result = evaluate_shapes(
            policy, config, world_of(recipe), sampling_params(recipe), settings.progress, settings.setup.processes
        )
        table = result.table
        metrics = {
            f"{skill}{suffix}": part[skill]["overall"]
            for suffix, part in (("", table), ("_greedy", table["greedy"]))
            for skill in ("draw", "answer")
        }
        intervals = {skill: item_interval(table["by_item"][skill]["overall"])[1] for skill in ("draw", "answer")}
        samples = [(s.image, s.prompt, s.correct) for s in result.samples]
        return SuiteResult(table, metrics, samples, intervals)

    def show(self, tables: Mapping[str, Mapping[str, Any]]) -> Table:
        """Accuracies by category; the title says of how many items."""
        counts = next(iter(tables.values()))["items"]
        return suite_table(tables, f"Validation items: {counts['test']}; held-out compositions: {counts['held_out']}")


def _same_items(config: EvalConfig, items: Mapping[str, int]) -> EvalConfig:
    """The settings that evaluate the items of an earlier evaluation, however long that takes."""
    suite = config.suite.with_options(held_out_size=items["held_out"])
    return config.model_copy(update={"size": items["test"], "suite": suite, "minutes": None})


def world_of(recipe: Recipe) -> dict[str, Any]:
    """The shapes world's options: those of the first track that trains on the world, else the defaults."""
    sources = (track.data for track in recipe.resolved_tracks().values())
    return next((dict(data.options) for data in sources if data.source == "shapes"), {})


class RewardsSuite(Suite):
    """Every track with its own rewards, on rows that training does not see."""

    Settings = RewardsSuiteOptions
    samples_title = "first samples, correct: the first reward is at least 1"
    needs_rewards = True
    shares_items = True

    def __call__(self, policy: Policy, settings: SuiteSettings) -> SuiteResult:
        """Quick: at most 256 rows and 2 samples each."""
        setup, recipe = settings.setup, settings.recipe
        if settings.quick:
            few = {"size": min(256, recipe.eval.size), "samples_per_item": min(2, recipe.eval.samples_per_item)}
            config = recipe.eval.model_copy(update={**few, "minutes": None})
            setup = replace(setup, recipe=recipe.model_copy(update={"eval": config}))
        result = evaluate_tracks(setup, settings.progress, settings.same_items_as)
        metrics, intervals = dict[str, float](), dict[str, float]()
        for track, rewards in result.table.items():
            prefix = f"{track}/" if recipe.tracks else ""
            for name, own in rewards.items():
                known = {f"{prefix}{name}": own["mean"], f"{prefix}{name}_greedy": own["greedy"]}
                metrics |= {key: value for key, value in known.items() if value is not None}
                if own["interval"] is not None:
                    intervals[f"{prefix}{name}"] = own["interval"]
        samples = [(s.image, s.prompt, s.correct) for s in result.samples]
        return SuiteResult(result.table, metrics, samples, intervals)

    def show(self, tables: Mapping[str, Mapping[str, Any]]) -> Table:
        """Mean rewards with intervals."""
        return rewards_table(tables, "Rewards on validation rows, with 95% intervals")


registry("suite").add("shapes", ShapesSuite())
registry("suite").add("easy_vqa", EasyVqaSuite())
registry("suite").add("rewards", RewardsSuite())
registry("suite").add("geneval", GenEvalSuite())
registry("suite").add("dpg", DPGSuite())
registry("suite").add("wise", WiseSuite())
registry("suite").add("lmms", LmmsSuite())
