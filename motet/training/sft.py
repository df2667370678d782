"""Supervised training: the same learner over acts that a dataset demonstrates, with the likelihood as objective."""

from __future__ import annotations

from motet.config import DROPOUTS
from motet.core.errors import ConfigError
from motet.core.trajectory import Act, ActKind
from motet.training.losses import NLLLoss
from motet.training.rollout import encode_demonstrations
from motet.training.run_loop import Progress, Run
from motet.training.setup import TrainingSetup


def train_sft(session: TrainingSetup, run: Run) -> Progress:
    """One optimizer step per batch of rows until the last step or an interruption. Returns where the run stands."""
    objective = NLLLoss(_weights(session))
    with run:
        for step, watch in run.steps():
            with watch.phase("data"):
                acts = sft_batch(session, step)
            with watch.phase("learn"):
                numbers = session.learner.step(acts, objective)
            run.report(step, numbers)
    return run.progress


def sft_batch(session: TrainingSetup, step: int) -> list[Act]:
    """What the rows of a step demonstrate and what is learned from it: acts of weight 0 would only cost time.

    Raises ConfigError when nothing is left.
    """
    algorithm = session.recipe.algorithm
    dropouts = {name: getattr(algorithm, name) for name in DROPOUTS}
    shown = [
        trajectory
        for track in session.tracks_at(step)
        for trajectory in encode_demonstrations(
            session.policy,
            track.scenario,
            track.cursor.next(track.prompts),
            track.targets,
            seed=session.recipe.run.seed,
            step=step,
            track=track.number,
            **dropouts,
        )
    ]
    trained = [act for trajectory in shown for act in trajectory.acts if act.trained]
    if not trained:
        raise ConfigError("The scenario trains none of its acts.", fix="yield one of them with trained=True.")
    weights = _weights(session)
    acts = [act for act in trained if weights.get(act.kind, 1.0) > 0]
    if not acts:
        kinds = ", ".join(sorted({act.kind for act in trained}))
        raise ConfigError(
            f"algorithm.per_kind gives all acts of the step, {kinds}, the weight 0.", fix="give one of them a weight."
        )
    return acts


def _weights(session: TrainingSetup) -> dict[ActKind, float]:
    return {kind: own.weight for kind, own in session.recipe.algorithm.per_kind.items()}
