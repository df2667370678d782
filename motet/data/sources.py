"""Where raw rows come from: the shapes world, a file, a folder saved by datasets, or the hub."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motet.config.schema import HUB_OPTIONS, DataConfig
from motet.errors import ConfigError, DataError
from motet.hub import why_missing
from motet.lookup import did_you_mean, first_line

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Source:
    """Random access to raw rows: their columns as stored, pictures not yet read.

    `size` None: endless. `folder` is what path strings of pictures are relative to. `place(i)` says where row i stands.
    """

    name: str
    columns: tuple[str, ...]
    size: int | None
    folder: Path
    read: Callable[[int], Row]
    place: Callable[[int], str]


def is_file(source: str) -> bool:
    """Whether a `data.source` means one file, which has no splits."""
    path = Path(source).expanduser()
    return path.suffix.lower() in SUFFIXES or path.is_file()


def open_source(config: DataConfig, seed: int, pictures: Collection[str]) -> Source:
    """Open `config.source`. `pictures` are raw columns that hold pictures: datasets must not decode them itself.

    Raises DataError for what cannot be read, ConfigError for settings that the kind of source does not have.
    """
    if config.source == "shapes":
        return _open_shapes(config, seed)
    path = Path(config.source).expanduser()
    if is_file(config.source):
        return _open_file(path, config, pictures)
    if path.is_dir() and any((path / mark).is_file() for mark in ("state.json", "dataset_dict.json")):
        return _open_saved(path, config, pictures)
    return _open_hub(config, pictures)


def _open_shapes(config: DataConfig, seed: int) -> Source:
    from motet.shapes.world import ShapesRows

    world = ShapesRows(config.split, seed, config.options, config.size)
    columns = tuple(world.row(0))
    name = f"the shapes world ({config.split})"
    return Source(name, columns, config.size, Path.cwd(), world.row, lambda i: f"Row {i} of {name}")


def _open_file(path: Path, config: DataConfig, pictures: Collection[str]) -> Source:
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"data.source={str(path)!r} is of no known kind.", fix=f"use one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        near = [p.name for p in path.parent.glob("*") if p.suffix in SUFFIXES]
        raise DataError(
            f"data.source={str(path)!r} does not exist (looked at {path.resolve()}).{did_you_mean(path.name, near)}",
            fix="give the path of a file, relative to the current folder.",
        )
    _refuse_options(config, path.name)
    if config.split != "train":
        raise ConfigError(
            f"data.split={config.split!r}, but the file {path.name} has no splits.",
            fix="give the split's own file as data.source, and leave data.split out.",
        )
    if path.suffix.lower() == ".parquet":
        return _from_dataset(_read_parquet(path), path.name, path.parent, pictures)
    if path.suffix.lower() == ".csv":
        return _from_dataset(_read_csv(path), path.name, path.parent, pictures)
    rows, places = read_json(path)
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    blank = dict.fromkeys(columns)  # a row that lacks a column has None there, as datasets does it
    return Source(path.name, columns, len(rows), path.parent, lambda i: blank | rows[i], places.__getitem__)


def read_json(path: Path) -> tuple[list[Row], list[str]]:
    """Rows of a file with one JSON object per line, or with one JSON array of objects; and where each row stands."""
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if path.suffix.lower() == ".json" and data.lstrip().startswith(b"["):
        rows = _parse(data, path.name)
        places = [f"Item {number} of {path.name}" for number in range(len(rows))]
    else:
        lines = [(n, line) for n, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
        places = [f"Line {number} of {path.name}" for number, _ in lines]
        rows = [_parse(line, place) for place, (_, line) in zip(places, lines, strict=True)]
    for row, place in zip(rows, places, strict=True):
        if not isinstance(row, dict):
            raise DataError(f"{place} is a {type(row).__name__}, not an object.", fix='write {"column": value, ...}.')
    return rows, places


def _parse(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise DataError(
            f"{where} is not valid JSON: {first_line(error)}.",
            fix="write one JSON object per line (.jsonl), or one array of objects (.json), in UTF-8.",
        ) from error


def _read_parquet(path: Path) -> Any:
    from datasets import Dataset

    try:
        return Dataset.from_parquet(str(path))
    except Exception as error:
        raise _unreadable(path, error) from error


def _read_csv(path: Path) -> Any:
    """A CSV file with typed columns. By pyarrow: pandas, which datasets uses, turns answers like `NA` into nulls."""
    import pyarrow.csv
    from datasets import Dataset

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
        table = pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    except Exception as error:
        raise _unreadable(path, error) from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path.name} has two columns called {twice[0]!r}.", fix="rename one in the header line.")
    return Dataset(table)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path.name} cannot be read: {first_line(error)}.", fix=f"mend the file {path.resolve()}.")


def _open_saved(path: Path, config: DataConfig, pictures: Collection[str]) -> Source:
    from datasets import DatasetDict, load_from_disk

    _refuse_options(config, path.name)
    try:
        dataset = load_from_disk(str(path))
    except Exception as error:
        raise _unreadable(path, error) from error
    if isinstance(dataset, DatasetDict):
        if config.split not in dataset:
            raise DataError(
                f"{path.name} has no split {config.split!r}; it has: {', '.join(map(str, dataset))}.",
                fix="set data.split to one of them.",
            )
        dataset = dataset[config.split]
    elif config.split not in ("train", str(dataset.split)):
        raise ConfigError(
            f"data.split={config.split!r}, but {path.name} was saved without splits.", fix="leave data.split out."
        )
    return _from_dataset(dataset, path.name, path, pictures)


def _open_hub(config: DataConfig, pictures: Collection[str]) -> Source:
    import datasets

    name, local = config.source, Path(config.source).expanduser()
    missing = why_missing(name, "data", "dataset") if "/" in name else None
    if missing is not None:
        raise DataError(
            f"data.source={name!r}: {missing}",
            fix=f"give a {', '.join(SUFFIXES)} file, a folder saved by datasets, a hub id, or `shapes`.",
        )
    for option in config.options:
        if option not in HUB_OPTIONS:
            raise ConfigError(
                f"data.options has an unknown key {option!r}.{did_you_mean(option, HUB_OPTIONS)}",
                fix=f"of a hub dataset one may set {', '.join(HUB_OPTIONS)}.",
            )
    try:
        dataset = datasets.load_dataset(str(local) if local.exists() else name, split=config.split, **config.options)
    except Exception as error:
        raise DataError(
            f"data.source={name!r}, split {config.split!r}, cannot be loaded: {first_line(error)}."
            f"{did_you_mean(name, ['shapes'])}",
            fix="check the hub id, data.split, data.options.name (the configuration) and the network.",
        ) from error
    return _from_dataset(dataset, name, Path.cwd(), pictures)


def _from_dataset(dataset: Any, name: str, folder: Path, pictures: Collection[str]) -> Source:
    """Rows of a `datasets.Dataset`, which memory-maps them. Pictures stay encoded until motet reads them."""
    from datasets import Image, List

    for column in pictures:
        feature = dataset.features.get(column)
        if isinstance(feature, Image):
            dataset = dataset.cast_column(column, Image(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Image):
            dataset = dataset.cast_column(column, List(Image(decode=False)))
    dataset = dataset.with_format(None)

    def read(index: int) -> Row:
        try:
            return dataset[index]
        except Exception as error:
            raise DataError(
                f"{place(index)} cannot be read: {first_line(error)}.", fix="mend or remove the row."
            ) from error

    def place(index: int) -> str:
        return f"Row {index} of {name}"

    return Source(name, tuple(dataset.column_names), len(dataset), folder, read, place)


def _refuse_options(config: DataConfig, name: str) -> None:
    if config.options:
        raise ConfigError(
            f"data.options={dict(config.options)} means nothing for {name}.",
            fix="remove data.options: it belongs to the shapes world and to hub datasets.",
        )
