"""Checkpoint folders in the transformers layout: complete weights in, weights and preprocessing files out."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from motet.core.errors import CheckpointError
from motet.core.registry import first_line
from motet.core.write_errors import write_error
from motet.policies.meta_loading import loads_without_weights
from motet.weights.hf_output import suppress_hf_output
from motet.weights.safetensors_io import StoredWeights, is_write_error, read_json

_LAYERS = {"num_hidden_layers", "num_layers", "num_single_layers", "depth", "num_res_blocks", "layers_per_block"}
_WIDTHS = ("_size", "_channels", "_dim", "_heads", "_embeddings")
"""Keys that count layers, and how the names of keys that give widths end."""


def load_model(kind: Any, source: str, dtype: torch.dtype | str) -> tuple[Any, Mapping[str, Any]]:
    """A transformers model of class `kind`, and what its loading report says; see `require_complete`.

    Raises CheckpointError for a config of far more than the folder's weights, else whatever the libraries below raise.
    """
    require_sizes(Path(source), "config.json", "model")
    place = {"device_map": "meta"} if loads_without_weights() else {}
    return kind.from_pretrained(source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **place)


def open_checkpoint(
    kind: Any, source: str, dtype: torch.dtype | str, open_processor: Callable[[str, Any], Any], family: str
) -> tuple[Any, Any]:
    """Model of class `kind` and processor of a folder or hub id; `dtype` "auto" keeps what is stored.

    `open_processor` gets the source and the model. Raises CheckpointError for broken files, and unless the weights are
    all there and nothing else is.
    """
    with suppress_hf_output():
        try:
            model, found = load_model(kind, source, dtype)
            processor = open_processor(source, model)
        except CheckpointError:
            raise
        except Exception as error:  # each library below raises its own kinds on a broken file
            raise CheckpointError(
                f"{source!r} cannot be loaded: {first_line(error)}",
                fix=f"give a hub id, or a folder where transformers saved a {family} model and its processor.",
            ) from error
    require_complete(source, found, family)
    return model, processor


def require_complete(source: str, found: Mapping[str, Any], family: str) -> None:
    """Raise CheckpointError unless the weights are all there and nothing else is.

    transformers fills gaps with random weights and only warns.
    """
    _refuse_keys(source, "lacks", found["missing_keys"], family)
    _refuse_keys(source, "has unknown", found["unexpected_keys"], family)
    _refuse_keys(source, "has, in another shape,", [key[0] for key in found["mismatched_keys"]], family)


def require_sizes(folder: Path, config: str, stem: str) -> None:
    """Raise CheckpointError for layers or widths that the weights of a local folder cannot fill.

    Building such a model, before anything is compared, would take for ever or all memory. Each layer has a tensor, and
    each width a row or a column. Weights that are not there, or not safetensors, are left to whoever loads them.
    """
    if not (folder / config).is_file() or not any(folder.glob(f"{stem}*.safetensors")):
        return
    shapes = StoredWeights(folder, stem).shapes
    refuse_sizes(str(folder), read_json(folder / config), shapes)


def refuse_sizes(source: str, config: Mapping[Any, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """`require_sizes` of a config and the shapes of the weights."""
    numbers = sum(math.prod(shape) for shape in shapes.values())
    for key, value in _sizes(config):
        name = key.rsplit(".", 1)[-1]
        layers = name in _LAYERS
        most = len(shapes) if layers else numbers
        if value > most and (layers or (name.endswith(_WIDTHS) and not name.startswith("max_"))):
            raise CheckpointError(
                f"{source!r} says {key}={value} in its config, but its weights are {len(shapes)} tensors of "
                f"{numbers} numbers.",
                fix="restore the config.json that belongs to these weights.",
            )


def _sizes(config: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, int]]:
    """All whole numbers of a config, by dotted key."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _sizes(value, f"{path}{key}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{path}{key}", value


def save_checkpoint(folder: Path, wrapped: Any, processor: Any) -> None:
    """Weights (or the adapter), configs, tokenizer and processor.

    Raises CheckpointError when they cannot be written.
    """
    try:
        with suppress_hf_output():
            wrapped.save_pretrained(folder)
            processor.save_pretrained(folder)
        _declare_dtype(folder, {parameter.dtype for parameter in wrapped.parameters()})
        for file in folder.glob("*.safetensors"):  # safetensors writes for the owner only
            shutil.copymode(folder / "tokenizer_config.json", file)
    except Exception as error:
        if not is_write_error(error):
            raise
        raise write_error(CheckpointError, repr(str(folder)), error) from error


def _refuse_keys(source: str, verb: str, keys: Collection[str], family: str) -> None:
    if keys:
        named = ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        raise CheckpointError(
            f"{source!r} {verb} weights: {named}.",
            fix=f"give the complete checkpoint of a {family} model in transformers format.",
        )


def _declare_dtype(folder: Path, dtypes: set[torch.dtype]) -> None:
    """Weights that train are float32 beside frozen ones of the checkpoint's type.

    transformers writes the type of the first weight into config.json and casts all to it on loading: name the widest.
    """
    file = folder / "config.json"
    if torch.float32 in dtypes and len(dtypes) > 1 and file.is_file():
        config = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
