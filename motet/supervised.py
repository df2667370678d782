"""Supervised training: the same learner over acts that a dataset demonstrates, with the likelihood as objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from motet.errors import ConfigError
from motet.objectives import LikelihoodObjective
from motet.rollout import demonstrate
from motet.run import Progress, Run
from motet.session import Session
from motet.trajectory import ActKind

Measure = Callable[[Any], dict[str, float]]
"""A quick look at a policy on held-back items, for the learning curve."""


def supervise(session: Session, run: Run, measure: Measure | None = None) -> Progress:
    """One optimizer step per batch of rows until the last step or an interruption. Returns where the run stands."""
    recipe, policy = session.recipe, session.policy
    dropout, seed = recipe.algorithm.prompt_dropout, recipe.run.seed
    weights: dict[ActKind, float] = {kind: own.weight for kind, own in recipe.algorithm.per_kind.items()}
    objective = LikelihoodObjective(weights)
    for step, watch in run.steps():
        with watch.phase("data"):
            shown = [
                trajectory
                for track in session.practised(step)
                for trajectory in demonstrate(
                    policy,
                    track.scenario,
                    track.cursor.next(track.prompts),
                    track.targets,
                    prompt_dropout=dropout,
                    seed=seed,
                    step=step,
                )
            ]
        acts = [act for trajectory in shown for act in trajectory.acts if act.trained]
        if not acts:
            raise ConfigError("The scenario trains none of its acts.", fix="yield one of them with trained=True.")
        with watch.phase("learn"):
            numbers = session.learner.step(acts, objective)
        if measure is not None and recipe.eval.every and (step + 1) % recipe.eval.every == 0:
            with watch.phase("eval"):
                numbers |= measure(policy)
        run.report(step, numbers)
    return run.progress
