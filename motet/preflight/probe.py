"""The tiny step that the checks look at: prompts, a rollout, its rewards, its replays and one backward pass.

In supervised training the data gives the acts, in place of the rollout and its rewards (`motet.preflight.targets`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motet.core.errors import DataError
from motet.core.protocols import Replay
from motet.core.sampling import Sampling
from motet.core.task import Task
from motet.core.trajectory import Act, ActWithAdvantage, Group, Scores
from motet.policies.shards import local_data
from motet.preflight.findings import NotApplicable
from motet.preflight.gold import GoldPair, gold_samples
from motet.rewards import StepLog, score_groups
from motet.training.batches import StepBatch
from motet.training.engines import Engines
from motet.training.frozen_replays import reference_replays, replay_frozen
from motet.training.losses import resolve_losses
from motet.training.policy_update import prepare_samples
from motet.training.remote_rollout import RemoteRollout
from motet.training.rollout import RolloutRequest
from motet.training.setup import Track, TrainingSetup, sampling_params, trained_act_kinds
from motet.training.sft import is_supervised, nll_losses
from motet.training.step_metrics import Losses
from motet.training.weights_digest import named_parameters, weights_digest

PROMPTS, GENERATIONS, TRACKS = 2, 2, 4
"""Most prompts of a track, generations of a prompt, and tracks that are rolled out."""
MAX_TOKENS = 16
"""Most tokens of a text."""
ROWS, ROW_SECONDS = 64, 0.5
"""Most rows of a track that are read, and for how long."""
NEEDS = ("entropy", "sigma", "sigma_next")


@dataclass(eq=False)
class ProbedTrack:
    """What was made of one track: its first prompts and rows, their groups, and their scores by reward."""

    track: Track
    tasks: list[Task]
    rows: list[tuple[int, dict[str, Any]]] = field(default_factory=list[Any])
    unreadable: list[DataError] = field(default_factory=list[DataError])
    groups: list[Group] = field(default_factory=list[Group])
    scores: dict[str, list[Scores]] = field(default_factory=dict[str, list[Scores]])
    golds: list[GoldPair] = field(default_factory=list[GoldPair])

    @property
    def label(self) -> str:
        """For messages: ` of track 'name'`, or nothing for the only one."""
        return f" of track {self.track.name!r}" if self.track.name else ""


@dataclass(frozen=True)
class Gradient:
    """The gradient of a trainable parameter: None, or whether it is finite and its largest absolute value."""

    finite: bool
    largest: float


@dataclass(eq=False)
class Probe:
    """A run and what its tiny step gave; facts that could not be made are None."""

    session: TrainingSetup
    engines: Engines
    folder: Path
    digest: dict[str, str] | None = None
    """Of the weights before the tiny step."""
    own_digest: dict[str, str] = field(default_factory=dict[str, str])
    digest_of_workers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    tracks: list[ProbedTrack] = field(default_factory=list[ProbedTrack])
    acts: list[Act] | None = None
    """The acts with actions, in the order of tracks, groups and generations."""
    assigned: list[ActWithAdvantage] = field(default_factory=list[ActWithAdvantage])
    """Those that train, with advantages as the first step may have them."""
    repeated: list[Act] | None = None
    """The acts of the first prompt's first generation, sampled once more without the others."""
    replays: list[Replay] | None = None
    alone: list[Tensor] | None = None
    """Log-probs of the acts, each replayed in a call of its own."""
    reference: list[Tensor] | None = None
    losses: dict[str, float] | None = None
    """The value of the loss by kind of act, and `total`."""
    gradients: dict[str, Gradient | None] | None = None
    """Of the trainable parameters; None: it received none."""
    frozen_with_gradient: list[str] = field(default_factory=list[str])

    @property
    def policy(self) -> Any:
        """The policy that is to be trained."""
        return self.session.policy

    @property
    def samplings(self) -> Mapping[str, Sampling]:
        """The sampling of the tiny rollout: the recipe's first step, with shorter texts."""
        own = sampling_params(self.session.recipe, 0)
        return {kind: replace(one, max_tokens=min(one.max_tokens, MAX_TOKENS)) for kind, one in own.items()}

    @property
    def rounds(self) -> bool:
        """Whether sampling or training computes in less than float32."""
        return self.policy.autocast is not None or self.policy.rollout_autocast is not None

    def sampled(self) -> list[Act]:
        """The acts. Raises NotApplicable if there are none."""
        if not self.acts:
            raise NotApplicable("there are no acts")
        return self.acts

    def losses_of(self, kinds: Collection[str]) -> Losses:
        """The run's loss of each kind of act."""
        session = self.session
        if is_supervised(session) and not session.tracks[0].rejected:
            return nll_losses(session, kinds)
        return resolve_losses(session.recipe, kinds)

    def pairs(self) -> list[tuple[Act, Tensor, Replay]]:
        """Acts with the log-probs of sampling and their replays, on the CPU."""
        acts = self.sampled()
        if self.replays is None:
            raise NotApplicable("nothing was replayed")
        together = zip(acts, self.replays, strict=True)
        return [(act, act.log_probs.cpu().double(), one) for act, one in together if act.log_probs is not None]


def read_rows(session: TrainingSetup) -> list[ProbedTrack]:
    """The first prompts of every track, and a sample of its rows with their images decoded.

    A stream is read no further than its prompts. Raises DataError for a prompt that cannot be read.
    """
    tracks = list(session.tracks_at(0) or session.tracks)[:TRACKS]
    probed = [ProbedTrack(track, track.cursor.peek(min(PROMPTS, track.prompts))) for track in tracks]
    for one in probed:
        rows, began = one.track.cursor.rows, time.monotonic()
        if rows.size is None and not rows.generated:
            one.rows = [(task.index, dict(task.columns)) for task in one.tasks]
            continue
        size = ROWS // 8 if rows.size is None or rows.generated else min(ROWS, rows.size)
        stride = 1 if rows.size is None else max(1, rows.size // size)
        for i in range(0, size * stride, stride):
            if (rows.size is not None and i >= rows.size) or time.monotonic() - began > ROW_SECONDS:
                break
            try:
                one.rows.append((i, rows.row(i)))
            except DataError as error:
                one.unreadable.append(error)
    return probed


def roll_out(probe: Probe) -> None:
    """Roll out the prompts with the run's own engine, and the first of them once more alone."""
    session = probe.session
    settings: dict[str, Any] = {"samplings": probe.samplings, "seed": session.recipe.run.seed, "step": 0}
    requests = [RolloutRequest(one.track.scenario, one.tasks, one.track.number) for one in probe.tracks]
    with session.parallel.full_weights(session.policy), session.processes.phase("rollout"):
        sampled = probe.engines.rollout(session.policy, requests, GENERATIONS, **settings)
        first = replace(requests[0], tasks=requests[0].tasks[:1])
        ((again,),) = probe.engines.rollout(session.policy, [first], 1, **settings)
        if isinstance(probe.engines.rollout, RemoteRollout):
            probe.digest_of_workers = probe.engines.rollout.weights_digests(session.policy)
            probe.own_digest = weights_digest(session.policy)  # of whole weights, as the workers have them
    for one, groups in zip(probe.tracks, sampled, strict=True):
        one.groups = groups
    acts = [act for one in probe.tracks for group in one.groups for own in group.trajectories for act in own.acts]
    probe.acts = [act for act in acts if act.num_actions]
    probe.repeated = list(again.trajectories[0].acts)
    probe.assigned = [
        ActWithAdvantage(act, 1.0 / (1 + generation))
        for one in probe.tracks
        for group in one.groups
        for generation, trajectory in enumerate(group.trajectories)
        for act in trajectory.acts
        if act.trained
    ]


def score(probe: Probe) -> None:
    """The rewards of the rollout, and of gold answers beside wrong ones: one call of each reward."""
    session = probe.session
    with session.parallel.full_weights(session.policy), session.processes.phase("rewards"):
        for one in probe.tracks:
            samples = gold_samples(session.recipe, one.track, one.groups)
            for reward in one.track.rewards:
                own = [sample for sample in samples if sample.act in reward.acts]
                groups = [*one.groups, *(sample.group for sample in own)]
                scores = score_groups(groups, [reward], StepLog(0, session.recipe.run.steps))
                one.scores[reward.name] = scores[: len(one.groups)]
                for sample, found in zip(own, scores[len(one.groups) :], strict=True):
                    good, bad = found.values[reward.name]
                    if good is not None and bad is not None:
                        row = sample.group.task.index
                        one.golds.append(GoldPair(reward, sample.act, sample.column, row, good, bad))


def replay(probe: Probe) -> None:
    """Replays without gradient: of all acts together, of each alone, and under the reference weights."""
    session, acts = probe.session, probe.sampled()
    budget = session.recipe.optimizer.max_tokens_per_microbatch
    probe.replays = replay_frozen(session.policy, acts, budget, NEEDS, session.parallel)
    alone = replay_frozen(session.policy, acts, 1, (), session.parallel)
    probe.alone = [one.log_probs.detach().cpu().double() for one in alone]
    if _has_reference(probe):
        with session.policy.reference():
            under = replay_frozen(session.policy, acts, budget, (), session.parallel)
        probe.reference = [one.log_probs.detach().cpu().double() for one in under]


def _has_reference(probe: Probe) -> bool:
    session = probe.session
    asked = any(reward.uses_reference for track in session.tracks for reward in track.rewards)
    losses = probe.losses_of(trained_act_kinds(session.tracks, session.policy))
    return asked or any(loss.needs_reference for loss in losses.values())


def backward(probe: Probe) -> None:
    """One backward pass of the run's own losses; the gradients are removed afterwards."""
    session = probe.session
    policy, parallel, optimizer = session.policy, session.parallel, session.optimizer
    groups = [group for one in probe.tracks for group in one.groups]
    losses = probe.losses_of({one.act.kind for one in probe.assigned})
    samples = prepare_samples(groups, probe.assigned, losses, (session.recipe.run.seed, 0))
    if not samples:
        return
    acts, budget = [one.act for one in samples], session.recipe.optimizer.max_tokens_per_microbatch
    under = reference_replays(policy, samples, range(len(samples)), losses, budget, parallel)
    batch = StepBatch(
        acts,
        [one.advantage for one in samples],
        reference=None if under is None else [under[n] for n in range(len(samples))],
        units=[one.position for one in samples],
        max_actions={kind: max(act.num_actions for act in acts if act.kind == kind) for kind in losses},
    )
    scored, _, _ = optimizer.add_gradients(batch, losses)
    parallel.reduce_gradients(optimizer.parameters)
    probe.losses = {}
    for one in scored:
        probe.losses[one.batch.kind] = probe.losses.get(one.batch.kind, 0.0) + float(one.value)
    named = policy.trainable()
    own = {name: _gradient(parameter.grad) for name, parameter in named.items()}
    probe.gradients = _merged(session.processes.all_gather(own))
    trained = {id(parameter) for parameter in named.values()}
    others = [(name, p) for name, p in named_parameters(policy) if id(p) not in trained]
    probe.frozen_with_gradient = [name for name, parameter in others if parameter.grad is not None]


def _gradient(gradient: Tensor | None) -> Gradient | None:
    if gradient is None:
        return None
    values = local_data(gradient)
    largest = float(values.abs().max()) if values.numel() else 0.0
    return Gradient(bool(torch.isfinite(values).all()), largest)


def _merged(parts: Sequence[Mapping[str, Gradient | None]]) -> dict[str, Gradient | None]:
    """The gradients that several processes hold parts of, as one."""
    merged: dict[str, Gradient | None] = {}
    for name in parts[0]:
        found = [one for part in parts if (one := part[name]) is not None]
        whole = Gradient(all(one.finite for one in found), max((one.largest for one in found), default=0.0))
        merged[name] = whole if found else None
    return merged


def part_of(name: str, parts: Sequence[str]) -> str:
    """The part that a parameter belongs to: a dotted name of `parts` that it contains, or how its name begins."""
    pieces = name.split(".")
    return next((part for part in parts if part in pieces), pieces[0])
