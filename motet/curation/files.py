"""Read questions and captions from files, and write rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from motet.config import DataConfig
from motet.core.errors import ConfigError, DataError, RunFolderError
from motet.core.registry import first_line
from motet.curation.pairing import CurationQuestion
from motet.data.sources import Source, open_source

_NAMES = {
    "image": ("image", "image_id"),
    "question": ("question",),
    "solution": ("solution", "answer"),
    "caption": ("caption", "captions"),
}
"""Field -> the columns that may contain it; the first that exists is used."""
_LISTS = {"options": ("options", "choices"), "entities": ("entities",)}
_BATCH = 100
"""Rows of a Parquet file whose images are in memory at the same time."""


def read_questions(path: Path) -> list[CurationQuestion]:
    """Questions of a .jsonl, .json, .parquet or .csv file, one per row: image, question, solution.

    `image_id` and `answer` are other names of the first and the last. `options` (or `choices`) is a list of texts,
    `entities` a list of words to cover. All other columns stay in the rows. Raises DataError, naming the row.
    """
    source = _open_nonempty(path)
    taken = {name for names in (*_NAMES.values(), *_LISTS.values()) for name in names} - {"caption", "captions"}
    columns = {what: _column(source, what) for what in ("image", "question", "solution")}
    found: list[CurationQuestion] = []
    for raw, source_location in _rows(source):
        text = {what: _text(raw, column, source_location) for what, column in columns.items()}
        options, target_entities = (_list(raw, names, source_location) for names in _LISTS.values())
        extra_columns = {name: value for name, value in raw.items() if name not in taken}
        found.append(
            CurationQuestion(
                text["image"],
                text["question"],
                text["solution"],
                source_location,
                options or (),
                target_entities,
                extra_columns,
            )
        )
    return found


def read_captions(path: Path) -> dict[str, list[str]]:
    """Image -> its captions, in the order of the file: rows of image and caption (a text, or a list of them).

    Also COCO's own `captions_train2017.json`. Raises DataError, naming the row.
    """
    source = _open_nonempty(path)
    rows, columns = _rows(source), ("image", "caption")
    if source.size == 1 and {"annotations", "images"} <= set(source.columns):
        rows = ((one, f"Annotation {n} of {source.name}") for n, one in enumerate(source.read(0)["annotations"]))
        image, caption = "image_id", "caption"
    else:
        image, caption = (_column(source, what) for what in columns)
    found: dict[str, list[str]] = {}
    for raw, source_location in rows:
        value = raw.get(caption)
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise DataError(
                    f"{source_location}, column {caption!r}, contains {text!r:.80}, expected a text.",
                    fix="correct the row.",
                )
            own = found.setdefault(_text(raw, image, source_location), [])
            own += [text.strip()] if text.strip() not in own else []
    return found


def write_rows(rows: Sequence[Mapping[str, Any]], out: Path, images: str | None = None) -> None:
    """Write rows as .jsonl or .parquet; the file is written completely or not at all.

    `images` is a path with `{image}` where the image's id stands, such as `train2017/{image:0>12}.jpg`: `real_image`
    becomes that file's path relative to `out`, or in a parquet file the image itself. None: it remains the id.
    Raises ConfigError for another file type, RunFolderError when `out` exists, DataError for a missing image.
    """
    check_output(out)
    files = [_image_path(row["real_image"], images) for row in rows]
    partial = out.with_name(f".partial_{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix.lower() == ".parquet":
            _write_parquet(rows, files, partial)
        else:
            with partial.open("w", encoding="utf-8") as file:
                for row, image in zip(rows, files, strict=True):
                    own = row if image is None else {**row, "real_image": os.path.relpath(image, out.parent)}
                    file.write(json.dumps(own, ensure_ascii=False) + "\n")
        os.replace(partial, out)
    except (OSError, TypeError, ValueError) as error:  # pyarrow's errors are ValueErrors and TypeErrors
        raise DataError(
            f"{str(out)!r} cannot be written: {first_line(error)}.", fix="fix the error above and retry."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def check_output(out: Path) -> None:
    """Raise ConfigError for another file type, RunFolderError for a file that exists."""
    if out.suffix.lower() not in (".jsonl", ".parquet"):
        raise ConfigError(f"--out {str(out)!r} has an unknown file type.", fix="name a .jsonl or a .parquet file.")
    if out.exists():
        raise RunFolderError(f"{str(out)!r} exists.", fix="name a new file.")


def _open_nonempty(path: Path) -> Source:
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}.", fix="give a .jsonl, .json, .parquet or .csv file.")
    source = open_source(DataConfig(source=str(path)), 0, ())
    if not source.size:
        raise DataError(f"{str(path)!r} has no rows.", fix="give a file with at least one row.")
    return source


def _rows(source: Source) -> Iterator[tuple[dict[str, Any], str]]:
    return ((source.read(i), source.place(i)) for i in range(source.size or 0))


def _column(source: Source, what: str) -> str:
    for name in _NAMES[what]:
        if name in source.columns:
            return name
    raise DataError(
        f"{source.name} has no column {' or '.join(_NAMES[what])}; it has: {', '.join(source.columns)}.",
        fix=f"rename the column that holds the {what}.",
    )


def _text(raw: Mapping[str, Any], column: str, source_location: str) -> str:
    value = raw.get(column)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise DataError(
            f"{source_location}, column {column!r}, contains {value!r:.80}, expected a text or a number.",
            fix="correct the row.",
        )
    return str(value).strip()


def _list(raw: Mapping[str, Any], names: Sequence[str], source_location: str) -> tuple[str, ...] | None:
    name = next((name for name in names if raw.get(name) is not None), None)
    if name is None:
        return None
    value = raw[name]
    if not isinstance(value, list) or not all(isinstance(item, str | int | float) for item in value):
        raise DataError(
            f"{source_location}, column {name!r}, contains {value!r:.80}, expected a list of texts.",
            fix="correct the row.",
        )
    return tuple(str(item) for item in value)


def _image_path(image: str, template: str | None) -> Path | None:
    if template is None:
        return None
    try:
        path = Path(template.format(image=image))
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"--images {template!r} is not a path with {{image}}: {first_line(error)}.",
            fix="write something like train2017/{image:0>12}.jpg.",
        ) from error
    if not path.is_file():
        raise DataError(f"The image {str(path)!r} does not exist.", fix="correct --images, or get the image.")
    return path


def _write_parquet(rows: Sequence[Mapping[str, Any]], files: Sequence[Path | None], partial: Path) -> None:
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset, Image, Value

    features = Dataset.from_list([dict(row) for row in rows]).features
    features["concept_coverage"] = Value("float64")  # that of a file without any would be null
    if any(file is not None for file in files):
        features["real_image"] = Image()
    with pyarrow.parquet.ParquetWriter(partial, features.arrow_schema) as writer:
        for start in range(0, len(rows), _BATCH):
            batch = [
                row if file is None else {**row, "real_image": {"bytes": file.read_bytes(), "path": file.name}}
                for row, file in zip(rows[start : start + _BATCH], files[start : start + _BATCH], strict=True)
            ]
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=features.arrow_schema))
