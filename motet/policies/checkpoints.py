"""Checkpoint folders in the transformers layout: complete weights in, weights and preprocessing files out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from motet.errors import CheckpointError
from motet.lookup import first_line
from motet.quiet import quiet


def load_model(kind: Any, source: str, dtype: torch.dtype | str) -> tuple[Any, Mapping[str, Any]]:
    """A transformers model of class `kind`, and what its loading report says; see `require_complete`.

    Raises whatever the libraries below raise.
    """
    return kind.from_pretrained(source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)


def require_complete(source: str, found: Mapping[str, Any], family: str) -> None:
    """Raise CheckpointError unless the weights are all there and nothing else is.

    transformers fills gaps with random weights and only warns.
    """
    _refuse_keys(source, "lacks", found["missing_keys"], family)
    _refuse_keys(source, "has unknown", found["unexpected_keys"], family)
    _refuse_keys(source, "has, in another shape,", [key[0] for key in found["mismatched_keys"]], family)


def save_checkpoint(folder: Path, wrapped: Any, processor: Any) -> None:
    """Weights (or the adapter), configs, tokenizer and processor.

    Raises CheckpointError when they cannot be written.
    """
    try:
        with quiet():
            wrapped.save_pretrained(folder)
            processor.save_pretrained(folder)
        _declare_dtype(folder, {parameter.dtype for parameter in wrapped.parameters()})
        for file in folder.glob("*.safetensors"):  # safetensors writes for the owner only
            shutil.copymode(folder / "tokenizer_config.json", file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{str(folder)!r} cannot be written: {first_line(error)}",
            fix="check the disk and the folder's permissions.",
        ) from error


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
