"""Supervised training: the optimizer step of reinforcement learning over acts that a dataset gives.

The loss is the negative log-likelihood of the targets; where the data has rejected acts beside them (`data.rejected`)
it is `algorithm.loss`, which must be one of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

from motet.core.errors import ConfigError
from motet.core.trajectory import Act, ActWithAdvantage, Group, Trajectory
from motet.report.metrics import PhaseTimer
from motet.training.batches import Stats, StepBatch
from motet.training.losses.base import LossSettings
from motet.training.losses.nll import NLLLoss
from motet.training.losses.resolving import kind_config
from motet.training.optimizer_step import Losses
from motet.training.policy_update import update
from motet.training.rollout import encode_demonstrations
from motet.training.run_loop import Progress, Run
from motet.training.setup import Track, TrainingSetup


def train_sft(session: TrainingSetup, run: Run) -> Progress:
    """One optimizer step per batch of rows until the last step or an interruption. Returns where the run stands."""
    train_step = _preference_step if session.tracks[0].rejected else _likelihood_step
    with run:
        for step, timer in run.steps():
            run.report(step, train_step(session, step, timer))
    return run.progress


def _likelihood_step(session: TrainingSetup, step: int, timer: PhaseTimer) -> Stats:
    with timer.phase("data"):
        acts = sft_batch(session, step)
    with timer.phase("learn"):
        return session.optimizer.step(StepBatch(acts), nll_losses(session, acts))


def _preference_step(session: TrainingSetup, step: int, timer: PhaseTimer) -> Stats:
    with timer.phase("data"):
        groups, acts = preference_batch(session, step)
    with timer.phase("learn"):
        return update(session.policy, session.optimizer, groups, acts, session.recipe, step)


def nll_losses(session: TrainingSetup, acts: Sequence[Act]) -> Losses:
    """The negative log-likelihood of each kind of act, with its weight."""
    kinds: set[str] = {act.kind for act in acts}
    return {kind: NLLLoss(LossSettings(), kind, weight=_weight(session, kind)) for kind in kinds}


def sft_batch(session: TrainingSetup, step: int) -> list[Act]:
    """The target acts of the rows of a step, without those of weight 0, which would only cost time.

    Raises ConfigError when nothing is left.
    """
    encoded = [
        trajectory
        for track in session.tracks_at(step)
        for trajectory in _encode(session, track, step, [track.targets])[0]
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


def preference_batch(session: TrainingSetup, step: int) -> tuple[list[Group], list[ActWithAdvantage]]:
    """One group of two trajectories per row, with the targets and with the rejected acts in their place.

    The acts that have a rejected one get the advantages 1 and -1. The other acts of a trajectory are its context.
    """
    groups: list[Group] = []
    assigned: list[ActWithAdvantage] = []
    for track in session.tracks_at(step):
        columns = [track.targets, {**track.targets, **track.rejected}]
        for chosen, rejected in zip(*_encode(session, track, step, columns), strict=True):
            groups.append(Group(chosen.task, (chosen, rejected)))
            for advantage, trajectory in ((1.0, chosen), (-1.0, rejected)):
                acts = [act for act in trajectory.acts if act.trained and act.name in track.rejected]
                assigned += [ActWithAdvantage(act, advantage) for act in acts]
    return groups, assigned


def _encode(
    session: TrainingSetup, track: Track, step: int, columns: Sequence[dict[str, str]]
) -> list[list[Trajectory]]:
    """The trajectories of a track's next rows, once for each choice of target columns, with the same noise."""
    tasks = track.cursor.next(track.prompts)
    return [
        encode_demonstrations(
            session.policy,
            track.scenario,
            tasks,
            targets,
            seed=session.recipe.run.seed,
            step=step,
            track=track.number,
            **session.recipe.sft.model_dump(),
        )
        for targets in columns
    ]


def _weight(session: TrainingSetup, kind: str) -> float:
    return kind_config(session.recipe.algorithm, kind).weight
