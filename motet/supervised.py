"""Supervised training: the same learner over acts that a dataset demonstrates, with the likelihood as objective."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from motet.checkpoint import Progress, latest_checkpoint, restore, save_checkpoint
from motet.config import Recipe, to_yaml
from motet.data import Cursor, open_rows
from motet.errors import ConfigError
from motet.interrupt import Interrupt
from motet.learner import Learner
from motet.objectives import LikelihoodObjective
from motet.policies import load_policy
from motet.report.folder import RunFolder
from motet.report.steps import Stopwatch, Watcher
from motet.rollout import demonstrate
from motet.scenarios import Scenario, resolve_scenario

Measure = Callable[[Any], dict[str, float]]
"""A quick look at a policy on held-back items, for the learning curve."""


@dataclass(frozen=True)
class SupervisedSession:
    """A supervised run that is ready to go."""

    recipe: Recipe
    policy: Any
    scenario: Scenario
    cursor: Cursor
    learner: Learner


def prepare_supervised(recipe: Recipe) -> SupervisedSession:
    """Build what the recipe names. `data.targets` says which column demonstrates each act of the scenario."""
    if recipe.rewards:
        raise ConfigError("Supervised training knows no rewards.", fix="remove `rewards`, or use `motet train`.")
    if recipe.run.threads is not None:
        torch.set_num_threads(recipe.run.threads)
    scenario = resolve_scenario(recipe.scenario)
    targets = recipe.data.targets
    missing = [name for name in scenario.acts if name not in targets]
    if missing:
        raise ConfigError(
            f"data.targets names no column for the act {missing[0]!r} of scenario {scenario.name!r}.",
            fix=f"set data.targets.{missing[0]}=COLUMN.",
        )
    pictures = [targets[name] for name, kind in scenario.acts.items() if kind != "text"]
    needed = (*scenario.columns, *targets.values())
    rows = open_rows(recipe.data, needed, seed=recipe.run.seed, picture_columns=pictures)
    policy = load_policy(recipe.policy.path, recipe.policy)
    learner = Learner(policy, recipe.optimizer, recipe.run.steps)
    return SupervisedSession(recipe, policy, scenario, Cursor(rows, recipe.run.seed), learner)


def supervise(
    session: SupervisedSession, folder: RunFolder, watcher: Watcher, interrupt: Interrupt, measure: Measure | None
) -> Progress:
    """One optimizer step per batch of rows until the last step or an interruption; resumes the folder's run."""
    recipe, policy = session.recipe, session.policy
    weights = {kind: settings.weight for kind, settings in recipe.algorithm.per_kind.items()}
    progress = Progress(0, 0.0, session.cursor.state_dict())
    newest = latest_checkpoint(folder.checkpoints)
    if newest is not None:
        progress = restore(newest, policy, load_policy(newest, recipe.policy), session.learner)
        session.cursor.load_state_dict(progress.cursor)
    folder.forget_metrics_from(progress.step)
    folder.write_text("recipe.yaml", to_yaml(recipe))
    started = time.monotonic() - progress.seconds
    for step in range(progress.step, recipe.run.steps):
        watch = Stopwatch()
        with watch.phase("data"):
            tasks = session.cursor.next(recipe.run.prompts_per_step)
            trajectories = demonstrate(policy, session.scenario, tasks, recipe.data.targets)
        with watch.phase("learn"):
            acts = [act for trajectory in trajectories for act in trajectory.acts]
            numbers = session.learner.step(acts, LikelihoodObjective(weights))
        done = step + 1
        if measure is not None and recipe.eval.every and done % recipe.eval.every == 0:
            with watch.phase("eval"):
                numbers = {**numbers, **measure(policy)}
        numbers = {**numbers, **watch.report(), "seconds": time.monotonic() - started}
        folder.append_metrics(step, numbers)
        watcher.step(done, recipe.run.steps, numbers)
        progress = Progress(done, time.monotonic() - started, session.cursor.state_dict())
        last = done == recipe.run.steps
        if last or interrupt.asked or (recipe.run.save_every and done % recipe.run.save_every == 0):
            save_checkpoint(folder.checkpoints, policy, session.learner, progress, recipe.run.keep_checkpoints)
        if interrupt.asked:
            break
    return progress
