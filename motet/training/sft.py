"""Supervised training: the same optimizer step over acts that a dataset gives, with the likelihood as the loss."""

from __future__ import annotations

from motet.config import KindConfig
from motet.core.errors import ConfigError
from motet.core.trajectory import Act, ActKind
from motet.training.batches import StepBatch
from motet.training.losses.base import LossSettings
from motet.training.losses.nll import NLLLoss
from motet.training.optimizer_step import Losses
from motet.training.rollout import encode_demonstrations
from motet.training.run_loop import Progress, Run
from motet.training.setup import TrainingSetup


def train_sft(session: TrainingSetup, run: Run) -> Progress:
    """One optimizer step per batch of rows until the last step or an interruption. Returns where the run stands."""
    with run:
        for step, watch in run.steps():
            with watch.phase("data"):
                acts = sft_batch(session, step)
            with watch.phase("learn"):
                metrics = session.learner.step(StepBatch(acts), nll_losses(session, acts))
            run.report(step, metrics)
    return run.progress


def nll_losses(session: TrainingSetup, acts: list[Act]) -> Losses:
    """The negative log-likelihood of each kind of act, with its weight."""
    kinds: set[ActKind] = {act.kind for act in acts}
    return {kind: NLLLoss(LossSettings(), kind, weight=_weight(session, kind)) for kind in kinds}


def sft_batch(session: TrainingSetup, step: int) -> list[Act]:
    """The acts that the rows of a step give, without those of weight 0, which would only cost time.

    Raises ConfigError when nothing is left.
    """
    encoded = [
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
            **session.recipe.sft.model_dump(),
        )
    ]
    trained = [act for trajectory in encoded for act in trajectory.acts if act.trained]
    if not trained:
        raise ConfigError("The scenario trains none of its acts.", fix="yield one of them with trained=True.")
    acts = [act for act in trained if _weight(session, act.kind) > 0]
    if not acts:
        kinds = ", ".join(sorted({act.kind for act in trained}))
        raise ConfigError(
            f"algorithm.per_kind gives all acts of the step, {kinds}, the weight 0.", fix="give one of them a weight."
        )
    return acts


def _weight(session: TrainingSetup, kind: ActKind) -> float:
    return session.recipe.algorithm.per_kind.get(kind, KindConfig()).weight
