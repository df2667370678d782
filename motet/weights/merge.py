"""Merge checkpoint folders into a new one, tensor by tensor.

Memory holds one output shard, one tensor of every model and about six float32 copies of it, never a whole model. The
formulas are in `motet.weights.merge_math`. Configs, tokenizer and processor are those of the first model; optimizer
state is not copied.

If models and base are stored in different dtypes (weights trained in float32 from a bfloat16 base), a tensor is written
in the widest of them, because small changes vanish in bfloat16.

Not tested with checkpoints of real size.
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
from motet.weights.merge_math import add_delta, average, delta, gaussian_deltas, norm_weighted
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
class MergeResult:
    """What a merge did.

    `tensors` and `parameters` count all of the result; `changed` counts the tensors that differ between the models or
    from the base. `num_compared` counts the elements of the deltas of tensors that both models changed, `outliers` how
    many of those were outliers (gaussian only).
    """

    folder: Path
    tensors: int
    parameters: int
    changed: int
    num_compared: int
    outliers: int
    seconds: float

    @property
    def outlier_share(self) -> float | None:
        """Outliers as a fraction of the compared elements; None if none were compared."""
        return self.outliers / self.num_compared if self.num_compared else None


def merge_folders(
    models: Sequence[Path], out: Path, *, method: str, base: Path | None = None, shard_bytes: int = SHARD_BYTES
) -> MergeResult:
    """Merge checkpoint folders (full or LoRA adapters) into the new folder `out`, which is written atomically.

    `method` is one of METHODS; all but average need the `base` that the models were trained from. The average of one
    LoRA adapter is its base with the adapter applied.

    Raises ConfigError if the method does not fit the number of models, CheckpointError if the folders do not fit each
    other, RunFolderError if `out` exists and is not empty, NumericsError if a merged value is not finite.
    """
    models = [_resolve(model) for model in models]
    _check_method(models, method, base)
    start = time.monotonic()
    model_weights = [open_weights(folder) for folder in models]
    base_weights = None if base is None else open_weights(base)
    _check_same_tensors([*model_weights, *([] if base_weights is None else [base_weights])])
    merger = _TensorMerger(method)
    with atomic_dir(out) as partial:
        _copy_settings(models[0], partial)
        writer = ShardWriter(partial, shard_bytes)
        for name in model_weights[0].shapes:
            tensors = [weights.load(name) for weights in model_weights]
            writer.add(name, merger.merge(name, tensors, None if base_weights is None else base_weights.load(name)))
        writer.close()
        _declare_dtype(partial / "config.json", writer.dtypes)
    seconds = time.monotonic() - start
    count = len(model_weights[0].shapes)
    return MergeResult(out, count, writer.parameters, merger.changed, merger.num_compared, merger.outliers, seconds)


def open_weights(folder: Path) -> Weights:
    """The weights of a folder or of a hub id in the hub's cache; of an adapter: its base with the adapter applied."""
    folder = _resolve(folder)
    if (folder / CONFIG).is_file():
        return AdaptedWeights(folder, open_weights(base_folder(folder)))
    return StoredWeights(folder)


def _resolve(folder: Path) -> Path:
    return folder if folder.exists() else cached_folder(folder.as_posix()) or folder


class _TensorMerger:
    """Merges one tensor after another and counts what it did."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.changed = self.num_compared = self.outliers = 0

    def merge(self, name: str, models: list[Tensor], base: Tensor | None) -> Tensor:
        tensors = models if base is None else [base, *models]
        widest = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
        if all(torch.equal(tensor.to(widest), tensors[0].to(widest)) for tensor in tensors[1:]):
            return tensors[0].to(widest)
        if not all(tensor.is_floating_point() for tensor in tensors):
            raise CheckpointError(
                f"{name!r} has dtype {tensors[0].dtype} and differs between the models: integers cannot be averaged.",
                fix="merge models that agree on this tensor.",
            )
        self.changed += 1
        merged = self._merge([model.to(widest) for model in models], None if base is None else base.to(widest))
        if not bool(merged.isfinite().all()):
            raise NumericsError(
                f"{name!r} is not finite in a model or after merging.", fix="leave out the checkpoint that diverged."
            )
        return merged

    def _merge(self, models: list[Tensor], base: Tensor | None) -> Tensor:
        if base is None:
            return average(models)
        if self.method == "norm":
            return norm_weighted(base, models)
        first, second = (delta(base, model) for model in models)
        merged, outlier_masks = gaussian_deltas(first, second)
        if bool(first.any()) and bool(second.any()):
            self.num_compared += 2 * first.numel()
            self.outliers += sum(int(mask.sum()) for mask in outlier_masks)
        return add_delta(base, merged)


def _check_method(models: Sequence[Path], method: str, base: Path | None) -> None:
    count = len(models)
    if method not in METHODS:
        raise ConfigError(f"method={method!r} is not a merge method.", fix=f"use one of {', '.join(METHODS)}.")
    if count < 2 and not (count == 1 and method == "average" and (models[0] / CONFIG).is_file()):
        raise ConfigError(
            f"A merge needs at least two models, not {count}.",
            fix="name another checkpoint folder; one LoRA adapter is merged into its base with method average.",
        )
    if method == "gaussian" and count != 2:
        raise ConfigError(f"method='gaussian' merges two models, not {count}.", fix="use method average or norm.")
    if method == "average" and base is not None:
        raise ConfigError("method='average' takes no base.", fix="leave out the base, or use method norm.")
    if method != "average" and base is None:
        raise ConfigError(
            f"method={method!r} needs the base, because it merges the changes from it.",
            fix="give --base, the checkpoint that the models were trained from.",
        )


def _check_same_tensors(all_weights: list[Weights]) -> None:
    """Raise CheckpointError unless all have the same tensor names and shapes.

    The base must have all of them too: CoRL's release takes a tensor that the base lacks from the first model, which
    silently drops those of the others.
    """
    first = all_weights[0]
    for other in all_weights[1:]:
        differing = set(first.shapes) ^ set(other.shapes)
        if differing:
            raise CheckpointError(
                f"{first.source!r} and {other.source!r} differ by {len(differing)} tensors: "
                f"{format_first_names(differing)}.",
                fix="merge checkpoints of one model; convert or complete the one that differs.",
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
                fix="merge checkpoints of one model and size.",
            )


def _copy_settings(model: Path, target: Path) -> None:
    """An adapter's folder may lack the model's config: copy the base's files first, then its own over them."""
    if (model / CONFIG).is_file():
        _copy_settings(base_folder(model), target)
    copy_settings(model, target)


def _declare_dtype(config: Path, dtypes: set[torch.dtype]) -> None:
    """Set the dtype in config.json, in which transformers loads all tensors, to the widest one written."""
    floats = [dtype for dtype in dtypes if dtype.is_floating_point]
    if not config.is_file() or not floats:
        return
    content = read_json(config)
    content.pop("torch_dtype", None)  # older name of the key

    write_json(config, {**content, "dtype": str(reduce(torch.promote_types, floats)).removeprefix("torch.")})
