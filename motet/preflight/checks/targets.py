"""Checks of the acts that the data gives in supervised training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from motet.core.act_kinds import act_kind
from motet.core.errors import MotetError
from motet.core.protocols import Request
from motet.core.task import Task
from motet.core.trajectory import Act, TextTokens
from motet.preflight.checks.data import comparable
from motet.preflight.checks.prompts import MAX_ENCODED, encoder_of
from motet.preflight.checks.replays import single_bound
from motet.preflight.findings import Finding, NotApplicable, check, stop, warn
from motet.preflight.probe import Probe, ProbedTrack
from motet.testing import FakePolicy
from motet.training.frozen_replays import replay_frozen
from motet.training.rollout import encode_demonstrations
from motet.training.sft import target_columns

MIN_ROWS = 8
"""Fewer rows may have equal targets by chance."""


@check("target_rows", "sft")
def target_rows(probe: Probe) -> Iterator[Finding]:
    """The targets of every sampled row can be encoded, and fit the context with their prompts"""
    policy = _TargetLengths(probe.policy)
    for one in probe.tracks:
        found: list[tuple[int, MotetError]] = []
        tasks = [Task(i, row) for i, row in one.rows[:MAX_ENCODED] if not _lacks_target(one, row)]
        for task in tasks:
            try:
                for columns in target_columns(one.track):
                    encode_demonstrations(policy, one.track.scenario, [task], columns)
            except MotetError as error:
                found.append((task.index, error))
        if found:
            row, error = found[0]
            yield stop(
                f"{len(found)} of {len(tasks)} sampled rows{one.label} cannot be encoded, the first is row {row}: "
                f"{error.problem}",
                cause="a step that draws such a row ends the run",
                fix=error.fix,
            )


def _lacks_target(one: ProbedTrack, row: Any) -> bool:
    """Whether a column of targets is empty, which the check `data_columns` reports."""
    return any(row.get(column) is None for columns in target_columns(one.track) for column in columns.values())


class _TargetLengths(FakePolicy):
    """A policy that encodes texts as another one does; of images it checks only that there is space for them."""

    def __init__(self, policy: Any) -> None:
        super().__init__(kinds=policy.kinds)
        self._encoder, self._policy = encoder_of(policy), getattr(policy, "text_policy", policy)

    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """The acts of texts; stand-ins with the same images for those of images."""
        acts: list[Act] = []
        for request, target in zip(requests, targets, strict=True):
            if act_kind(request.kind).makes == "text":
                acts += self._policy.encode_targets([request], [target])
                continue
            if request.kind in self._policy.kinds:
                adapter = self._policy.adapter
                positions = adapter.num_positions(request.kind, adapter.num_image_tokens)
                self._encoder.encode(request.context, max_new_tokens=positions, kind=request.kind)
            acts += super().encode_targets([dataclasses.replace(request, kind="image")], [target])
        return acts


@check("target_variety", "sft")
def target_variety(probe: Probe) -> Iterator[Finding]:
    """Targets are not empty, and differ between rows"""
    for one in probe.tracks:
        for act, column in one.track.targets.items():
            values = [row[column] for _, row in one.rows if row.get(column) is not None]
            empty = sum(isinstance(value, str) and not value.strip() for value in values)
            if empty:
                yield (stop if empty == len(values) else warn)(
                    f"The target of the act {act!r}{one.label} is an empty text in {empty} of {len(values)} sampled "
                    f"rows (column {column!r}).",
                    cause="the column has no text in these rows, or another one was meant",
                    fix=f"fill it in, remove the rows, or set data.targets.{act} to another column.",
                )
            elif len(values) >= MIN_ROWS and all(comparable(value) == comparable(values[0]) for value in values):
                yield warn(
                    f"The target of the act {act!r}{one.label} is the same in all {len(values)} sampled rows "
                    f"(column {column!r}).",
                    cause="the column holds a constant: the policy learns to ignore its prompt",
                    fix=f"set data.targets.{act} to a column that depends on the row.",
                )


@check("rejected_targets", "sft")
def rejected_targets(probe: Probe) -> Iterator[Finding]:
    """Rejected acts differ from the targets beside them"""
    if not any(one.track.rejected for one in probe.tracks):
        raise NotApplicable("data.rejected names no acts")
    for one in probe.tracks:
        for act, column in one.track.rejected.items():
            chosen = one.track.targets[act]
            pairs = [(row.get(chosen), row.get(column)) for _, row in one.rows]
            same = sum(good is not None and comparable(good) == comparable(bad) for good, bad in pairs)
            if same:
                yield (stop if same == len(pairs) else warn)(
                    f"The rejected act {act!r}{one.label} is the target itself in {same} of {len(pairs)} sampled rows "
                    f"(columns {column!r} and {chosen!r}).",
                    cause="both come from one column, or rows without a preference were kept",
                    fix=f"set data.rejected.{act} to the column of the rejected acts, or remove these rows.",
                )


@check("target_tokens", "sft")
def target_tokens(probe: Probe) -> Iterator[Finding]:
    """The tokens of a target text are the whole text and the end of the sequence"""
    texts = [act for act in probe.sampled() if isinstance(act, TextTokens)]
    if not texts:
        raise NotApplicable("no target is a text of tokens")
    encoder = encoder_of(probe.policy)
    for act in texts:
        ids = act.ids.tolist()
        if not ids or ids[-1] != encoder.eos_id:
            yield stop(
                f"The target {act.text!r:.80} of the act {act.name!r} does not end with the token {encoder.eos_id}.",
                cause="encode_targets leaves out the end of the sequence: the policy never learns to stop",
                fix="append the token at which sampling stops.",
            )
            return
        if ids[:-1] != encoder.text_ids(act.text):
            decoded = encoder.tokenizer.decode(ids[:-1], skip_special_tokens=False)
            yield stop(
                f"The target {act.text!r:.80} of the act {act.name!r} is encoded as {decoded!r:.80}.",
                cause="encode_targets cuts texts, or uses the tokenizer of another model",
                fix="encode the whole text with the tokenizer of this checkpoint.",
            )
            return


@check("target_causal", "sft")
def target_causal(probe: Probe) -> Iterator[Finding]:
    """The log-prob of a token depends on no later token of its text"""
    texts = [act for act in probe.sampled() if isinstance(act, TextTokens) and act.num_actions > 1]
    if not texts:
        raise NotApplicable("no target is a text of several tokens")
    if probe.replays is None:
        raise NotApplicable("nothing was replayed")
    session, replays = probe.session, dict(zip(map(id, probe.sampled()), probe.replays, strict=True))
    parts = [dataclasses.replace(act, ids=act.ids[: act.num_actions // 2], finished=False) for act in texts]
    budget = session.recipe.optimizer.max_tokens_per_microbatch
    alone = replay_frozen(session.policy, parts, budget, (), session.parallel)
    for act, part in zip(texts, alone, strict=True):
        full = replays[id(act)].log_probs
        cut = full[: act.num_actions // 2].detach().cpu().double() - part.log_probs.detach().cpu().double()
        worst = float(cut.abs().max())
        if not worst <= single_bound(probe):
            yield stop(
                f"The log-probs of the first tokens of the target {act.text!r:.80} change by up to {worst:.3g} nats "
                f"when its later tokens are removed; the bound is {single_bound(probe):g}.",
                cause="the attention mask lets a token see later ones, or log-probs are shifted: the loss falls "
                "without learning",
                fix="mask later tokens, and score each token from the state before it.",
            )
            return
