"""Sources of raw rows: a registered source, a Python object, a file, a folder saved by datasets, or the hub."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from motet.config.schema import MIXTURE, DataConfig
from motet.core.errors import ConfigError, DataError, MotetError
from motet.core.registry import Registry, did_you_mean, first_line, is_object_path, registry
from motet.data.files import SUFFIXES, Row, kind_of, read_dataset, read_rows, unreadable
from motet.data.from_datasets import from_dataset
from motet.data.hub import open_hub
from motet.data.source import Source

CONVERSATIONS = ("prompt", "question", "instruction", "inverse")
"""Columns that become conversations: a string or chat messages, never empty in a row that a scenario uses."""
GOLDS = ("answer", "solution")
"""Columns that CSV and TSV files contain as text or numbers, besides those of `data.targets`."""


WITH_TEST_SPLIT = ("shapes", "words", "easy_vqa", "reasoning_gym")
"""Built-in sources whose split `test` is disjoint from the others."""

SOURCES: Registry[Any] = registry("data")
"""An entry is a list of rows (mappings), a `datasets.Dataset` or `DatasetDict`, or a function of (`DataConfig`, seed)
that returns one of those or a `Source`."""


def has_splits(source: str) -> bool:
    """Whether `data.split` chooses part of a `data.source`: not of one file, a list of rows or one Dataset."""
    if is_file(source):
        return False
    if source == MIXTURE:
        return True
    entry = _registered(source)
    return entry is None or callable(entry) or type(entry).__name__ == "DatasetDict"


def is_file(source: str) -> bool:
    """Whether a `data.source` means one file, which has no splits."""
    path = Path(source).expanduser()
    return kind_of(path) in SUFFIXES or path.is_file()


def open_source(config: DataConfig, seed: int, images: Collection[str]) -> Source:
    """Open `config.source`. `images` are raw columns with images: datasets must not decode them itself.

    Raises DataError for what cannot be read, ConfigError for settings that the kind of source does not have.
    """
    entry = _registered(config.source)
    if entry is not None:
        return _open_registered(entry, config, seed, images)
    path = Path(config.source).expanduser()
    if is_file(config.source):
        return _open_file(path, config, images)
    if path.is_dir() and any((path / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
        return _open_saved(path, config, images)
    return open_hub(config, seed, images)


def _registered(source: str) -> Any | None:
    """What a registered name, or the path of a Python object, stands for; None for a file, a folder and a hub id."""
    if is_file(source):
        return None
    return SOURCES.find(source) if is_object_path(source) else SOURCES.get(source)


def _open_registered(entry: Any, config: DataConfig, seed: int, images: Collection[str]) -> Source:
    name = config.source.rpartition(":")[2]
    rows: Any = entry
    if callable(entry):
        try:
            rows = entry(config, seed)
        except MotetError:
            raise
        except Exception as error:
            problem = f"data.source={config.source!r} raised {first_line(error)}."
            raise DataError(problem, fix="correct the function; it is called with (config, seed).") from error
    if isinstance(rows, Source):
        return rows
    if not callable(entry):
        _check_no_options(config, name)
    if type(rows).__name__ == "DatasetDict":
        rows = _split_of(rows, config.split, name)
    elif not callable(entry) and config.split != "train":
        raise ConfigError(f"data.split={config.split!r}, but {name} has no splits.", fix="leave data.split out.")
    if type(rows).__module__.partition(".")[0] == "datasets":
        return from_dataset(rows, name, Path.cwd(), images)
    if isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows):
        return _from_list([dict(row) for row in rows], name)
    raise DataError(
        f"data.source={config.source!r} is {rows!r:.80}; expected a list of rows (mappings) or a datasets.Dataset.",
        fix='give rows such as [{"question": "1 + 1?", "answer": "2"}], or a function of (config, seed) that '
        "returns them.",
    )


def _from_list(rows: Sequence[Row], name: str) -> Source:
    """Rows in memory. Images among them may be PIL images."""
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    empty = dict.fromkeys(columns)  # as for files: a row that lacks a column has None there

    def texts() -> Iterator[Row]:
        for row in rows:
            yield {column: value for column, value in (empty | row).items() if not _holds_images(value)}

    return Source(
        name, columns, len(rows), Path.cwd(), lambda i: empty | rows[i], lambda i: f"Row {i} of {name}", texts
    )


def _holds_images(value: Any) -> bool:
    return isinstance(value, Image.Image) or (isinstance(value, list) and any(_holds_images(item) for item in value))


def _open_shapes(config: DataConfig, seed: int) -> Source:
    from motet.shapes.world import open_world

    world = open_world(config.split, seed, config.options, config.size)
    return _generated(f"the shapes world ({config.split})", world.row, config.size)


def _open_words(config: DataConfig, seed: int) -> Source:
    from motet.words.world import WordsRows

    return _generated(f"words ({config.split})", WordsRows(config.split, seed, config.options).row, config.size)


def _generated(name: str, row: Callable[[int], Row], size: int | None) -> Source:
    """Rows that a function of the index makes."""
    return Source(
        name, tuple(row(0)), size, Path.cwd(), row, lambda i: f"Row {i} of {name}", lambda: iter(()), generated=True
    )


SOURCES.add("shapes", _open_shapes)
SOURCES.add("words", _open_words)


def _open_easy_vqa(config: DataConfig, seed: int) -> Source:
    from motet.data.easy_vqa import open_easy_vqa

    return open_easy_vqa(config, seed)


SOURCES.add("easy_vqa", _open_easy_vqa)


def _open_reasoning_gym(config: DataConfig, seed: int) -> Source:
    from motet.data.reasoning_gym import open_reasoning_gym

    return open_reasoning_gym(config, seed)


SOURCES.add("reasoning_gym", _open_reasoning_gym)


def _open_file(path: Path, config: DataConfig, images: Collection[str]) -> Source:
    if kind_of(path) not in SUFFIXES:
        raise DataError(
            f"data.source={str(path)!r} has an unknown file type.",
            fix=f"use one of {', '.join(SUFFIXES)}; pandas converts others, e.g. "
            f'pandas.read_excel({path.name!r}).to_json("rows.jsonl", orient="records", lines=True).',
        )
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*") if kind_of(p) in SUFFIXES]
        raise DataError(
            f"data.source={str(path)!r} does not exist (looked at {path.resolve()}).{did_you_mean(path.name, near)}",
            fix="give the path of a file, relative to the current folder.",
        )
    _check_no_options(config, path.name)
    if config.split != "train":
        raise ConfigError(
            f"data.split={config.split!r}, but the file {path.name} has no splits.",
            fix="give the split's own file as data.source, and leave data.split out.",
        )
    if kind_of(path) in (".parquet", ".tar") or kind_of(path).startswith((".csv", ".tsv")):
        texts, golds = (
            {config.columns.get(column, column) for column in columns}
            for columns in (CONVERSATIONS, (*GOLDS, *config.targets.values(), *config.rejected.values()))
        )
        return from_dataset(read_dataset(path, texts, golds), path.name, path.parent, images)
    rows, places = read_rows(path)
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    empty = dict.fromkeys(columns)  # a row that lacks a column has None there, as datasets does it

    def read(i: int) -> Row:
        return empty | rows[i]

    return Source(
        path.name, columns, len(rows), path.parent, read, places.__getitem__, lambda: map(read, range(len(rows)))
    )


def _open_saved(path: Path, config: DataConfig, images: Collection[str]) -> Source:
    from datasets import DatasetDict, load_from_disk

    _check_no_options(config, path.name)
    try:
        dataset = load_from_disk(str(path))
    except Exception as error:
        raise unreadable(path, error) from error
    if isinstance(dataset, DatasetDict):
        dataset = _split_of(dataset, config.split, path.name)
    elif config.split not in ("train", str(dataset.split)):
        raise ConfigError(
            f"data.split={config.split!r}, but {path.name} was saved without splits.", fix="leave data.split out."
        )
    return from_dataset(dataset, path.name, path, images)


def _split_of(dataset: Mapping[Any, Any], split: str, name: str) -> Any:
    if split not in dataset:
        raise DataError(
            f"{name} has no split {split!r}; it has: {', '.join(map(str, dataset))}.",
            fix="set data.split to one of them.",
        )
    return dataset[split]


def _check_no_options(config: DataConfig, name: str) -> None:
    if config.options:
        raise ConfigError(
            f"data.options={dict(config.options)} is not supported by {name}.",
            fix="remove data.options: it belongs to the shapes world and to hub datasets.",
        )
