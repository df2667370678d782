"""Checks of one backward pass: finite, where something trains and nowhere else; and of the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterator

from motet.preflight.findings import Finding, NotApplicable, check, stop, warn
from motet.preflight.probe import Gradient, Probe, part_of
from motet.training.weights_digest import modules_of


def _gradients(probe: Probe) -> dict[str, Gradient | None]:
    if probe.gradients is None:
        raise NotApplicable("there was no backward pass")
    return probe.gradients


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")


@check("loss")
def loss(probe: Probe) -> Iterator[Finding]:
    """The loss of the tiny step is finite"""
    _gradients(probe)
    for kind, value in (probe.losses or {}).items():
        if not math.isfinite(value):
            yield stop(
                f"The loss of the {kind} acts is {value}.",
                cause="a log-prob, a reference log-prob or an advantage is not finite",
                fix="set policy.dtype to float32, and check the checkpoint for NaN.",
            )


@check("gradient_finite")
def gradient_finite(probe: Probe) -> Iterator[Finding]:
    """The gradient of every trainable parameter is finite"""
    broken = [name for name, one in _gradients(probe).items() if one is not None and not one.finite]
    if broken:
        yield stop(
            f"The gradient of {len(broken)} trainable parameters is not finite: {_some(broken)}.",
            cause="a division by zero, an overflow of half precision, or NaN in the checkpoint",
            fix="set policy.dtype to float32, and check the checkpoint for NaN.",
        )


@check("gradient_trainable")
def gradient_trainable(probe: Probe) -> Iterator[Finding]:
    """Every part that trains receives a gradient that is not zero"""
    gradients = _gradients(probe)
    parts: dict[str, list[Gradient | None]] = {}
    for name, one in gradients.items():
        parts.setdefault(part_of(name, list(modules_of(probe.policy))), []).append(one)
    without = [part for part, own in parts.items() if not any(one is not None and one.largest != 0 for one in own)]
    if without:
        yield (stop if len(without) == len(parts) else warn)(
            f"{len(without)} of {len(parts)} trained parts receive no gradient: {_some(without)}.",
            cause="the scenario has no act that uses them, or what they compute is detached",
            fix="leave them out of policy.train, or train acts that use them.",
        )


@check("gradient_frozen")
def gradient_frozen(probe: Probe) -> Iterator[Finding]:
    """Frozen parameters receive no gradient"""
    _gradients(probe)
    if probe.frozen_with_gradient:
        yield stop(
            f"{len(probe.frozen_with_gradient)} parameters that are not trainable receive a gradient: "
            f"{_some(probe.frozen_with_gradient)}.",
            cause="requires_grad is set for weights that trainable() does not name",
            fix="freeze them (requires_grad_(False)), or name their part in policy.train.",
        )


@check("optimizer_parameters")
def optimizer_parameters(probe: Probe) -> Iterator[Finding]:
    """The optimizer holds the trainable parameters, all of them and no others"""
    named = {id(parameter): name for name, parameter in probe.policy.trainable().items()}
    held = [id(p) for group in probe.session.optimizer.adamw.param_groups for p in group["params"]]
    missing = [name for key, name in named.items() if key not in set(held)]
    strangers = len(set(held) - set(named))
    if missing or strangers or len(held) != len(set(held)):
        yield stop(
            f"Of {len(named)} trainable parameters the optimizer lacks {len(missing)} ({_some(missing)}); it holds "
            f"{strangers} that do not train.",
            cause="parts were frozen, unfrozen or replaced after the optimizer was made",
            fix="choose what trains before the run is set up.",
        )
