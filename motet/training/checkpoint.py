"""Checkpoints: a folder that `from_pretrained` loads, with the optimizer's state beside the weights.

The optimizer's state holds the trained weights once more, unrounded: `from_pretrained` may round them to the type that
the model's config names. No pickle: tensors as safetensors, the rest as JSON. A folder appears whole or not at all.
Noise is keyed by (seed, step, task, generation), so a step boundary has no random state of its own: weights, optimizer,
data cursor and step are all.

A power cut finds the new checkpoint or the one before it: files and folders are synced before the rename, and the
rename before an older one is removed. Checksums of all files lie beside them.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from motet.core.atomic_files import sync_folder, sync_tree
from motet.core.errors import CheckpointError
from motet.core.protocols import TrainablePolicy
from motet.policies.trainable import reference_weights, restore_reference
from motet.training.optimizer_step import PolicyOptimizer
from motet.weights.locate import LEARNER, TRAINER_STATE, check_undamaged, checkpoints, write_checksums
from motet.weights.safetensors_io import save_tensors

_WEIGHT, _REFERENCE = "weight", "reference"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, seconds of training so far, and where each track stands in its data."""

    step: int
    seconds: float
    data_state: dict[str, Any]


def save_checkpoint(
    folder: Path, policy: TrainablePolicy, optimizer: PolicyOptimizer, progress: Progress, keep: int
) -> Path:
    """Write `folder/step_NNNNNN` and remove all but the newest `keep`. Raises CheckpointError when it cannot.

    It is written under another name and renamed when it is whole; what a killed process left of that is removed.
    """
    target = folder / f"step_{progress.step:06d}"
    partial = folder / f".partial_{target.name}"
    try:
        for left in folder.glob(".partial_step_*"):
            shutil.rmtree(left)
        partial.mkdir(parents=True)
        policy.save(partial)
        _save_optimizer(partial, policy, optimizer, progress)
        write_checksums(partial)
        sync_tree(partial)
        if target.exists():
            _remove(target)
        os.replace(partial, target)
        sync_folder(folder)
        sync_folder(folder.parent)  # which names `folder`, if it is new
        for old in checkpoints(folder)[:-keep]:
            _remove(old)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{str(target)!r} cannot be written: {getattr(error, 'strerror', None) or error}.",
            fix="free some space there, or make it writable.",
        ) from error
    return target


def _remove(checkpoint: Path) -> None:
    """A process that is killed here leaves no half of a checkpoint under its name."""
    gone = checkpoint.with_name(f".partial_{checkpoint.name}_removed")
    os.replace(checkpoint, gone)
    shutil.rmtree(gone)


def _save_optimizer(folder: Path, policy: TrainablePolicy, optimizer: PolicyOptimizer, progress: Progress) -> None:
    tensors: dict[str, Tensor] = {}
    for name, parameter in policy.trainable().items():
        for key, value in {_WEIGHT: parameter, **optimizer.adamw.state.get(parameter, {})}.items():
            tensors[f"{name}|{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    if optimizer.reference_moved:
        for name, weight in reference_weights(policy).items():
            tensors[f"{name}|{_REFERENCE}"] = weight.cpu().contiguous()
    save_tensors(folder / LEARNER, tensors)
    state = {
        "step": progress.step,
        "seconds": progress.seconds,
        "cursors": progress.data_state,
        "policy_version": policy.version,
        "optimizer_steps": optimizer.num_steps,
        "received_gradient": optimizer.received_gradient,
    }
    (folder / TRAINER_STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")


def restore(folder: Path, policy: TrainablePolicy, optimizer: PolicyOptimizer) -> Progress:
    """Put a checkpoint's trained weights and optimizer state into a freshly built run.

    The run's policy was built from the recipe, so its reference is the one that the run started from; one that has
    moved since (`algorithm.reference_sync`) is in the checkpoint. Raises CheckpointError for a damaged file, naming it
    and the checkpoint before, and for one of another run.
    """
    check_undamaged(folder)
    try:
        state = json.loads((folder / TRAINER_STATE).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / LEARNER))
        progress = Progress(int(state["step"]), float(state["seconds"]), state["cursors"])
        version, optimizer_steps = int(state["policy_version"]), int(state["optimizer_steps"])
        received_gradient = bool(state.get("received_gradient", True))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{str(folder)!r} cannot be resumed: {error}.", fix="delete it to resume from the one before it."
        ) from error
    stored: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, what = key.rpartition("|")
        stored.setdefault(name, {})[what] = value
    parameters = policy.trainable()
    if {name: p.shape for name, p in parameters.items()} != {name: s[_WEIGHT].shape for name, s in stored.items()}:
        raise CheckpointError(
            f"{str(folder)!r} holds other trained parts than this recipe's policy has.",
            fix="resume with the run's own recipe.yaml.",
        )
    references = {name: own.pop(_REFERENCE) for name, own in stored.items() if _REFERENCE in own}
    if references:
        restore_reference(policy, references)
        optimizer.reference_moved = True
    for name, parameter in parameters.items():
        parameter.data.copy_(stored[name].pop(_WEIGHT))
        if stored[name]:
            optimizer.adamw.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in stored[name].items()
            }
    policy.version, optimizer.num_steps, optimizer.received_gradient = version, optimizer_steps, received_gradient
    return progress
