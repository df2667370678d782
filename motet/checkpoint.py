"""Checkpoints: a folder that `from_pretrained` loads, with the learner's state beside the weights.

No pickle: tensors as safetensors, the rest as JSON. A folder appears whole or not at all. Noise is keyed by (seed, step,
task, sibling), so a step boundary has no random state of its own: weights, optimizer, data cursor and step are all.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from motet.errors import CheckpointError
from motet.learner import Learner
from motet.protocols import Policy

_STATE, _OPTIMIZER = "trainer_state.json", "optimizer.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, seconds of training so far, and the data cursor's state."""

    step: int
    seconds: float
    cursor: dict[str, Any]


def save_checkpoint(folder: Path, policy: Policy, learner: Learner, progress: Progress, keep: int) -> Path:
    """Write `folder/step_NNNNNN` and remove all but the newest `keep`."""
    target = folder / f"step_{progress.step:06d}"
    partial = folder / f".partial_{target.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    policy.save(partial)
    tensors = {}
    for (name, parameter) in policy.trainable().items():
        for key, value in learner.optimizer.state.get(parameter, {}).items():
            tensors[f"{name}|{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    save_file(tensors, str(partial / _OPTIMIZER))
    state = {
        "step": progress.step,
        "seconds": progress.seconds,
        "cursor": progress.cursor,
        "policy_version": policy.version,
        "optimizer_steps": learner.schedule.last_epoch,
    }
    (partial / _STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    for old in sorted(folder.glob("step_*"))[:-keep]:
        shutil.rmtree(old)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, None if there is none."""
    found = sorted(path for path in folder.glob("step_*") if (path / _STATE).is_file())
    return found[-1] if found else None


def restore(folder: Path, policy: Policy, saved: Policy, learner: Learner) -> Progress:
    """Put a checkpoint's weights (loaded as `saved`) and learner state into a freshly built run.

    The run's own policy was built from the recipe, so its reference is still the one that the run started from.
    """
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / _OPTIMIZER))
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{str(folder)!r} cannot be resumed: {error}.", fix="delete it to resume an older one.") from error
    parameters, stored = policy.trainable(), saved.trainable()
    if parameters.keys() != stored.keys():
        raise CheckpointError(
            f"{str(folder)!r} trains other parts than this recipe.", fix="resume with the run's own recipe.yaml."
        )
    for name, parameter in parameters.items():
        parameter.data.copy_(stored[name].data)
        entries = {key.split("|")[1]: value for key, value in tensors.items() if key.split("|")[0] == name}
        if entries:
            learner.optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in entries.items()
            }
    policy.version = int(state["policy_version"])
    learner.resume_at(int(state["optimizer_steps"]))
    return Progress(int(state["step"]), float(state["seconds"]), state["cursor"])
