"""The groups of all processes, in every process: its own as they are, those of others as summaries of their acts.

Advantages, denominators, minibatches and metrics are functions of names, rewards and numbers of actions. Every process
computes them from the same list of groups, so they are those of a run in one process; only replay needs what a summary
leaves out: images, token ids, latents, log-probs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any

from motet.core.act_kinds import act_kind
from motet.core.errors import ProcessError
from motet.core.sampling import Sampling
from motet.core.task import Task
from motet.core.trajectory import Act, Failure, Group, Scores, Trajectory
from motet.distributed.processes import Processes

ActSummary = tuple[str, Mapping[str, Any]]
"""The kind of an act, and its fields that are numbers, texts or flags."""
TrajectorySummary = tuple[list[ActSummary], Failure | None]


class RemoteAct:
    """The part of a remote act's class that answers in the place of what is not there.

    An instance is also one of the kind's own class: `isinstance(act, TextAct)`, `act.finished` and the like work.
    """

    summary: ActSummary
    num_actions: int = 0
    behaviour_gap: float | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ProcessError(
            f"{name!r} of an act of another process was asked for: only that process has it.",
            fix="a loss's `prepare` and `is_masked` may use an act's name, kind, num_actions and its fields that are "
            "numbers, texts or flags.",
        )


def is_remote(act: Act) -> bool:
    """Whether another process holds the act, and this one its summary."""
    return isinstance(act, RemoteAct)


def summarize(act: Act) -> ActSummary:
    """What the other processes have to know of an act."""
    plain = {field.name: getattr(act, field.name) for field in fields(act)}
    small = {name: value for name, value in plain.items() if _is_small(value)}
    return act.kind, {**small, "num_actions": act.num_actions, "behaviour_gap": act.behaviour_gap}


def remote_act(summary: ActSummary) -> Any:
    """The act of a summary."""
    kind, values = summary
    made = object.__new__(_remote_class(act_kind(kind).act_class))
    for name, value in {**values, "summary": summary}.items():
        object.__setattr__(made, name, value)  # acts are frozen
    return made


def remote_copy(act: Any, **changes: Any) -> Any:
    """A remote act with other values in its summary."""
    kind, values = act.summary
    return remote_act((kind, {**values, **changes}))


def share_groups(processes: Processes, tasks: Sequence[Task], own: Sequence[Group]) -> list[Group]:
    """The groups of all `tasks`, in their order; `own` are those of this process's tasks, `processes.own(tasks)`."""
    if processes.size == 1:
        return list(own)
    summaries = processes.merge([_summary_of(group) for group in own])
    shared = [_remote_group(task, summary) for task, summary in zip(tasks, summaries, strict=True)]
    shared[processes.rank :: processes.size] = own
    return shared


def share_scores(processes: Processes, own: Sequence[Scores]) -> list[Scores]:
    """The scores of the groups of all processes, in the order of `share_groups`; without what rewards logged."""
    if processes.size == 1:
        return list(own)
    shared = processes.merge([replace(scores, logged={}) for scores in own])
    shared[processes.rank :: processes.size] = own
    return shared


def merge_values(processes: Processes, own: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """The values of all processes under each name, by rank."""
    merged: dict[str, list[float]] = {}
    for part in processes.all_gather(own):
        for name, values in part.items():
            merged.setdefault(name, []).extend(values)
    return merged


def is_remote_group(group: Group) -> bool:
    """Whether another process holds the group."""
    return any(is_remote(act) for one in group.trajectories for act in one.acts)


def _summary_of(group: Group) -> list[TrajectorySummary]:
    return [([summarize(act) for act in one.acts], one.failure) for one in group.trajectories]


def _remote_group(task: Task, summary: Sequence[TrajectorySummary]) -> Group:
    trajectories = [
        Trajectory(task.for_generation(g), tuple(remote_act(act) for act in acts), failure)
        for g, (acts, failure) in enumerate(summary)
    ]
    return Group(task, tuple(trajectories))


@cache
def _remote_class(act_class: type) -> type:
    return type(f"Remote{act_class.__name__}", (RemoteAct, act_class), {})


def _is_small(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_small, value))
    return value is None or isinstance(value, bool | int | float | str | Sampling)
