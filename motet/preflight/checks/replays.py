"""Checks of replays: log-probs as sampled, in any batch, of what was sampled from, and under the reference."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from motet.core.protocols import Replay
from motet.core.trajectory import Act, DenoisingSteps
from motet.preflight.bounds import FLOAT32_MEAN, FLOAT32_SINGLE, ROUNDED_SINGLE
from motet.preflight.findings import Finding, NotApplicable, check, stop, warn
from motet.preflight.probe import Probe
from motet.testing.check_policy import default_tolerance
from motet.training.losses import resolve_losses
from motet.training.rollout_gate import max_logprob_diff

STANDARD_ERRORS = 6.0
MIN_ACTIONS = 32

Pairs = list[tuple[Act, Tensor, Replay]]


def _by_kind(pairs: Pairs) -> dict[str, Pairs]:
    kinds = sorted({act.kind for act, _, _ in pairs})
    return {kind: [pair for pair in pairs if pair[0].kind == kind] for kind in kinds}


def _differences(pairs: Pairs) -> Tensor:
    """Replayed minus sampled log-probs of all actions. Infinite where their numbers differ."""
    parts = [
        one.log_probs.detach().cpu().double() - sampled
        if one.log_probs.shape == sampled.shape
        else torch.full(sampled.shape, math.inf)
        for _, sampled, one in pairs
    ]
    return torch.cat(parts)


def _names(pairs: Pairs) -> str:
    return ", ".join(dict.fromkeys(act.name for act, _, _ in pairs))


_CAUSE = (
    "sampling and training compute different things: a shift by one, another temperature, top-k, guidance or noise "
    "level, a wrong mask or position"
)
_FIX = (
    "score the act's own sampling settings at replay, each action from the state before it; of another engine, set "
    "algorithm.loss.rollout_is=token."
)


@check("log_probs", "rl")
def log_probs(probe: Probe) -> Iterator[Finding]:
    """Replayed log-probs are the sampled ones, in the mean over the actions of each kind of act"""
    pairs = _by_kind(probe.pairs())
    bounds = max_logprob_diff(resolve_losses(probe.session.recipe, pairs))
    for kind, own in pairs.items():
        difference = float(_differences(own).abs().mean())
        bound = bounds[kind]
        exact = not probe.rounds and bound <= 0.1
        bound = FLOAT32_MEAN if exact else bound
        if not difference <= bound:
            yield stop(
                f"Replayed log-probs of the {kind} acts ({_names(own)}) differ from the sampled ones by "
                f"{difference:.3g} nats in the mean; the bound {'in float32 ' if exact else ''}is {bound:g}.",
                cause=_CAUSE,
                fix=_FIX,
            )


@check("ratio", "rl")
def ratio(probe: Probe) -> Iterator[Finding]:
    """The ratio of every single action is 1, within the bound of the compute type"""
    pairs = _by_kind(probe.pairs())
    bounds = max_logprob_diff(resolve_losses(probe.session.recipe, pairs))
    for kind, own in pairs.items():
        worst = float(_differences(own).abs().max())
        exact = not probe.rounds and bounds[kind] <= 0.1
        bound = FLOAT32_SINGLE if exact else ROUNDED_SINGLE
        if not worst <= bound:
            yield (stop if exact else warn)(
                f"The ratio of one of {sum(len(sampled) for _, sampled, _ in own)} actions of the {kind} acts "
                f"({_names(own)}) is exp({worst:.3g}) from 1; the bound is exp({bound:g}).",
                cause="some actions are scored differently than they were sampled: the first or last of an act, those "
                "at a limit of top-k or top-p, or rounding",
                fix=_FIX,
            )


def single_bound(probe: Probe) -> float:
    """How far two replays of one action may be from each other."""
    return ROUNDED_SINGLE if probe.rounds else FLOAT32_SINGLE


@check("replay_batches")
def replay_batches(probe: Probe) -> Iterator[Finding]:
    """An act's log-probs do not depend on the other acts of its micro-batch"""
    if probe.alone is None or probe.replays is None:
        raise NotApplicable("nothing was replayed")
    bound = single_bound(probe)
    for act, alone, together in zip(probe.sampled(), probe.alone, probe.replays, strict=True):
        worst = float((alone - together.log_probs.detach().cpu().double()).abs().max())
        if not worst <= bound:
            yield stop(
                f"The log-probs of the {act.kind} act {act.name!r} change by up to {worst:.3g} nats when it is "
                f"replayed alone; the bound is {bound:g}.",
                cause="padding is on the wrong side or not masked, or acts of a batch are mixed up",
                fix="mask the padding of shorter prompts and acts, and keep the order of the acts.",
            )
            return


@check("scored_distribution", "rl")
def scored_distribution(probe: Probe) -> Iterator[Finding]:
    """Tokens are sampled from the distribution that is scored: their mean log-prob is minus its entropy"""
    checked = False
    for kind, own in _by_kind(probe.pairs()).items():
        if isinstance(own[0][0], DenoisingSteps) or own[0][0].sampling.temperature == 0:
            continue
        if any(act.behaviour_log_probs is not None for act, _, _ in own) or any(
            "entropy" not in o.extras for *_, o in own
        ):
            continue
        surprise = torch.cat([one.log_probs + one.extras["entropy"] for _, _, one in own]).detach().cpu().double()
        if len(surprise) < MIN_ACTIONS:
            continue
        checked = True
        error = max(float(surprise.std()) / math.sqrt(len(surprise)), 1e-3)
        mean = float(surprise.mean())
        if abs(mean) > STANDARD_ERRORS * error:
            yield warn(
                f"The mean log-prob of {len(surprise)} sampled actions of kind {kind} is {mean:+.3g} nats from minus "
                f"the entropy of the scored distribution, which is {abs(mean) / error:.0f} standard errors.",
                cause="the policy samples at another temperature, top-k or guidance than it scores",
                fix="sample from the scoring distribution, or report what was sampled from as behaviour_log_probs.",
            )
    if not checked:
        raise NotApplicable(f"fewer than {MIN_ACTIONS} tokens were sampled, or their entropy is not known")


@check("reference")
def reference(probe: Probe) -> Iterator[Finding]:
    """The reference weights are the policy's before the first step"""
    if probe.reference is None or probe.replays is None:
        raise NotApplicable("no loss or reward uses the reference")
    bound = default_tolerance(probe.policy)
    pairs = zip(probe.sampled(), probe.reference, probe.replays, strict=True)
    worst, act = max(
        ((float((under - own.log_probs.detach().cpu().double()).abs().max()), act) for act, under, own in pairs),
        key=lambda found: found[0] if found[0] == found[0] else math.inf,
    )
    if not worst <= bound:
        yield stop(
            f"Under the reference weights the log-probs of the act {act.name!r} differ by up to {worst:.3g} nats; "
            f"expected at most {bound:g} before the first step.",
            cause="the reference was copied before the weights were loaded or changed, or is another checkpoint's",
            fix="call freeze_reference() after the policy is ready, and use its copies inside reference().",
        )
