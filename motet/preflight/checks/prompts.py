"""Checks of what a model is shown: tokens of texts and images, and the length of prompts."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from motet.core.act_kinds import act_kind
from motet.core.conversation import Conversation
from motet.core.errors import ContextError
from motet.core.protocols import Request
from motet.core.task import Task
from motet.core.trajectory import Act, Encoding, Sampling
from motet.data.sources import CONVERSATIONS, GOLDS
from motet.preflight.findings import Finding, NotApplicable, check, stop, warn
from motet.preflight.probe import Probe, ProbedTrack
from motet.testing import FakePolicy
from motet.training.rollout import rollout
from motet.training.setup import sampling_params

MAX_ENCODED = 32
"""Most rows whose prompts are encoded."""


def encoder_of(policy: Any) -> Any:
    """The encoder of a policy's language model. Raises NotApplicable for a policy without one of motet's."""
    owner = getattr(policy, "text_policy", policy)
    encoder = getattr(owner, "encoder", None)
    if not hasattr(encoder, "text_ids") or not hasattr(encoder, "encode_all"):
        raise NotApplicable("the policy encodes prompts in its own way")
    return encoder


@check("tokenizer")
def tokenizer(probe: Probe) -> Iterator[Finding]:
    """Prompts and gold answers survive the tokenizer: encoded and decoded they are the same text"""
    encoder = encoder_of(probe.policy)
    texts = [text for one in probe.tracks for _, row in one.rows for text in _texts(one, row)]
    changed = [(text, decoded) for text in texts if _normal(decoded := _round_trip(encoder, text)) != _normal(text)]
    if changed:
        text, decoded = changed[0]
        yield warn(
            f"{len(changed)} of {len(texts)} texts change in the tokenizer: {text!r:.80} becomes {decoded!r:.80}.",
            cause="the tokenizer has no tokens for some characters, or its files are those of another model",
            fix="use the tokenizer of this checkpoint, or write the texts with characters that it has.",
        )


def _texts(one: ProbedTrack, row: Any) -> list[str]:
    given = (*one.track.targets.values(), *one.track.rejected.values())
    values = [row.get(column) for column in dict.fromkeys((*CONVERSATIONS, *GOLDS, *given))]
    return [value for value in values if isinstance(value, str) and value]


def _round_trip(encoder: Any, text: str) -> str:
    ids = encoder.text_ids(text)
    return encoder.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _normal(text: str) -> str:
    """White space and the form of combined characters do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


@check("prompt_length", "rl")
def prompt_length(probe: Probe) -> Iterator[Finding]:
    """The first prompt of every sampled row fits the context, with the act that follows it"""
    encoder, policy = encoder_of(probe.policy), getattr(probe.policy, "text_policy", probe.policy)
    settings = sampling_params(probe.session.recipe, 0)
    for one in probe.tracks:
        long: list[tuple[int, ContextError]] = []
        tasks = [Task(i, row) for i, row in one.rows[:MAX_ENCODED]]
        for task, request in zip(tasks, first_requests(probe, one, tasks), strict=True):
            if request.kind not in policy.kinds:
                continue
            tokens = act_kind(request.kind).makes == "text"
            count = settings[request.kind].max_tokens if tokens else policy.adapter.num_image_tokens
            room = policy.adapter.num_positions(request.kind, count)
            try:
                encoder.encode(request.context, max_new_tokens=room, kind=request.kind)
            except ContextError as error:
                long.append((task.index, error))
        if long:
            row, error = long[0]
            yield stop(
                f"{len(long)} of {len(tasks)} sampled prompts{one.label} do not fit, the first is row {row}: "
                f"{error.problem}",
                cause="a step that draws such a row ends the run",
                fix=error.fix,
            )


class _FirstRequests(FakePolicy):
    """A policy that performs nothing: it notes what it is asked for first."""

    def __init__(self, kinds: frozenset[str]) -> None:
        super().__init__(kinds=kinds)
        self.found: list[Request] = []

    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Note the requests, and stop the rollout."""
        self.found += requests
        raise _Asked


class _Asked(Exception):
    """The first requests are known."""


def first_requests(probe: Probe, one: ProbedTrack, tasks: Sequence[Task]) -> list[Request]:
    """The first request of the scenario on each task."""
    found: list[Request] = []
    for task in tasks:
        noted = _FirstRequests(probe.policy.kinds)
        try:
            rollout(noted, one.track.scenario, [task], 1, samplings=probe.samplings, seed=0, step=0)
        except _Asked:
            found += noted.found[:1]
    return found


@check("image_tokens")
def image_tokens(probe: Probe) -> Iterator[Finding]:
    """Every image of a prompt has its place there, with as many tokens as the vision tower gives features"""
    encoder = encoder_of(probe.policy)
    if not hasattr(encoder, "image_id"):
        raise NotApplicable("the language model is not shown images")
    checked = False
    for act in probe.sampled():
        if not isinstance(act.encoding, Encoding) or not act.context.images:
            continue
        checked = True
        encoding, shown = act.encoding, len(act.context.images)
        places = int((encoding.ids == encoder.image_id).sum())
        expected = _expected_tokens(encoder, encoding, act.context)
        if encoding.pixels is None or places != expected:
            yield stop(
                f"The prompt of the act {act.name!r} has {places} image tokens for {shown} images; expected "
                f"{expected}.",
                cause="the image processor and the model disagree about the size of images, or an image was dropped",
                fix="use the processor files of this checkpoint.",
            )
            return
    if not checked:
        raise NotApplicable("no prompt shows an image to the language model")


def _expected_tokens(encoder: Any, encoding: Encoding, context: Conversation) -> int:
    """By the sizes of the images where they have any (Qwen-VL), else by the processor's number for each image."""
    if encoding.image_sizes is not None:
        return int((encoding.image_sizes.prod(dim=1) // encoder.image_processor.merge_size**2).sum())
    return len(context.images) * int(encoder.processor.num_image_tokens)
