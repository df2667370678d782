"""Datasets that are read while they are downloaded: `data.options.streaming` of a hub id or a local folder."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from motet.core.errors import DataError, MotetError
from motet.core.registry import first_line
from motet.data.files import flatten_sample

SHUFFLE_BUFFER = 1000
"""Rows among which the next one is chosen at random, unless `data.options.shuffle_buffer` says otherwise."""


class Stream:
    """Rows of a `datasets.IterableDataset` as an endless sequence that is read from front to back.

    Row i depends on (data, seed, i): shards are shuffled in every epoch, and rows in a buffer. To read an earlier row,
    and to resume a run, the stream is read again from its beginning, without decoding images.
    """

    def __init__(self, dataset: Any, name: str, seed: int, shuffle_buffer: int) -> None:
        self.dataset, self.name = dataset.shuffle(seed=seed, buffer_size=shuffle_buffer), name
        self._number, self._row = -1, dict[str, Any]()
        self._rows = self._endless()
        self.columns = tuple(self.read(0))

    def read(self, i: int) -> dict[str, Any]:
        """Row i, not before row i - 1 was read. Raises DataError when the source has no rows, or fails."""
        if i < self._number:
            self._number, self._rows = -1, self._endless()
        while self._number < i:
            try:
                self._row = next(self._rows)
            except MotetError:
                raise
            except Exception as error:
                problem = f"Row {self._number + 1} of the stream {self.name} cannot be read: {first_line(error)}."
                fix = "check the network and the data; --resume goes on from the saved checkpoint."
                self._number, self._rows = -1, self._endless()  # an iterator that raised has ended
                raise DataError(problem, fix=fix) from error
            self._number += 1
        return dict(self._row)

    def _endless(self) -> Iterator[dict[str, Any]]:
        for epoch in count():
            self.dataset.set_epoch(epoch)
            empty = True
            for row in self.dataset:
                empty = False
                yield flatten_sample(row)
            if empty:
                raise DataError(f"The stream {self.name} has no rows.", fix="give a source with at least one row.")
