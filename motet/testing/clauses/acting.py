"""Clauses of `act`: what acts are, what their noise depends on, and which distribution they are drawn from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from motet.core.trajectory import Act
from motet.testing.clauses.base import Clause
from motet.testing.examples import Examples, NotChecked, same_actions
from motet.testing.report import Violation

SAMPLES = {"denoising": 8}
"""Acts from which `sampled from what is scored` estimates a mean: a denoising step has many dimensions."""
STANDARD_ERRORS = 5.0
"""How far that mean may be from its expectation."""


def acts_are_complete(examples: Examples) -> Iterator[Violation]:
    """Every request is answered, in order, by an act of its kind that carries its own log-probs."""
    if not examples.kinds:
        yield Violation("policy.kinds is empty.", "return the act kinds that the policy performs.")
    for kind in examples.kinds:
        for name, (_, acts) in examples.supported(kind).items():
            requests = examples.requests(kind)
            if len(acts) != len(requests):
                yield Violation(
                    f"act() returned {len(acts)} acts for {len(requests)} requests of kind {kind!r}.",
                    "return one act per request, in the order of the requests.",
                )
                continue
            for request, act in zip(requests, acts, strict=True):
                yield from _act_fields(examples, request, act, f"{kind}/{name}")


def _act_fields(examples: Examples, request: Any, act: Act, where: str) -> Iterator[Violation]:
    expected = {
        "kind": request.kind,
        "name": request.name,
        "context": request.context,
        "trained": request.trained,
        "policy_version": examples.policy.version,
    }
    for field, value in expected.items():
        if getattr(act, field) != value:
            yield Violation(
                f"{where}: act.{field} is {getattr(act, field)!r}, but {value!r} was expected.",
                f"copy {field} from the request (policy_version from policy.version).",
            )
    log_probs = act.log_probs
    if log_probs is None or tuple(log_probs.shape) != (act.num_actions,):
        yield Violation(
            f"{where}: log_probs has shape {None if log_probs is None else tuple(log_probs.shape)}, but the act has "
            f"{act.num_actions} actions.",
            "return one log-prob for each action.",
        )
    elif log_probs.dtype not in (torch.float32, torch.float64) or log_probs.requires_grad:
        yield Violation(
            f"{where}: log_probs is {log_probs.dtype} with requires_grad={log_probs.requires_grad}.",
            "sample under torch.no_grad() and return float32 log-probs.",
        )
    elif not bool(log_probs.isfinite().all()):
        yield Violation(
            f"{where}: log_probs holds {log_probs.tolist()}.",
            "score the distribution that was sampled: what it excludes cannot have been sampled.",
        )
    if (act.behaviour_log_probs is not None) != (act.sampling.guidance == "conditional"):
        yield Violation(
            f"{where}: behaviour_log_probs is {'None' if act.behaviour_log_probs is None else 'given'} under "
            f"guidance={act.sampling.guidance!r}.",
            "give behaviour_log_probs where the scored distribution is not the sampled one, and only there.",
        )


def noise_follows_the_key(examples: Examples) -> Iterator[Violation]:
    """A request's act depends on its key, whatever is in the batch and whatever torch's global generator holds."""
    for kind in examples.kinds:
        requests, sampling = examples.requests(kind), examples.plain(kind)
        torch.manual_seed(0)
        together = examples.policy.act(requests, sampling)
        state = torch.get_rng_state()
        torch.manual_seed(1)
        turned = examples.policy.act(requests[::-1], sampling)[::-1]
        alone = [act for request in requests[1:3] for act in examples.policy.act([request], sampling)]
        torch.manual_seed(0)
        if not torch.equal(state, torch.get_rng_state()):
            yield Violation(
                f"Sampling {kind} acts draws numbers from torch's global generator.",
                "make all noise from request.key.",
            )
        for case, ours, theirs in (("reversed", together, turned), ("sampled alone", together[1:3], alone)):
            differ = [n for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if not _same(examples, a, b)]
            if differ:
                yield Violation(
                    f"{len(differ)} of {len(ours)} {kind} acts change when their batch is {case}.",
                    "make each request's noise from request.key alone, never from its place in the batch, and keep "
                    "rows of a batch apart.",
                )
        if all(_same(examples, one, other) for one, other in zip(together[::2], together[1::2], strict=True)):
            yield Violation(
                f"The two {kind} acts of each context are equal although their keys differ.",
                "let the noise depend on request.key.",
            )


def _same(examples: Examples, one: Act, other: Act) -> bool:
    return same_actions(one, other, examples.tolerance)


def greedy_ignores_the_key(examples: Examples) -> Iterator[Violation]:
    """At temperature 0 acts of tokens do not depend on the key; denoising walks the ODE and has no actions."""
    checked = False
    for kind in examples.kinds:
        for name, (sampling, acts) in examples.supported(kind).items():
            if sampling.temperature != 0:
                continue
            checked = True
            if kind == "denoising":
                if any(act.num_actions for act in acts):
                    yield Violation(
                        f"{kind}/{name}: an act has {acts[0].num_actions} stochastic steps at temperature 0.",
                        "make every step deterministic at temperature 0.",
                    )
            elif not _same(examples, acts[0], acts[1]):
                yield Violation(
                    f"{kind}/{name}: two acts in one context differ at temperature 0.", "take the likeliest action."
                )
    if not checked:
        raise NotChecked("no example setting has temperature 0.")


def settings_change_the_distribution(examples: Examples) -> Iterator[Violation]:
    """Temperature and top-k change what is sampled and scored."""
    checked = False
    for kind in examples.kinds:
        if kind == "denoising" or _uniform(acts := examples.act(kind)):
            continue
        checked = True
        sampling = examples.plain(kind)
        cool = examples.act(kind, replace(sampling, temperature=0.25))
        if all(torch.equal(a, b) for a, b in zip(_log_probs(acts), _log_probs(cool), strict=True)):
            yield Violation(
                f"{kind}: log-probs at temperature 0.25 are those of temperature 1.",
                "divide the logits by sampling.temperature when sampling and when scoring.",
            )
        worst = max(float(v.abs().max()) for v in _log_probs(examples.act(kind, replace(sampling, top_k=1))))
        if worst > examples.tolerance:
            yield Violation(
                f"{kind}: with top_k=1 a sampled action has log-prob {-worst:.6g}, but 0 was expected.",
                "leave the k likeliest actions, and normalise over them when scoring.",
            )
    if not checked:
        raise NotChecked("all example acts of tokens are drawn from uniform distributions.")


def _uniform(acts: list[Act]) -> bool:
    values = torch.cat(_log_probs(acts))
    return bool((values - values.mean()).abs().max() < 1e-5)


def _log_probs(acts: list[Act]) -> list[Tensor]:
    return [act.log_probs for act in acts if act.log_probs is not None]


def sampled_from_what_is_scored(examples: Examples) -> Iterator[Violation]:
    """The mean log-prob of samples is minus the entropy of the scoring distribution, up to chance."""
    checked = False
    for kind in examples.kinds:
        needs = ("mean", "std") if kind == "denoising" else ("entropy",)
        each = -(-SAMPLES.get(kind, 48) // len(examples.contexts[kind]))
        acts = examples.act(kind, each=each, seed=11)
        with torch.no_grad():
            replays = examples.replay(acts, needs=needs)
        if any(need not in replay.extras for replay in replays for need in needs):
            continue
        checked = True
        if kind == "denoising":
            surprise = torch.cat([r.log_probs + r.extras["std"].flatten().log() for r in replays]).double().cpu()
            surprise += 0.5 * math.log(2 * math.pi) + 0.5  # the entropy of a Gaussian, per dimension
        else:
            surprise = torch.cat([r.log_probs + r.extras["entropy"] for r in replays]).double().cpu()
        error = max(float(surprise.std()) / math.sqrt(len(surprise)), 1e-4)
        if abs(float(surprise.mean())) > STANDARD_ERRORS * error:
            yield Violation(
                f"{kind}: the mean log-prob of {len(surprise)} sampled actions is {float(surprise.mean()):+.3f} from "
                f"minus the entropy, which is {abs(float(surprise.mean())) / error:.1f} standard errors.",
                "sample from the distribution that is scored: same temperature, limits, guidance and step noise.",
            )
    if not checked:
        raise NotChecked("replay offers neither `entropy` of tokens nor `mean` and `std` of denoising steps.")


def nothing_in_nothing_out(examples: Examples) -> Iterator[Violation]:
    """Calls without requests or acts return empty lists."""
    sampling = examples.plain(examples.kinds[0])
    calls = {
        "act([], sampling)": lambda: examples.policy.act([], sampling),
        "replay([])": lambda: examples.policy.replay([]),
        "encode_targets([], [])": lambda: examples.policy.encode_targets([], []),
    }
    for call, result in calls.items():
        try:
            found = result()
        except Exception as error:  # whatever the policy raises
            yield Violation(f"{call} raised {type(error).__name__}: {error}.", "return an empty list.")
        else:
            if found != []:
                yield Violation(f"{call} returned {found!r}.", "return an empty list.")


ACTING = (
    Clause("acts are complete", acts_are_complete),
    Clause("noise follows the request's key", noise_follows_the_key),
    Clause("temperature 0 is deterministic", greedy_ignores_the_key),
    Clause("settings change the distribution", settings_change_the_distribution),
    Clause("sampled from what is scored", sampled_from_what_is_scored),
    Clause("nothing in, nothing out", nothing_in_nothing_out),
)
