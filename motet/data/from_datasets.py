"""Sources of the library datasets: `Dataset`, and `IterableDataset` for streams."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from motet.core.errors import CORRECT_ROW, DataError
from motet.core.registry import first_line
from motet.data.files import Row, flatten_webdataset
from motet.data.source import Source
from motet.data.streaming import Stream


def from_dataset(dataset: Any, name: str, folder: Path, images: Collection[str]) -> Source:
    """Rows of a `datasets.Dataset`, which memory-maps them. Images stay encoded until motet reads them: datasets
    would decode any format that Pillow knows."""
    dataset, typed = _with_encoded_images(flatten_webdataset(dataset.with_format(None)))
    binary = {column for column in images if "binary" in repr(dataset.features.get(column))}

    def read(index: int) -> Row:
        try:
            return dataset[index]
        except Exception as error:
            raise DataError(f"{place(index)} cannot be read: {first_line(error)}.", fix=CORRECT_ROW) from error

    def place(index: int) -> str:
        return f"Row {index} of {name}"

    def texts() -> Iterator[Row]:
        return iter(dataset.select_columns([c for c in dataset.column_names if c not in {*typed, *binary}]))

    return Source(name, tuple(dataset.column_names), len(dataset), folder, read, place, texts, typed)


def _with_encoded_images(dataset: Any) -> tuple[Any, dict[str, bool]]:
    """The dataset with images that stay encoded, and its columns of image type: True for lists."""
    from datasets import Image, List

    typed: dict[str, bool] = {}
    for column, feature in (dataset.features or {}).items():  # a stream of JSON files has none
        if isinstance(feature, Image) or (isinstance(feature, List) and isinstance(feature.feature, Image)):
            typed[column] = isinstance(feature, List)
        if "Image(" in repr(feature):
            dataset = dataset.cast_column(column, _encoded(feature))
    return dataset, typed


def _encoded(feature: Any) -> Any:
    """A feature of datasets whose images are not decoded, at any depth."""
    from datasets import Image, LargeList, List

    if isinstance(feature, Image):
        return Image(decode=False)
    if isinstance(feature, List | LargeList):
        return type(feature)(_encoded(feature.feature))
    return {key: _encoded(inner) for key, inner in feature.items()} if isinstance(feature, dict) else feature


def from_stream(dataset: Any, name: str, folder: Path, seed: int, buffer: int) -> Source:
    """Rows of a `datasets.IterableDataset`. They cannot be checked before they are read."""
    dataset, typed = _with_encoded_images(dataset)
    stream = Stream(dataset, name, seed, buffer)
    return Source(
        name,
        stream.columns,
        None,
        folder,
        stream.read,
        lambda i: f"Row {i} of the stream {name}",
        lambda: iter(()),
        typed,
        generated=True,
    )
