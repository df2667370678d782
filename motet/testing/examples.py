"""A policy with the examples on which it is checked: conversations, sampling settings and targets of each act kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from motet.core.act_kinds import act_kind
from motet.core.conversation import Conversation, user
from motet.core.errors import MotetError
from motet.core.protocols import Replay, Request
from motet.core.trajectory import Act, Sampling

TOKEN_SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "top_k": {"top_k": 3},
    "top_p": {"top_p": 0.8},
    "min_p": {"min_p": 0.1},
    "all limits": {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
    "greedy": {"temperature": 0.0},
}
GUIDANCE: dict[str, dict[str, Any]] = {
    "guided": {"guidance": "guided", "guidance_scale": 3.0},
    "conditional": {"guidance": "conditional", "guidance_scale": 3.0},
}
DENOISING_SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dance_sde": {"sde_type": "dance_sde", "noise_level": 0.3},
    "cps": {"sde_type": "cps", "noise_level": 0.6},
    "window": {"sde_window": (1, 1)},
    "ODE": {"temperature": 0.0},
}


def default_samplings(kind: str) -> dict[str, Sampling]:
    """The settings under which acts of a kind are checked, by name; `plain` is the first. 6 tokens or 4 steps.

    A policy may reject any of them but `plain`, with a MotetError.
    """
    chosen = DENOISING_SETTINGS if kind == "denoising" else TOKEN_SETTINGS
    record = act_kind(kind)
    guided = {} if record.makes == "text" else GUIDANCE
    return {name: record.sampling(max_tokens=6, num_steps=4, **options) for name, options in (chosen | guided).items()}


def default_contexts() -> list[Conversation]:
    """Two prompts of different lengths."""
    return [user("a red circle"), user("two blue squares, to the left of a green star")]


def default_targets(kind: str) -> list[Any]:
    """Two targets of a kind of the dataset: texts, or images of one colour."""
    if act_kind(kind).makes == "text":
        return ["red", "a blue one"]
    return [Image.new("RGB", (32, 32), name) for name in ("red", "blue")]


class NotChecked(Exception):
    """A clause that does not apply to a policy, or for which something is missing; the message says what."""


@dataclass
class Examples:
    """What every clause is given. `tolerance` bounds the difference of two log-probs that must be equal."""

    policy: Any
    contexts: Mapping[str, Sequence[Conversation]]
    samplings: Mapping[str, Mapping[str, Sampling]]
    targets: Mapping[str, Sequence[Any]]
    load: Callable[[Path], Any] | None
    tolerance: float
    unused: Collection[str] = ()
    _supported: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def kinds(self) -> list[str]:
        """The policy's act kinds, in alphabetical order."""
        return sorted(self.policy.kinds)

    def requests(self, kind: Any, *, each: int = 2, seed: int = 7) -> list[Request]:
        """`each` requests for every example context of a kind, all with different keys."""
        return [
            Request(kind, f"{kind} act", context, (seed, k, g))
            for k, context in enumerate(self.contexts[kind])
            for g in range(each)
        ]

    def plain(self, kind: str) -> Sampling:
        """The first of a kind's settings."""
        return next(iter(self.samplings[kind].values()))

    def act(self, kind: str, sampling: Sampling | None = None, **options: Any) -> list[Act]:
        """Acts for the example requests of a kind."""
        return self.policy.act(self.requests(kind, **options), sampling or self.plain(kind))

    def supported(self, kind: str) -> dict[str, tuple[Sampling, list[Act]]]:
        """The settings of a kind that the policy does not reject, each with acts that were sampled under it.

        Sampled once: the clauses leave the policy as it is.
        """
        if kind not in self._supported:
            found: dict[str, tuple[Sampling, list[Act]]] = {}
            for name, sampling in self.samplings[kind].items():
                try:
                    found[name] = (sampling, self.act(kind, sampling))
                except MotetError:
                    if sampling == self.plain(kind):
                        raise
            self._supported[kind] = found
        return self._supported[kind]

    def encode_targets(self, kind: Any, **options: Any) -> list[Act]:
        """The kind's example targets as acts, one for each context."""
        requests = [
            Request(kind, f"{kind} target", context, (3, n), **options) for n, context in enumerate(self.contexts[kind])
        ]
        return self.policy.encode_targets(requests, self.some_targets(kind))

    def some_targets(self, kind: str) -> list[Any]:
        """A target for each example context."""
        targets = self.targets[kind]
        return [targets[n % len(targets)] for n in range(len(self.contexts[kind]))]

    def replay(self, acts: Sequence[Act], batch: int | None = None, needs: Collection[str] = ()) -> list[Replay]:
        """Replays of the acts, in calls of `batch` acts, None: in one call."""
        size = batch or max(1, len(acts))
        return [one for n in range(0, len(acts), size) for one in self.policy.replay(acts[n : n + size], needs)]

    @torch.no_grad()
    def log_probs(self, acts: Sequence[Act], batch: int | None = None) -> list[Tensor]:
        """Replayed log-probs `[N]` of the acts, on the CPU."""
        return [one.log_probs.detach().cpu() for one in self.replay(acts, batch)]


def actions_of(act: Act) -> dict[str, Tensor]:
    """An act's own tensors, which are its actions: `ids` of tokens, `states` and `times` of denoising steps."""
    skipped = ("log_probs", "behaviour_log_probs")
    values = {one.name: getattr(act, one.name) for one in dataclasses.fields(act) if one.name not in skipped}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def same_actions(one: Act, other: Act, tolerance: float) -> bool:
    """Whether two acts have equal actions: whole numbers exactly, others up to rounding."""
    ours, theirs = actions_of(one), actions_of(other)
    return ours.keys() == theirs.keys() and all(_equal(ours[name], theirs[name], tolerance) for name in ours)


def _equal(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    return bool(((one - other).abs() <= 10 * tolerance * (1 + other.abs())).all())


def largest_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest absolute difference of tensors in pairs; infinite where shapes differ or a value is not finite."""
    if [one.shape for one in ours] != [other.shape for other in theirs]:
        return float("inf")
    differences = [float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True) if a.numel()]
    worst = max(differences, default=0.0)
    return worst if all(one == one for one in differences) else float("inf")
