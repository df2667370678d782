"""Folders in DeepSeek's layout of Janus <-> folders of `JanusForConditionalGeneration`.

Tensors stream from the files of one to the shards of the other. Before anything is written, every source tensor has its
one use and every tensor of the target model, built on the meta device, is there in its shape. Bits are copied, never
computed with. Originals that no code reads (`original.py`) go to a file of their own, `UNREAD_FILE`, from which the way
back takes them; without it the way back leaves them out, and DeepSeek's loader fills them with numbers that it ignores.

Run here on narrow models in the published layout only; the public weights were not to be had.
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
from motet.convert.janus_names import Moves, from_original, from_transformers, original_name
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
class Converted:
    """What a conversion did. `layout` is what was written; `unread` counts originals that the model does not use;
    `published` says whether DeepSeek's own code builds this size; `compared` whether bits were read back."""

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
) -> Converted:
    """Convert `source` into the new folder `out`, in the other layout than its own, which its config.json tells.

    `preset`: a size of PRESETS, for an original without a config.json. `compare` reads all that was written back and
    compares bits. Raises CheckpointError for what is no Janus or not a whole one, ConfigError for a preset that does
    not apply, RunFolderError when `out` exists and is not empty.
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
    return Converted(out, *done, compared=compare, seconds=time.monotonic() - start)


def _settings(source: Path, preset: str | None) -> Mapping[str, object]:
    if preset is not None:
        if preset not in original_config.PRESETS:
            known = original_config.PRESETS
            raise ConfigError(
                f"preset={preset!r} is no size.{did_you_mean(preset, known)}",
                fix=f"use {format_first_names(set(known))}.",
            )
        if (source / "config.json").is_file():
            raise ConfigError(f"{str(source)!r} has a config.json of its own.", fix="leave the preset out.")
        return original_config.PRESETS[preset]
    if not (source / "config.json").is_file():
        raise CheckpointError(
            f"{str(source)!r} holds no config.json.",
            fix="give a checkpoint's folder, or name its size as a preset if an original lost its config.",
        )
    return read_json(source / "config.json")


def _to_transformers(
    source: Path, out: Path, settings: Mapping[str, object], compare: bool, shard_bytes: int
) -> tuple[str, int, int, int, bool]:
    stored = StoredWeights(source)
    plan = from_original(stored.shapes)
    _refuse_unknown(stored, plan)
    shapes = {}
    for move in plan.moves:
        if not move.fits(stored.shapes[move.original]):
            raise _misfit(stored, f"holds {move.original} in the shape {stored.shapes[move.original]}")
        shapes |= move.shapes(stored.shapes[move.original])
    processor = read_processor(source)
    ids = _ids(processor)
    config = original_config.to_transformers(str(source), settings, shapes, ids)
    _require_shapes(stored, shapes, _expected(stored, config), original_name)
    processor.num_image_tokens = _image_tokens(config)
    config.dtype = _widest(stored, plan)
    with atomic_dir(out) as partial:
        writer = ShardWriter(partial, shard_bytes)
        for move in plan.moves:
            for name, tensor in move.split(stored.load(move.original)).items():
                writer.add(name, tensor)
        writer.close()
        if plan.unread:
            save_tensors(partial / UNREAD_FILE, {name: stored.load(name).clone() for name in plan.unread})
        with suppress_hf_output():
            config.save_pretrained(partial)
            _generation_config(ids).save_pretrained(partial)
            processor.save_pretrained(partial)
        if compare:
            _compare(stored, StoredWeights(partial), plan)
    published = original_config.is_published(original_config.to_original(str(source), config))
    return "transformers", len(shapes), writer.parameters, len(plan.unread), published


def _to_original(source: Path, out: Path, compare: bool, shard_bytes: int) -> tuple[str, int, int, int, bool]:
    stored = StoredWeights(source)
    plan = from_transformers(stored.shapes)
    _refuse_unknown(stored, plan)
    with suppress_hf_output():
        config = _our_config(source)
    _require_shapes(stored, stored.shapes, _expected(stored, config))
    unread = load_file(source / UNREAD_FILE) if (source / UNREAD_FILE).is_file() else {}
    settings = original_config.to_original(str(source), config)
    dtype = str(_widest(stored, plan)).removeprefix("torch.")
    with atomic_dir(out) as partial:
        writer = ShardWriter(partial, shard_bytes)
        for move in plan.moves:
            writer.add(move.original, move.fuse([stored.load(name) for name in move.ours]))
        parameters = writer.parameters
        for name, tensor in unread.items():
            writer.add(name, tensor)
        writer.close()
        write_json(partial / "config.json", {**settings, "torch_dtype": dtype})
        write_processor(source, partial, _image_tokens(config))
        if compare:
            _compare(StoredWeights(partial), stored, plan)
    return "original", len(plan.moves), parameters, len(unread), original_config.is_published(settings)


def _our_config(source: Path) -> JanusConfig:
    try:
        return JanusConfig.from_pretrained(str(source))
    except Exception as error:  # transformers' strict dataclasses have their own kinds
        raise CheckpointError(
            f"{str(source)!r} has a config.json that cannot be read: {first_line(error).rstrip('.')}.",
            fix="restore the file.",
        ) from error


def _image_tokens(config: JanusConfig) -> int:
    vision: Any = config.vision_config
    return vision.num_image_tokens


def _ids(processor: Any) -> dict[str, int]:
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
    """Fresh, because what is added to a config that was derived from a model is lost on reload."""
    return GenerationConfig(
        bos_token_id=ids["bos"],
        eos_token_id=ids["eos"],
        pad_token_id=ids["pad"],
        generation_kwargs={"boi_token_id": ids["begin_image"]},
    )


def _expected(stored: Weights, config: JanusConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the model that a config describes, built without memory."""
    refuse_sizes(stored.source, config.to_dict(), stored.shapes)
    try:
        with suppress_hf_output(), torch.device("meta"):
            model = JanusForConditionalGeneration(config)
    except Exception as error:  # sizes that no model has: torch and transformers each have their kinds
        raise _misfit(stored, f"describes a model that cannot be built: {first_line(error).rstrip('.')}") from error
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _widest(stored: Weights, plan: Moves) -> torch.dtype:
    names = (name for move in plan.moves for name in (move.original, *move.ours) if name in stored.dtypes)
    return reduce(torch.promote_types, {stored.dtypes[name] for name in names})


def _compare(originals: Weights, ours: Weights, plan: Moves) -> None:
    """Every original, once more from both folders, bit by bit (NaN equals itself)."""
    for move in plan.moves:
        one, two = originals.load(move.original), move.fuse([ours.load(name) for name in move.ours])
        if one.dtype != two.dtype or not torch.equal(_bits(one), _bits(two)):
            raise _misfit(originals, f"and {ours.source!r} differ in {move.original} after writing")


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def _refuse_unknown(stored: Weights, plan: Moves) -> None:
    if plan.unknown:
        raise _misfit(
            stored, f"holds {len(plan.unknown)} tensors that no Janus has: {format_first_names(list(plan.unknown))}"
        )
    if plan.halved:
        raise _misfit(
            stored, f"holds only a part of {format_first_names(list(plan.halved))} (q, k and v belong together)"
        )


def _require_shapes(
    stored: Weights,
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    named: Callable[[str], str] = str,
) -> None:
    """Refuse what is missing, too much, or of another shape; `named` turns our names into the source's."""
    both = found.keys() & expected.keys()
    for problem, wrong in (
        ("lacks", {named(name) for name in expected.keys() - both}),
        ("has, beyond its config,", {named(name) for name in found.keys() - both}),
        (
            "has, in another shape than its config says,",
            {f"{named(name)} {found[name]}, not {expected[name]}" for name in both if found[name] != expected[name]},
        ),
    ):
        if wrong:
            raise _misfit(stored, f"{problem} {len(wrong)} tensors: {format_first_names(wrong)}")


def _misfit(stored: Weights, problem: str) -> CheckpointError:
    return CheckpointError(f"{stored.source!r} {problem}.", fix="give a complete checkpoint of Janus or Janus-Pro.")
