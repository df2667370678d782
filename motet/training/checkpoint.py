"""Checkpoints: a folder that `from_pretrained` loads, with the optimizer's state beside the weights.

The optimizer's state holds the trained weights once more, unrounded: `from_pretrained` may round them to the type that
the model's config names. No pickle: tensors as safetensors, the rest as JSON. A folder appears whole or not at all.
Noise is keyed by (seed, step, task, generation). What is not, such as a user's reward that calls `random`, goes on too:
the state of the global generators of every process is saved (`motet.training.random_state`).

A power cut finds the new checkpoint or the one before it: files and folders are synced before the rename, and the
rename before an older one is removed. Checksums of all files lie beside them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from motet.core.atomic_files import sync_folder, sync_tree
from motet.core.errors import CheckpointError
from motet.core.protocols import TrainablePolicy
from motet.core.write_errors import write_error
from motet.distributed.parallel import Parallel
from motet.distributed.sharded_files import save_sharded
from motet.training.learner_state import StoredLearner, learner_tensors, on_cpu
from motet.training.optimizer_step import PolicyOptimizer
from motet.training.random_state import RandomState
from motet.weights.locate import (
    LEARNER,
    LEARNER_SHARDS,
    RANDOM_STATE,
    ROLLOUT_WEIGHTS,
    TRAINER_STATE,
    best_checkpoint,
    check_undamaged,
    checkpoint_name,
    checkpoints,
    write_checksums,
)
from motet.weights.safetensors_io import is_write_error, save_tensors


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, seconds of training so far, and where each track stands in its data.

    `rollout_weights`: older weights of rollouts that are under way (`motet.training.rollout_pipeline`).
    `random_states`: of every process, by rank. `callback_states`: what callbacks keep over a resume.
    """

    step: int
    seconds: float
    data_state: dict[str, Any]
    rollout_weights: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    random_states: Sequence[RandomState | None] = ()
    callback_states: Mapping[str, Any] = field(default_factory=dict[str, Any])


def save_checkpoint(
    folder: Path,
    policy: TrainablePolicy,
    optimizer: PolicyOptimizer,
    progress: Progress,
    keep: int,
    parallel: Parallel | None = None,
) -> Path:
    """Write `folder/step_NNNNNN`; remove all but the newest `keep` and the best (`best.json`). Raises CheckpointError.

    It is written under another name and renamed when it is whole; what a killed process left of that is removed.
    With the `parallel` of a run all of its processes call it; without, or where it `saves_alone`, the main one alone
    has all that it takes.
    """
    parallel = parallel or Parallel()
    target = folder / checkpoint_name(progress.step)
    partial = folder / f".partial_{target.name}"

    def on_main(phase: str, write: Callable[[], None]) -> None:
        with parallel.processes.phase(phase):
            if parallel.processes.is_main:
                with _writing(target):
                    write()

    try:
        on_main("checkpoint", lambda: _make_empty(partial))
        with parallel.weights_on_main(policy):
            on_main("checkpoint", lambda: policy.save(partial))
        if not parallel.saves_alone:
            save_sharded(partial / LEARNER_SHARDS, learner_tensors(policy, optimizer))
        on_main("checkpoint", lambda: _complete(partial, policy, optimizer, progress, parallel.saves_alone))
        on_main("checkpoint", lambda: _publish(partial, target, keep))
    except Exception:
        if parallel.processes.is_main:  # a full disk needs the space for what is still to be written
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def _make_empty(partial: Path) -> None:
    for left in partial.parent.glob(".partial_step_*"):
        shutil.rmtree(left)
    partial.mkdir(parents=True)


def _complete(
    partial: Path, policy: TrainablePolicy, optimizer: PolicyOptimizer, progress: Progress, has_all: bool
) -> None:
    """Write what belongs to a checkpoint beside the policy's weights."""
    if has_all:
        save_tensors(partial / LEARNER, on_cpu(learner_tensors(policy, optimizer)))
    if progress.rollout_weights:
        save_tensors(partial / ROLLOUT_WEIGHTS, dict(progress.rollout_weights))
    state = {
        "step": progress.step,
        "seconds": progress.seconds,
        "cursors": progress.data_state,
        "policy_version": policy.version,
        "optimizer_steps": optimizer.num_steps,
        "received_gradient": optimizer.received_gradient,
        "callbacks": progress.callback_states,
    }
    (partial / RANDOM_STATE).write_text(json.dumps(progress.random_states), encoding="utf-8")
    (partial / TRAINER_STATE).write_text(json.dumps(state, indent=2), encoding="utf-8")
    write_checksums(partial)
    sync_tree(partial)


def _publish(partial: Path, target: Path, keep: int) -> None:
    folder = target.parent
    if target.exists():
        _remove(target)
    os.replace(partial, target)
    sync_folder(folder)
    sync_folder(folder.parent)  # which names `folder`, if it is new
    best = best_checkpoint(folder)
    for old in [path for path in checkpoints(folder) if path != best][:-keep]:
        _remove(old)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_write_error(error):
            raise
        raise write_error(CheckpointError, repr(str(target)), error) from error


def _remove(checkpoint: Path) -> None:
    """A process that is killed here leaves no half of a checkpoint under its name."""
    gone = checkpoint.with_name(f".partial_{checkpoint.name}_removed")
    os.replace(checkpoint, gone)
    shutil.rmtree(gone)


def restore(
    folder: Path, policy: TrainablePolicy, optimizer: PolicyOptimizer, parallel: Parallel | None = None
) -> Progress:
    """Put a checkpoint's trained weights and optimizer state into a freshly built run, each process its own part.

    The run's policy was built from the recipe, so its reference is the one that the run started from; one that has
    moved since (`algorithm.reference_sync`) is in the checkpoint. Raises CheckpointError for a damaged file, naming it
    and the checkpoint before, and for one of another run.
    """
    if parallel is None or parallel.processes.is_main:
        check_undamaged(folder)
    try:
        state = json.loads((folder / TRAINER_STATE).read_text(encoding="utf-8"))
        progress = Progress(
            int(state["step"]),
            float(state["seconds"]),
            state["cursors"],
            random_states=_read_random_states(folder),
            callback_states=state.get("callbacks", {}),
        )
        version, optimizer_steps = int(state["policy_version"]), int(state["optimizer_steps"])
        received_gradient = bool(state.get("received_gradient", True))
        stored = StoredLearner(folder, whole=parallel is None or parallel.saves_alone)
    except (OSError, ValueError, KeyError, SafetensorError, CheckpointError) as error:
        raise CheckpointError(
            f"{str(folder)!r} cannot be resumed: {error}.", fix="delete it to resume from the one before it."
        ) from error
    stored.load(policy, optimizer)
    policy.version, optimizer.num_steps, optimizer.received_gradient = version, optimizer_steps, received_gradient
    return progress


def _read_random_states(folder: Path) -> tuple[RandomState | None, ...]:
    """Empty for a checkpoint of an earlier version."""
    path = folder / RANDOM_STATE
    return tuple(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else ()
