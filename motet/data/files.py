"""Rows of one file: JSON, text, CSV and TSV (also gzipped), Parquet, and tar files of WebDataset."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from motet.core.errors import DataError
from motet.core.registry import first_line

_TEXTS = (".jsonl", ".json", ".csv", ".tsv", ".txt")
SUFFIXES = (*_TEXTS, *(f"{suffix}.gz" for suffix in _TEXTS), ".parquet", ".tar")
"""Supported file types, in lower case."""
Row = dict[str, Any]


def kind_of(path: Path) -> str:
    """The suffix that determines a file's type: `.jsonl`, `.jsonl.gz`, ..."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def read_rows(path: Path) -> tuple[list[Row], list[str]]:
    """Rows of a JSON or text file, and the location of each. Raises DataError naming the line.

    JSON: one object per line, one array of objects, or `{"data": [...]}`. Text: one `prompt` per line.
    """
    data, kind = _content(path), kind_of(path)
    if kind.startswith(".txt"):
        lines = _lines(data, path.name)
        return [{"prompt": _decoded(line, place)} for place, line in lines], [place for place, _ in lines]
    whole = _read_array(data, path.name) if kind.startswith(".json") and not kind.startswith(".jsonl") else None
    if whole is not None:
        rows, places = whole, [f"Item {number} of {path.name}" for number in range(len(whole))]
    else:
        lines = _lines(data, path.name)
        rows, places = [_parse(line.rstrip(b"\r"), place) for place, line in lines], [place for place, _ in lines]
    for row, place in zip(rows, places, strict=True):
        if not isinstance(row, dict):
            raise DataError(f"{place} is a {type(row).__name__}, not an object.", fix='write {"column": value, ...}.')
    return rows, places


def read_dataset(path: Path, texts: Collection[str] = (), golds: Collection[str] = ()) -> Any:
    """A `datasets.Dataset` of a CSV, TSV, Parquet or tar file. Raises DataError.

    `texts` are columns of a CSV or TSV file that are always read as text, and `golds` those that are read as text
    unless all are numbers; an empty field is null.
    """
    reader = {".parquet": _read_parquet, ".tar": _read_tar}.get(kind_of(path))
    try:
        return _read_csv(path, texts, golds) if reader is None else reader(path)
    except DataError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that a library could not read."""
    return DataError(f"{path.name} cannot be read: {first_line(error)}.", fix=f"correct the file {path.resolve()}.")


def _content(path: Path) -> bytes:
    try:
        data = gzip.decompress(path.read_bytes()) if kind_of(path).endswith(".gz") else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    return data.removeprefix(b"\xef\xbb\xbf")


def _lines(data: bytes, name: str) -> list[tuple[str, bytes]]:
    """Non-empty lines with their locations."""
    return [(f"Line {n} of {name}", line) for n, line in enumerate(data.split(b"\n"), start=1) if line.strip()]


def _decoded(line: bytes, place: str) -> str:
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not valid UTF-8: {first_line(error)}.", fix="save the file in UTF-8.") from error


def _read_array(data: bytes, name: str) -> list[Any] | None:
    """The rows of a file that is one array, or one object with the array `data`.

    None for a file with a row per line.
    """
    if data.lstrip().startswith(b"["):
        return _parse(data, name)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    rows = value.get("data") if isinstance(value, dict) else None
    return _parse(data, name)["data"] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else None


def _parse(data: bytes, where: str) -> Any:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise DataError(
            f"{where} is not valid JSON: {first_line(error)}.",
            fix="write one JSON object per line (.jsonl), or one array of objects (.json), in UTF-8.",
        ) from error
    if b"\\ud" in data.lower() or b"\xed" in data:  # escaped or raw: json decodes bytes with `surrogatepass`
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where} holds {error.object[error.start]!r}, half of a surrogate pair, which is not a character.",
                fix="correct or remove it: the text was truncated, or not decoded as UTF-8.",
            ) from error
    return value


def _read_parquet(path: Path) -> Any:
    from datasets import Dataset

    return Dataset.from_parquet(str(path))


def _read_csv(path: Path, texts: Collection[str], golds: Collection[str]) -> Any:
    """A CSV or TSV file with inferred types except for texts and golds: `True` and `NA` stay text there.

    By pyarrow: pandas, which datasets uses, turns more words into nulls.
    """
    import pyarrow
    import pyarrow.csv
    from datasets import Dataset

    data, delimiter = _content(path), "\t" if kind_of(path).startswith(".tsv") else ","
    header = next(csv.reader(io.StringIO(data.decode()), delimiter=delimiter), [])
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path.name} has two columns called {twice[0]!r}.", fix="rename one in the header line.")
    options = pyarrow.csv.ParseOptions(newlines_in_values=True, delimiter=delimiter)

    def read(**convert: Any) -> Any:
        settings = pyarrow.csv.ConvertOptions(**convert)
        return pyarrow.csv.read_csv(io.BytesIO(data), parse_options=options, convert_options=settings)

    text_columns = {name: pyarrow.string() for name in header if name in texts or name in golds}
    kinds = read(include_columns=list(text_columns), null_values=[""]).schema if text_columns else ()
    numbers = {field.name for field in kinds if str(field.type) in ("int64", "double")} - set(texts)
    text_columns = {name: kind for name, kind in text_columns.items() if name not in numbers}
    table = read(column_types=text_columns)
    for name in text_columns:
        filled = pyarrow.array([text or None for text in table[name].to_pylist()], pyarrow.string())
        table = table.set_column(table.schema.get_field_index(name), name, filled)
    return Dataset(table)


def _read_tar(path: Path) -> Any:
    from datasets import load_dataset

    return flatten_webdataset(load_dataset("webdataset", data_files={"train": str(path)}, split="train"))


def flatten_webdataset(dataset: Any) -> Any:
    """Samples of a WebDataset: a column per file ending (`png`, `txt`), and per key of their JSON files.

    Any other dataset is returned as it is.
    """
    if not {"__key__", "__url__"} <= set(dataset.column_names):
        return dataset
    dataset = dataset.remove_columns("__url__")
    renamed = {name: name.removeprefix("json.") for name in dataset.flatten().column_names if name.startswith("json.")}
    existing = set(dataset.column_names)
    return dataset.flatten().rename_columns({old: new for old, new in renamed.items() if new not in existing})


def flatten_sample(row: Row) -> Row:
    """The same of a single row."""
    if not {"__key__", "__url__"} <= set(row):
        return row
    content = row.get("json")
    rest = {name: value for name, value in row.items() if name not in ("__url__", "json")}
    return {**content, **rest} if isinstance(content, dict) else {**rest, "json": content} if content else rest
