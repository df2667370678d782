"""The tiny step of supervised training: the acts that the data gives for its first rows."""

from __future__ import annotations

from motet.core.trajectory import ActWithAdvantage, Group
from motet.preflight.probe import Probe, ProbedTrack
from motet.training.batches import count_by_kind
from motet.training.sft import assign_preference, encode_tasks, target_columns, weighted_kinds


def encode_targets(probe: Probe) -> None:
    """Encode the first rows with their targets; of preferences once more with the rejected acts.

    The acts that train have the advantages of the first step. Raises ConfigError where the run trains on none.
    """
    session = probe.session
    with session.parallel.full_weights(session.policy), session.processes.phase("data"):
        for one in probe.tracks:
            columns = target_columns(one.track)
            encoded = [encode_tasks(session, one.track, 0, one.tasks, own) for own in columns]
            one.groups = [Group(task, tuple(own)) for task, *own in zip(one.tasks, *encoded, strict=True)]
    assigned = [pair for one in probe.tracks for group in one.groups for pair in _assigned(one, group)]
    weighted = weighted_kinds(session, count_by_kind(pair.act for pair in assigned))
    probe.assigned = [pair for pair in assigned if pair.act.kind in weighted]
    probe.acts = [pair.act for pair in probe.assigned if pair.act.num_actions]


def _assigned(one: ProbedTrack, group: Group) -> list[ActWithAdvantage]:
    if one.track.rejected:
        return assign_preference(one.track, group)
    return [ActWithAdvantage(act, 1.0) for own in group.trajectories for act in own.acts if act.trained]
