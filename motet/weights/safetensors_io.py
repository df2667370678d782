"""Read and write checkpoint weights tensor by tensor, with shards and their index, and write folders atomically.

While reading, only the requested tensor is in memory, while writing at most one shard. Reads safetensors and
`pytorch_model*.bin` (torch's zip format, weights only, no pickled code); writes safetensors.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from motet.core.atomic_files import sync_folder, sync_tree
from motet.core.errors import CheckpointError, MotetError, RunFolderError
from motet.core.registry import first_line
from motet.core.write_errors import write_error
from motet.weights.locate import CHECKSUMS, TRAINER_STATE

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 2_000_000_000
"""Default size of an output shard in bytes, which is about the memory that writing takes."""
_WEIGHT_FILES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx"}
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def is_write_error(error: Exception) -> bool:
    """Whether a file could not be written. `tokenizers` raises plain exceptions with the text of the system's error."""
    told = isinstance(error, MotetError)
    return not told and (isinstance(error, OSError | SafetensorError) or "(os error " in str(error))


@runtime_checkable
class Weights(Protocol):
    """Named tensors that are loaded one at a time. `shapes` and `dtypes` list all of them without loading any."""

    @property
    def source(self) -> str: ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]: ...

    def load(self, name: str) -> Tensor:
        """The tensor of that name, on the CPU."""
        ...


class StoredWeights:
    """The weights of a checkpoint folder: `stem`.safetensors, its shards, or `pytorch_model*.bin`."""

    def __init__(self, folder: Path, stem: str = "model") -> None:
        """Raises CheckpointError if the folder has no weights, or if its index and files disagree."""
        self.source = str(folder)
        self.folder = folder
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self._file: dict[str, Path] = {}
        self._pickled: tuple[Path, dict[str, Tensor]] | None = None
        files, weight_map = _files(folder, stem)
        for file in files:
            self._add(file)
        if weight_map is not None and weight_map != {name: file.name for name, file in self._file.items()}:
            odd = sorted(set(weight_map.items()) ^ {(name, file.name) for name, file in self._file.items()})[0][0]
            raise _unreadable(folder, f"its index and its files disagree about {odd!r}")

    def load(self, name: str) -> Tensor:
        file = self._file[name]
        if file.suffix == ".bin":
            return self._load_bin(file)[name]
        with _as_checkpoint_error(file), safe_open(str(file), framework="pt") as stored:
            return stored.get_tensor(name)

    def _add(self, file: Path) -> None:
        headers: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        if file.suffix == ".bin":
            headers = {name: (tuple(t.shape), t.dtype) for name, t in self._load_bin(file).items()}
        else:
            with _as_checkpoint_error(file), safe_open(str(file), framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118  not a mapping: it only has keys()
                    part = stored.get_slice(name)
                    headers[name] = (tuple(part.get_shape()), _DTYPES[part.get_dtype()])
        for name, (shape, dtype) in headers.items():
            if name in self._file:
                raise _unreadable(file.parent, f"{name!r} is stored twice, in {self._file[name].name} and {file.name}")
            self._file[name], self.shapes[name], self.dtypes[name] = file, shape, dtype

    def _load_bin(self, file: Path) -> dict[str, Tensor]:
        """Memory-map one file at a time: a tensor is read from disk when it is used."""
        if self._pickled is None or self._pickled[0] != file:
            with _as_checkpoint_error(file):
                content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
                raise _unreadable(file, "it is not a dictionary of tensors")
            self._pickled = (file, content)
        return self._pickled[1]


class ShardWriter:
    """Writes tensors into shards of at most `limit` bytes (a larger tensor has a shard of its own).

    The files are `model.safetensors`, or `model-00001-of-00003.safetensors` and so on with their index, as transformers
    names them. A shard is held in memory until it is full.
    """

    def __init__(self, folder: Path, limit: int = SHARD_BYTES) -> None:
        self.folder, self.limit = folder, limit
        self.dtypes: set[torch.dtype] = set()
        self.parameters = 0
        self._shard: dict[str, Tensor] = {}
        self._bytes = self._total = 0
        self._shards: list[list[str]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a tensor; it is copied, so it may be a view."""
        if self._shard and self._bytes + tensor.nbytes > self.limit:
            self._flush()
        self._shard[name] = tensor.clone(memory_format=torch.contiguous_format)
        self._bytes += tensor.nbytes
        self._total += tensor.nbytes
        self.parameters += tensor.numel()
        self.dtypes.add(tensor.dtype)

    def close(self) -> None:
        """Write the last shard, rename the shards, and write the index."""
        self._flush()
        count = len(self._shards)
        if count == 1:
            os.replace(self._part(0), self.folder / "model.safetensors")
            return
        weight_map = {}
        for index, names in enumerate(self._shards):
            file = f"model-{index + 1:05d}-of-{count:05d}.safetensors"
            os.replace(self._part(index), self.folder / file)
            weight_map |= dict.fromkeys(names, file)
        metadata = {"total_parameters": self.parameters, "total_size": self._total}
        write_json(self.folder / INDEX, {"metadata": metadata, "weight_map": weight_map})

    def _flush(self) -> None:
        save_tensors(self._part(len(self._shards)), self._shard)
        self._shards.append(list(self._shard))
        self._shard, self._bytes = {}, 0

    def _part(self, index: int) -> Path:
        return self.folder / f".part_{index:05d}"


def save_tensors(file: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file with the metadata that transformers expects and the process's default permissions."""
    save_file(tensors, str(file), metadata={"format": "pt", **(metadata or {})})
    probe = file.with_name(".mode")
    probe.touch()
    shutil.copymode(probe, file)  # safetensors ignores the umask and writes for the owner only
    probe.unlink()


@contextmanager
def atomic_dir(target: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` if the `with` block succeeds and removed if it raises.

    Raises RunFolderError if `target` exists and is not empty, CheckpointError if it cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunFolderError(f"{str(target)!r} exists and is not empty.", fix="choose a new folder.")
    partial = target.absolute().with_name(f".partial_{target.absolute().name}")
    try:
        if partial.exists():
            shutil.rmtree(partial)  # left by a killed process
        partial.mkdir(parents=True)
        yield partial
        sync_tree(partial)
        if target.exists():
            target.rmdir()
        os.replace(partial, target)
        sync_folder(target.absolute().parent)
    except (OSError, SafetensorError) as error:
        raise write_error(CheckpointError, repr(str(target)), error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy_settings(source: Path, target: Path) -> None:
    """Copy everything but weights and training state: configs, tokenizer, processor, chat templates."""
    for path in sorted(source.iterdir()):
        if path.is_dir():
            if path.name == "additional_chat_templates":
                shutil.copytree(path, target / path.name, dirs_exist_ok=True)
        elif (
            not (path.suffix in _WEIGHT_FILES or path.name.endswith(".index.json")) and path.name not in _EXCLUDED_FILES
        ):
            shutil.copyfile(path, target / path.name)


_EXCLUDED_FILES = {TRAINER_STATE, CHECKSUMS, "adapter_config.json", ".gitattributes"}


def read_json(file: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    """A JSON object; with `missing_ok`, an empty one if there is no file. Raises CheckpointError naming the file."""
    if missing_ok and not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(file, first_line(error).rstrip(".")) from error
    if not isinstance(content, dict):
        raise _unreadable(file, f"it contains a {type(content).__name__} instead of an object")
    return content


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write an indented JSON object."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def format_first_names(names: Iterator[str] | list[str] | set[str], most: int = 3) -> str:
    """`a, b, c and 4 more`, for messages."""
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


def _files(folder: Path, stem: str) -> tuple[list[Path], dict[str, str] | None]:
    if not folder.is_dir():
        raise CheckpointError(f"{str(folder)!r} is not a folder.", fix="check the path.")
    for single, index in (
        (f"{stem}.safetensors", f"{stem}.safetensors.index.json"),
        ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    ):
        if (folder / single).is_file():
            return [folder / single], None
        if (folder / index).is_file():
            weight_map = read_json(folder / index).get("weight_map")
            if not isinstance(weight_map, dict) or any(Path(file).name != file for file in weight_map.values()):
                raise _unreadable(folder / index, "its weight_map does not map tensors to files of that folder")
            return [folder / file for file in sorted(set(weight_map.values()))], weight_map
    raise CheckpointError(
        f"{str(folder)!r} contains no weights: neither {stem}.safetensors nor its index.",
        fix="give a checkpoint folder written by save_pretrained.",
    )


@contextmanager
def _as_checkpoint_error(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors, torch and pickle each raise their own errors for a broken file
        raise _unreadable(file, first_line(error).rstrip(".")) from error


def _unreadable(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{str(path)!r} cannot be read: {why}.", fix="restore the file, or download it again.")
