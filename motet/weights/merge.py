"""Checkpoint folders -> one merged checkpoint folder, tensor by tensor.

At any time one output shard, one tensor of every model and about six float32 copies of it are in memory, never a model.
The formulas are those of `motet.weights.merge_math`. Configs, tokenizer and processor are those of the first model;
optimizer and learner state are not copied, because the merged weights have none.

Where models and base are stored in different types (trained weights in float32 over a bfloat16 base), the widest of
them is what a tensor is written in: a small step survives float32 and vanishes in bfloat16.

Not run here: checkpoints of real size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from motet.core.errors import CheckpointError, ConfigError, NumericsError
from motet.weights.lora_as_full import CONFIG, AdaptedWeights, base_folder, cached_folder
from motet.weights.merge_math import average, delta, gaussian_deltas, moved, norm_weighted
from motet.weights.safetensors_io import (
    SHARD_BYTES,
    ShardWriter,
    StoredWeights,
    Weights,
    atomic_dir,
    copy_settings,
    format_first_names,
    read_json,
    write_json,
)

METHODS = ("gaussian", "average", "norm")


@dataclass(frozen=True)
class Merged:
    """What a merge did. `judged` counts the elements of deltas of tensors that both models changed, `outliers` how many
    of those were outliers (gaussian only); `changed` counts tensors that differ between the models or from the base."""

    folder: Path
    tensors: int
    parameters: int
    changed: int
    judged: int
    outliers: int
    seconds: float

    @property
    def outlier_share(self) -> float | None:
        """Outliers among the judged elements, None where none were judged."""
        return self.outliers / self.judged if self.judged else None


def merge_folders(
    models: Sequence[Path], out: Path, *, method: str, base: Path | None = None, shard_bytes: int = SHARD_BYTES
) -> Merged:
    """Merge checkpoint folders (full or LoRA adapters) into the new folder `out`, which appears whole or not at all.

    `method` is one of METHODS; all but average need the `base` that the models were trained from.

    Raises ConfigError for a method that does not fit the number of models, CheckpointError for folders that do not fit
    each other, RunFolderError when `out` exists and is not empty, NumericsError when a merged number is not finite.
    """
    _refuse_mismatched_method(len(models), method, base)
    start = time.monotonic()
    models = [_located(model) for model in models]
    opened = [open_weights(folder) for folder in models]
    ancestor = None if base is None else open_weights(base)
    _refuse_different_tensors([*opened, *([] if ancestor is None else [ancestor])])
    step = _Step(method)
    with atomic_dir(out) as partial:
        _copy_settings(models[0], partial)
        writer = ShardWriter(partial, shard_bytes)
        for name in opened[0].shapes:
            tensors = [one.load(name) for one in opened]
            writer.add(name, step.merge(name, tensors, None if ancestor is None else ancestor.load(name)))
        writer.close()
        _declare_dtype(partial / "config.json", writer.dtypes)
    seconds = time.monotonic() - start
    count = len(opened[0].shapes)
    return Merged(out, count, writer.parameters, step.changed, step.judged, step.outliers, seconds)


def open_weights(folder: Path) -> Weights:
    """The weights of a folder, or of a hub id in the hub's cache; an adapter's are its base's with the adapter on."""
    folder = _located(folder)
    if (folder / CONFIG).is_file():
        return AdaptedWeights(folder, open_weights(base_folder(folder)))
    return StoredWeights(folder)


def _located(folder: Path) -> Path:
    return folder if folder.exists() else cached_folder(folder.as_posix()) or folder


class _Step:
    """Merges one tensor after the other, and counts."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.changed = self.judged = self.outliers = 0

    def merge(self, name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
        everyone = models if base is None else [base, *models]
        widest = reduce(torch.promote_types, (one.dtype for one in everyone))
        if all(torch.equal(one.to(widest), everyone[0].to(widest)) for one in everyone[1:]):
            return everyone[0].to(widest)
        if not all(one.is_floating_point() for one in everyone):
            raise CheckpointError(
                f"{name!r} holds {everyone[0].dtype} and differs between the models: it has no mean.",
                fix="merge models that agree on it.",
            )
        self.changed += 1
        merged = self._merge([one.to(widest) for one in models], None if base is None else base.to(widest))
        if not bool(merged.isfinite().all()):
            raise NumericsError(
                f"{name!r} has numbers that are not finite, in a model or once merged.",
                fix="look for the checkpoint that diverged.",
            )
        return merged

    def _merge(self, models: list[Tensor], base: Tensor | None) -> Tensor:
        if base is None:
            return average(models)
        if self.method == "norm":
            return norm_weighted(base, models)
        first, second = (delta(base, model) for model in models)
        merged, outlies = gaussian_deltas(first, second)
        if bool(first.any()) and bool(second.any()):
            self.judged += 2 * first.numel()
            self.outliers += sum(int(one.sum()) for one in outlies)
        return moved(base, merged)


def _refuse_mismatched_method(count: int, method: str, base: Path | None) -> None:
    if method not in METHODS:
        raise ConfigError(f"method={method!r} is no way to merge.", fix=f"use one of {', '.join(METHODS)}.")
    if count < 2:
        raise ConfigError(f"A merge needs two models or more, not {count}.", fix="name another checkpoint folder.")
    if method == "gaussian" and count != 2:
        raise ConfigError(f"method='gaussian' merges two models, not {count}.", fix="use method average or norm.")
    if method == "average" and base is not None:
        raise ConfigError("method='average' has no use for a base.", fix="leave the base out, or use method norm.")
    if method != "average" and base is None:
        raise ConfigError(
            f"method={method!r} merges changes, and needs the checkpoint that they are changes of.",
            fix="name the base: the checkpoint that the models were trained from.",
        )


def _refuse_different_tensors(all_weights: list[Weights]) -> None:
    """Same names and shapes everywhere. A tensor that the base lacks is refused too: CoRL's release takes it from the
    first model, which drops the others' without a word."""
    first = all_weights[0]
    for other in all_weights[1:]:
        differing = set(first.shapes) ^ set(other.shapes)
        if differing:
            raise CheckpointError(
                f"{first.source!r} and {other.source!r} differ by {len(differing)} tensors: "
                f"{format_first_names(differing)}.",
                fix="merge checkpoints of one model; convert or complete the odd one.",
            )
        reshaped = [
            f"{name} {first.shapes[name]} and {other.shapes[name]}"
            for name in first.shapes
            if first.shapes[name] != other.shapes[name]
        ]
        if reshaped:
            raise CheckpointError(
                f"{first.source!r} and {other.source!r} differ in the shape of {len(reshaped)} tensors: "
                f"{format_first_names(reshaped)}.",
                fix="merge checkpoints of one model and one size.",
            )


def _copy_settings(model: Path, target: Path) -> None:
    """An adapter's folder need not hold the model's config: its base's files come first, its own replace them."""
    if (model / CONFIG).is_file():
        _copy_settings(base_folder(model), target)
    copy_settings(model, target)


def _declare_dtype(config: Path, dtypes: set[torch.dtype]) -> None:
    """transformers loads everything in the type that config.json names: name the widest of what was written."""
    floats = [dtype for dtype in dtypes if dtype.is_floating_point]
    if not config.is_file() or not floats:
        return
    content = read_json(config)
    content.pop("torch_dtype", None)  # its older name
    write_json(config, {**content, "dtype": str(reduce(torch.promote_types, floats)).removeprefix("torch.")})
