"""Checks of the tiny rollout: whether it succeeds, follows the recipe, and can be repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from motet.core.trajectory import DenoisingSteps
from motet.preflight.findings import Finding, NotApplicable, check, stop, warn
from motet.preflight.probe import Probe
from motet.testing.check_policy import default_tolerance
from motet.testing.examples import same_actions


@check("rollout", "rl")
def rollout(probe: Probe) -> Iterator[Finding]:
    """The scenario can be rolled out"""
    for one in probe.tracks:
        runs = [trajectory for group in one.groups for trajectory in group.trajectories]
        failures = [run.failure for run in runs if run.failure is not None]
        if failures:
            yield (stop if len(failures) == len(runs) else warn)(
                f"{len(failures)} of {len(runs)} trajectories{one.label} failed, the first of them in the "
                f"{failures[0].where}: {failures[0].message}",
                cause="the scenario raised, or a conversation outgrew the context",
                fix=f"correct the scenario {one.track.scenario.name!r}, or shorten its prompts and acts.",
            )


@check("sampling_settings", "rl")
def sampling_settings(probe: Probe) -> Iterator[Finding]:
    """Acts are sampled with the recipe's temperature, limits, guidance and noise"""
    for kind in sorted({act.kind for act in probe.sampled()}):
        asked = probe.samplings[kind]
        if kind == "text":  # texts are never guided
            asked = dataclasses.replace(asked, guidance="none", guidance_scale=1.0)
        acts = [act for act in probe.sampled() if act.kind == kind and act.sampling != asked]
        if acts:
            got = acts[0].sampling
            names = [one.name for one in dataclasses.fields(asked)]
            differ = [name for name in names if getattr(got, name, None) != getattr(asked, name)]
            named = ", ".join(f"{name}={getattr(got, name, None)!r}, not {getattr(asked, name)!r}" for name in differ)
            yield stop(
                f"The {kind} acts were sampled with {named}.",
                cause="the policy or its engine ignores a setting of the recipe",
                fix="pass the given sampling on to the engine, and store it in the act.",
            )


@check("sampling_repeats", "rl")
def sampling_repeats(probe: Probe) -> Iterator[Finding]:
    """The same prompt and noise give the same act, alone and in a batch with longer prompts"""
    if probe.repeated is None:
        raise NotApplicable("nothing was rolled out")
    first = list(probe.tracks[0].groups[0].trajectories[0].acts) if probe.tracks[0].groups else []
    if probe.rounds:
        raise NotApplicable("sampling in less than float32 may round otherwise in another batch")
    same = len(first) == len(probe.repeated) and all(
        same_actions(one, other, default_tolerance(probe.policy))
        for one, other in zip(first, probe.repeated, strict=True)
    )
    if not same:
        yield warn(
            "An act that was sampled once more, without the other prompts of its batch, is another one.",
            cause="sampling uses noise of its own, or padding of shorter prompts (its side, its mask) changes them",
            fix="make noise from request.key alone, pad prompts on the left and mask the padding. Until then a resumed "
            "run is not the uninterrupted one.",
        )


@check("schedule", "rl")
def schedule(probe: Probe) -> Iterator[Finding]:
    """Denoising acts are replayed on the noise levels on which they were sampled"""
    pairs = [(act, one) for act, _, one in probe.pairs() if isinstance(act, DenoisingSteps)]
    if not pairs:
        raise NotApplicable("no act denoises")
    for act, one in pairs:
        problem = _schedule_problem(act, probe.samplings[act.kind].num_steps)
        taken = torch.tensor(act.stochastic)
        levels = {"sigma": act.times[:-1][taken], "sigma_next": act.times[1:][taken]}
        for name, own in levels.items():
            replayed = one.extras.get(name)
            if replayed is not None and not torch.allclose(replayed.cpu().float(), own.float(), atol=1e-6):
                problem = f"replay computes with {name}={_shown(replayed)}, sampling did with {_shown(own)}"
        if problem:
            yield stop(
                f"The schedule of the act {act.name!r} is wrong: {problem}.",
                cause="rollout and replay make their schedules from different settings",
                fix="store the schedule of the rollout in the act, and replay on that.",
            )
            return


def _schedule_problem(act: DenoisingSteps, num_steps: int) -> str:
    """What is wrong with the noise levels by themselves."""
    if len(act.times) != num_steps + 1 or len(act.states) != num_steps + 1:
        return f"it has {len(act.times) - 1} steps and {len(act.states) - 1} states, the recipe says {num_steps}"
    if not bool((act.times[1:] < act.times[:-1]).all()):
        return f"its noise levels do not fall: {_shown(act.times)}"
    return ""


def _shown(values: torch.Tensor) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values.flatten().tolist()[:6]) + "]"
