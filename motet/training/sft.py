"""Supervised training: the optimizer step of reinforcement learning over acts that a dataset gives.

The loss is the negative log-likelihood of the targets; where the data has rejected acts beside them (`data.rejected`)
it is `algorithm.loss`, which must be one of pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from motet.core.errors import ConfigError
from motet.core.task import Task
from motet.core.trajectory import Act, ActWithAdvantage, Group, Trajectory
from motet.distributed.shared_groups import share_groups
from motet.report.metrics import PhaseTimer
from motet.training.batches import Counts, Stats, StepBatch, count_by_kind, merge_counts
from motet.training.losses.base import LossSettings
from motet.training.losses.nll import NLLLoss
from motet.training.losses.resolving import kind_config
from motet.training.optimizer_step import Losses
from motet.training.policy_update import update
from motet.training.rollout import encode_demonstrations
from motet.training.run_loop import Progress, Run
from motet.training.setup import Track, TrainingSetup


def is_supervised(session: TrainingSetup) -> bool:
    """Whether the data gives the acts of a run: every track then names their columns."""
    return any(track.targets for track in session.tracks)


def train_sft(session: TrainingSetup, run: Run) -> Progress:
    """One optimizer step per batch of rows until the last step or an interruption. Returns where the run stands."""
    train_step = _preference_step if session.tracks[0].rejected else _likelihood_step
    with run:
        for step, timer in run.steps():
            run.report(step, train_step(session, step, timer))
    return run.progress


def _likelihood_step(session: TrainingSetup, step: int, timer: PhaseTimer) -> Stats:
    with timer.phase("data"):
        acts, counts = sft_batch(session, step)
    with timer.phase("learn"):
        return session.optimizer.step(StepBatch(acts, counts=counts), nll_losses(session, counts))


def _preference_step(session: TrainingSetup, step: int, timer: PhaseTimer) -> Stats:
    with timer.phase("data"):
        groups, acts = preference_batch(session, step)
    with timer.phase("learn"):
        return update(session.policy, session.optimizer, groups, acts, session.recipe, step)


def nll_losses(session: TrainingSetup, kinds: Collection[str]) -> Losses:
    """The negative log-likelihood of each kind of act, with its weight."""
    return {kind: NLLLoss(LossSettings(), kind, weight=_weight(session, kind)) for kind in kinds}


def sft_batch(session: TrainingSetup, step: int) -> tuple[list[Act], Counts]:
    """The target acts of this process's rows of a step, and the numbers of those of all processes.

    Without acts of weight 0, which would only cost time. Raises ConfigError when nothing is left.
    """
    encoded = [
        trajectory
        for track in session.tracks_at(step)
        for trajectory in _encode(session, track, step, [track.targets])[1][0]
    ]
    trained = [act for trajectory in encoded for act in trajectory.acts if act.trained]
    weighted = weighted_kinds(session, merge_counts(session.processes.all_gather(count_by_kind(trained))))
    return [act for act in trained if act.kind in weighted], weighted


def weighted_kinds(session: TrainingSetup, counts: Counts) -> Counts:
    """The counts of the kinds of act that have a weight. Raises ConfigError when nothing is left."""
    if not counts:
        raise ConfigError("The scenario trains none of its acts.", fix="yield one of them with trained=True.")
    weighted = {kind: count for kind, count in counts.items() if _weight(session, kind) > 0}
    if not weighted:
        kinds = ", ".join(sorted(counts))
        raise ConfigError(
            f"algorithm.per_kind gives all acts of the step, {kinds}, the weight 0.", fix="give one of them a weight."
        )
    return weighted


def preference_batch(session: TrainingSetup, step: int) -> tuple[list[Group], list[ActWithAdvantage]]:
    """One group of two trajectories per row of the step, with the targets and with the rejected acts in their place.

    The acts that have a rejected one get the advantages 1 and -1. The other acts of a trajectory are its context.
    """
    groups: list[Group] = []
    assigned: list[ActWithAdvantage] = []
    for track in session.tracks_at(step):
        tasks, encoded = _encode(session, track, step, target_columns(track))
        own = [Group(chosen.task, (chosen, rejected)) for chosen, rejected in zip(*encoded, strict=True)]
        for group in share_groups(session.processes, tasks, own):
            groups.append(group)
            assigned += assign_preference(track, group)
    return groups, assigned


def target_columns(track: Track) -> list[dict[str, str]]:
    """Act -> column of the targets; of a track with rejected acts, a second time with these in their place."""
    return [track.targets, *([{**track.targets, **track.rejected}] if track.rejected else [])]


def assign_preference(track: Track, group: Group) -> list[ActWithAdvantage]:
    """The acts of a chosen and a rejected trajectory that are compared, with the advantages 1 and -1."""
    return [
        ActWithAdvantage(act, advantage)
        for advantage, trajectory in zip((1.0, -1.0), group.trajectories, strict=True)
        for act in trajectory.acts
        if act.trained and act.name in track.rejected
    ]


def encode_tasks(
    session: TrainingSetup, track: Track, step: int, tasks: Sequence[Task], targets: Mapping[str, str]
) -> list[Trajectory]:
    """The trajectories of a track's rows with the acts that the columns `targets` give, as step `step` has them."""
    settings = {"seed": session.recipe.run.seed, "step": step, "track": track.number, **session.recipe.sft.model_dump()}
    return encode_demonstrations(session.policy, track.scenario, tasks, targets, **settings)


def _encode(
    session: TrainingSetup, track: Track, step: int, columns: Sequence[dict[str, str]]
) -> tuple[list[Task], list[list[Trajectory]]]:
    """A track's next rows, and the trajectories of this process's share of them.

    Once for each choice of target columns, with the same noise.
    """
    processes = session.processes
    with session.parallel.full_weights(session.policy), processes.phase("data"):
        tasks = track.cursor.next(track.prompts)
        encoded = [encode_tasks(session, track, step, processes.own(tasks), targets) for targets in columns]
    return tasks, encoded


def _weight(session: TrainingSetup, kind: str) -> float:
    return kind_config(session.recipe.algorithm, kind).weight
