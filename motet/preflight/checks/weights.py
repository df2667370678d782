"""Checks of weights: their type, those of rollout workers, that the probe left them alone, and space to save them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motet.policies.shards import local_data
from motet.preflight.findings import Finding, NotApplicable, check, stop, warn
from motet.preflight.probe import Probe
from motet.training.weights_digest import named_parameters, weights_digest

SAMPLED = 4096
"""Most values of a parameter that are looked at."""
LOST = 0.5
"""Share of updates that are rounded away, above which a run is stopped."""


@check("master_weights")
def master_weights(probe: Probe) -> Iterator[Finding]:
    """Weights that train are float32, or updates are large enough for their type"""
    rates = {id(p): g["lr"] for g in probe.session.optimizer.adamw.param_groups for p in g["params"]}
    coarse = [
        (name, p) for name, p in probe.policy.trainable().items() if p.dtype not in (torch.float32, torch.float64)
    ]
    if not coarse:
        return
    lost = [
        _share_lost(local_data(p), rates.get(id(p), probe.session.optimizer.config.learning_rate)) for _, p in coarse
    ]
    share, (name, parameter) = sum(lost) / len(lost), coarse[0]
    kind = str(parameter.dtype).removeprefix("torch.")
    yield (stop if share > LOST else warn)(
        f"{len(coarse)} trainable parameters are {kind} ({name!r} is one), and {share:.0%} of the updates at this "
        "learning rate are smaller than half of their last digit.",
        cause="an update that small is rounded away: those weights never change",
        fix="train float32 weights: policy.dtype=bfloat16 computes in bfloat16 and keeps what trains in float32.",
    )


def _share_lost(values: Tensor, rate: float) -> float:
    """The share of weights that an AdamW update of the size of the learning rate does not change."""
    flat = values.detach().reshape(-1)
    sample = flat[:: max(1, len(flat) // SAMPLED)].clone()
    return float(((sample - rate) == sample).float().mean()) if len(sample) else 0.0


@check("rollout_weights", "rl")
def rollout_weights(probe: Probe) -> Iterator[Finding]:
    """The weights of the rollout workers are those of the policy that trains"""
    if not probe.digest_of_workers:
        raise NotApplicable("rollouts are computed with the policy itself")
    own = probe.own_digest
    for worker, found in enumerate(probe.digest_of_workers):
        differ = [name for name, digest in own.items() if found.get(name) != digest]
        if differ:
            yield stop(
                f"Rollout worker {worker} has other weights in {len(differ)} of {len(own)} tensors, {differ[0]!r} is "
                "one.",
                cause="it was not sent the present weights, or its policy.path leads to another checkpoint",
                fix="give all machines the same checkpoint, and report this if they have it.",
            )


@check("weights_unchanged")
def weights_unchanged(probe: Probe) -> Iterator[Finding]:
    """Sampling, scoring and replaying leave the weights as they are"""
    if probe.digest is None:
        raise NotApplicable("the weights were not compared")
    now = weights_digest(probe.policy)
    changed = [name for name, digest in probe.digest.items() if now.get(name) != digest]
    if changed:
        yield stop(
            f"{len(changed)} of {len(now)} weights changed without an optimizer step, {changed[0]!r} is one.",
            cause="a forward pass writes to weights: statistics of a batch, a reference that is not put back",
            fix="keep modules in evaluation mode, and restore what reference() replaces.",
        )


@check("disk_space")
def disk_space(probe: Probe) -> Iterator[Finding]:
    """There is space for the checkpoints that the run keeps"""
    one = checkpoint_bytes(probe.policy)
    keep = probe.session.recipe.run.keep_checkpoints + 1  # the newest is written before the oldest is removed
    folder = next(path for path in (probe.folder.absolute(), *probe.folder.absolute().parents) if path.exists())
    free = free_bytes(folder)
    if free < one * keep:
        yield (stop if free < one else warn)(
            f"{str(folder)!r} has {_size(free)} free; a checkpoint takes about {_size(one)}, and {keep} are there at "
            "once while one is saved.",
            cause="weights, and three float32 numbers for each trained one (the weight and two moments)",
            fix="free some space, choose another --output, or lower run.keep_checkpoints.",
        )


def checkpoint_bytes(policy: Any) -> int:
    """About the size of a checkpoint: the weights that it holds, and for each trained one itself and two moments."""
    trained = list(policy.trainable().values())
    weights = trained if getattr(policy, "has_lora", False) else [p for _, p in named_parameters(policy)]
    return sum(p.numel() * p.element_size() for p in weights) + sum(3 * 4 * p.numel() for p in trained)


def free_bytes(folder: Path) -> int:
    """What this user may still write there."""
    return shutil.disk_usage(folder).free


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"
