"""Convert Janus folders between DeepSeek's layout and that of `JanusForConditionalGeneration`.

Tensors are streamed from the files of one to the shards of the other. Before anything is written, every source tensor
must have exactly one use, and every tensor of the target model (built on the meta device) must exist in its shape. Bits
are copied, never computed with. Original tensors that no code uses (see `janus_names`) are saved in `UNREAD_FILE`; the
reverse conversion restores them from it, or leaves them out if it is missing, and DeepSeek's loader then initialises
them randomly, without effect.

Tested on narrow models in the published layout only, not on the public weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, JanusConfig, JanusForConditionalGeneration

from motet.convert import janus_config as original_config
from motet.convert.janus_names import LayoutMapping, from_original, from_transformers, original_name
from motet.convert.janus_processor import read_processor, write_processor
from motet.core.errors import CheckpointError, ConfigError
from motet.core.registry import did_you_mean, first_line
from motet.policies.checkpoints import refuse_sizes
from motet.weights.hf_output import suppress_hf_output
from motet.weights.safetensors_io import (
    SHARD_BYTES,
    ShardWriter,
    StoredWeights,
    Weights,
    atomic_dir,
    format_first_names,
    read_json,
    save_tensors,
    write_json,
)

UNREAD_FILE = "original_unread.safetensors"


@dataclass(frozen=True)
class ConversionResult:
    """What a conversion did.

    `layout` is the one that was written. `unread` counts original tensors that the model does not use. `published` says
    whether DeepSeek's code supports this size, `compared` whether the result was read back and compared.
    """

    folder: Path
    layout: str
    tensors: int
    parameters: int
    unread: int
    published: bool
    compared: bool
    seconds: float


def convert_folder(
    source: Path, out: Path, *, preset: str | None = None, compare: bool = False, shard_bytes: int = SHARD_BYTES
) -> ConversionResult:
    """Convert `source`, whose layout is detected from its config.json, into the other layout in the new folder `out`.

    `preset`: a size of PRESETS, for a folder in DeepSeek's layout without a config.json. With `compare` everything is
    read back and compared bit by bit. Raises CheckpointError if `source` is not a complete Janus, ConfigError if the
    preset does not apply, RunFolderError if `out` exists and is not empty.
    """
    start = time.monotonic()
    settings = _settings(source, preset)
    if settings.get("model_type") == "multi_modality":
        done = _to_transformers(source, out, settings, compare, shard_bytes)
    elif settings.get("model_type") == "janus":
        done = _to_original(source, out, compare, shard_bytes)
    else:
        raise CheckpointError(
            f"{str(source)!r} is a {settings.get('model_type')!r} model, not a Janus.",
            fix="give a Janus or Janus-Pro checkpoint, in DeepSeek's layout (multi_modality) or transformers' (janus).",
        )
    return ConversionResult(out, *done, compared=compare, seconds=time.monotonic() - start)


def _settings(source: Path, preset: str | None) -> Mapping[str, object]:
    if preset is not None:
        if preset not in original_config.PRESETS:
            known = original_config.PRESETS
            raise ConfigError(
                f"preset={preset!r} is not a known preset.{did_you_mean(preset, known)}",
                fix=f"use {format_first_names(set(known))}.",
            )
        if (source / "config.json").is_file():
            raise ConfigError(f"{str(source)!r} has its own config.json.", fix="leave out the preset.")
        return original_config.PRESETS[preset]
    if not (source / "config.json").is_file():
        raise CheckpointError(
            f"{str(source)!r} does not contain a config.json.",
            fix="give a checkpoint folder, or the preset of its size if it is in DeepSeek's layout without a config.",
        )
    return read_json(source / "config.json")


def _to_transformers(
    source: Path, out: Path, settings: Mapping[str, object], compare: bool, shard_bytes: int
) -> tuple[str, int, int, int, bool]:
    stored = StoredWeights(source)
    mapping = from_original(stored.shapes)
    _check_names(stored, mapping)
    shapes = {}
    for entry in mapping.entries:
        if not entry.fits(stored.shapes[entry.original]):
            raise _error(stored, f"contains {entry.original} in the unexpected shape {stored.shapes[entry.original]}")
        shapes |= entry.shapes(stored.shapes[entry.original])
    processor = read_processor(source)
    ids = _special_token_ids(processor)
    config = original_config.to_transformers(str(source), settings, shapes, ids)
    _check_shapes(stored, shapes, _expected_shapes(stored, config), original_name)
    processor.num_image_tokens = _image_tokens(config)
    config.dtype = _widest_dtype(stored, mapping)
    with atomic_dir(out) as partial:
        writer = ShardWriter(partial, shard_bytes)
        for entry in mapping.entries:
            for name, tensor in entry.split(stored.load(entry.original)).items():
                writer.add(name, tensor)
        writer.close()
        if mapping.unread:
            save_tensors(partial / UNREAD_FILE, {name: stored.load(name).clone() for name in mapping.unread})
        with suppress_hf_output():
            config.save_pretrained(partial)
            _generation_config(ids).save_pretrained(partial)
            processor.save_pretrained(partial)
        if compare:
            _compare_bits(stored, StoredWeights(partial), mapping)
    published = original_config.is_published(original_config.to_original(str(source), config))
    return "transformers", len(shapes), writer.parameters, len(mapping.unread), published


def _to_original(source: Path, out: Path, compare: bool, shard_bytes: int) -> tuple[str, int, int, int, bool]:
    stored = StoredWeights(source)
    mapping = from_transformers(stored.shapes)
    _check_names(stored, mapping)
    with suppress_hf_output():
        config = _load_config(source)
    _check_shapes(stored, stored.shapes, _expected_shapes(stored, config))
    unread = load_file(source / UNREAD_FILE) if (source / UNREAD_FILE).is_file() else {}
    settings = original_config.to_original(str(source), config)
    dtype = str(_widest_dtype(stored, mapping)).removeprefix("torch.")
    with atomic_dir(out) as partial:
        writer = ShardWriter(partial, shard_bytes)
        for entry in mapping.entries:
            writer.add(entry.original, entry.fuse([stored.load(name) for name in entry.ours]))
        parameters = writer.parameters
        for name, tensor in unread.items():
            writer.add(name, tensor)
        writer.close()
        write_json(partial / "config.json", {**settings, "torch_dtype": dtype})
        write_processor(source, partial, _image_tokens(config))
        if compare:
            _compare_bits(StoredWeights(partial), stored, mapping)
    return "original", len(mapping.entries), parameters, len(unread), original_config.is_published(settings)


def _load_config(source: Path) -> JanusConfig:
    try:
        return JanusConfig.from_pretrained(str(source))
    except Exception as error:  # transformers' strict dataclasses raise their own errors
        raise CheckpointError(
            f"{str(source)!r} has a config.json that cannot be read: {first_line(error).rstrip('.')}.",
            fix="restore the file.",
        ) from error


def _image_tokens(config: JanusConfig) -> int:
    vision: Any = config.vision_config
    return vision.num_image_tokens


def _special_token_ids(processor: Any) -> dict[str, int]:
    tokenizer = processor.tokenizer
    names = {
        "bos": tokenizer.bos_token,
        "eos": tokenizer.eos_token,
        "pad": tokenizer.pad_token,
        "image": tokenizer.image_token,
        "begin_image": tokenizer.boi_token,
    }
    return {role: int(tokenizer.convert_tokens_to_ids(token)) for role, token in names.items()}


def _generation_config(ids: Mapping[str, int]) -> GenerationConfig:
    """A new one, because changes to a config that was derived from a model are lost on reload."""
    return GenerationConfig(
        bos_token_id=ids["bos"],
        eos_token_id=ids["eos"],
        pad_token_id=ids["pad"],
        generation_kwargs={"boi_token_id": ids["begin_image"]},
    )


def _expected_shapes(stored: Weights, config: JanusConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of the model that a config describes, built without memory."""
    refuse_sizes(stored.source, config.to_dict(), stored.shapes)
    try:
        with suppress_hf_output(), torch.device("meta"):
            model = JanusForConditionalGeneration(config)
    except Exception as error:  # impossible sizes: torch and transformers each raise their own errors
        raise _error(stored, f"describes a model that cannot be built: {first_line(error).rstrip('.')}") from error
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _widest_dtype(stored: Weights, mapping: LayoutMapping) -> torch.dtype:
    names = (name for entry in mapping.entries for name in (entry.original, *entry.ours) if name in stored.dtypes)
    return reduce(torch.promote_types, {stored.dtypes[name] for name in names})


def _compare_bits(originals: Weights, ours: Weights, mapping: LayoutMapping) -> None:
    """Raise CheckpointError unless every original tensor is equal, bit by bit (NaN equals itself), in both folders."""
    for entry in mapping.entries:
        original, converted = originals.load(entry.original), entry.fuse([ours.load(name) for name in entry.ours])
        if original.dtype != converted.dtype or not torch.equal(_bits(original), _bits(converted)):
            raise _error(originals, f"and {ours.source!r} differ in {entry.original} after writing")


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def _check_names(stored: Weights, mapping: LayoutMapping) -> None:
    if mapping.unknown:
        raise _error(
            stored,
            f"contains {len(mapping.unknown)} tensors that are not part of a Janus: "
            f"{format_first_names(list(mapping.unknown))}",
        )
    if mapping.incomplete:
        raise _error(
            stored,
            f"contains only a part of {format_first_names(list(mapping.incomplete))} (q, k and v belong together)",
        )


def _check_shapes(
    stored: Weights,
    shapes: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    source_name: Callable[[str], str] = str,
) -> None:
    """Raise CheckpointError for missing, surplus or misshapen tensors; `source_name` maps names to the source's."""
    both = shapes.keys() & expected.keys()
    misshapen = [name for name in both if shapes[name] != expected[name]]
    for problem, wrong in (
        ("lacks", {source_name(name) for name in expected.keys() - both}),
        ("contains, in addition to those of its config,", {source_name(name) for name in shapes.keys() - both}),
        (
            "contains, in another shape than its config gives,",
            {f"{source_name(name)} {shapes[name]}, not {expected[name]}" for name in misshapen},
        ),
    ):
        if wrong:
            raise _error(stored, f"{problem} {len(wrong)} tensors: {format_first_names(wrong)}")


def _error(stored: Weights, problem: str) -> CheckpointError:
    return CheckpointError(f"{stored.source!r} {problem}.", fix="give a complete checkpoint of Janus or Janus-Pro.")
