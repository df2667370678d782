"""`data.source: mixture`: rows of several sources, interleaved at random in the proportion of their weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat

from motet.config.choice import Choice
from motet.config.options import read_options
from motet.config.schema import DataConfig
from motet.config.section import Section
from motet.core.errors import ConfigError
from motet.data.rows import Rows
from motet.data.sources import MIXTURE, Source, has_splits


class MixedSource(DataConfig):
    """One source of a mixture: as the section `data`, and its weight."""

    weight: PositiveFloat = 1.0
    """Share of the rows, relative to the other sources' weights."""


class MixtureOptions(Section):
    """`data.options` of a mixture."""

    sources: Annotated[tuple[MixedSource, ...], Field(min_length=2)]
    """The sources; each has its own columns, size and options. Without a split of its own one has `data.split`."""


@dataclass(frozen=True, eq=False)
class MixedRows(Rows):
    """Rows of a mixture; `parts` are those of its sources. There is no end: every source is reshuffled when used up."""

    parts: tuple[Rows, ...] = ()

    def texts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Those of every source in turn."""
        for part in self.parts:
            yield from part.texts()


def open_mixture(config: DataConfig, seed: int, open_part: Callable[[DataConfig], Rows]) -> MixedRows:
    """Open every source with `open_part`, which checks it. Row i of the mixture depends on (seed, i) alone.

    Raises ConfigError for settings of `data` that belong to a single source, and what `open_part` raises.
    """
    options = read_options(Choice.of(MIXTURE, **config.options), MixtureOptions, "data.options")
    for key in ("columns", "size"):
        if getattr(config, key):
            raise ConfigError(
                f"data.{key} cannot be set for a mixture: its sources have their own.",
                fix=f"set {key} in the entries of data.options.sources.",
            )
    for number, one in enumerate(options.sources):
        if one.source == MIXTURE or one.targets or one.rejected:
            raise ConfigError(
                f"data.options.sources[{number}] is a mixture itself, or has targets or rejected.",
                fix="list all sources in one mixture; set data.targets and data.rejected for the mixture as a whole.",
            )
    parts = tuple(open_part(_part_config(one, config)) for one in options.sources)
    columns = tuple(dict.fromkeys(column for part in parts for column in part.columns))
    order = _Interleaving([part.size for part in parts], [one.weight for one in options.sources], seed)

    def read(i: int) -> dict[str, Any]:
        number, row = order.locate(i)
        return dict.fromkeys(columns) | parts[number].row(row)

    def place(i: int) -> str:
        number, row = order.locate(i)
        return parts[number].source.place(row)

    name = f"the mixture of {', '.join(part.source.name for part in parts)}"
    source = Source(name, columns, None, Path.cwd(), read, place, partial(iter, ()), generated=True)
    images = frozenset().union(*(part.image_columns for part in parts))
    lists = frozenset().union(*(part.image_list_columns for part in parts)) - images
    conversations = frozenset().union(*(part.conversations for part in parts))
    return MixedRows(source, columns, None, {}, images, lists, conversations, parts)


def _part_config(one: MixedSource, whole: DataConfig) -> DataConfig:
    own = one.model_dump(exclude={"weight"})
    if "split" not in one.model_fields_set and has_splits(one.source):
        own["split"] = whole.split
    return DataConfig(**own)


class _Interleaving:
    """Which row of which source row i of a mixture is: sources at random by weight, each in a shuffled order."""

    def __init__(self, sizes: Sequence[int | None], weights: Sequence[float], seed: int) -> None:
        self.sizes, self.seed = sizes, seed
        self.ends = list(accumulate(weight / sum(weights) for weight in weights))
        # Python promises that `random()` of a string seed stays unchanged.
        self._rng = random.Random(f"motet mixture {seed}")
        self._drawn: list[tuple[int, int]] = []
        self._counts = [0] * len(sizes)
        self._orders: dict[int, tuple[int, list[int]]] = {}

    def locate(self, i: int) -> tuple[int, int]:
        """The source's number and its row."""
        while len(self._drawn) <= i:
            point = self._rng.random()
            number = next((n for n, end in enumerate(self.ends) if point < end), len(self.ends) - 1)
            self._drawn.append((number, self._counts[number]))
            self._counts[number] += 1
        number, count = self._drawn[i]
        size = self.sizes[number]
        return number, count if size is None else self._order(number, count // size, size)[count % size]

    def _order(self, number: int, epoch: int, size: int) -> list[int]:
        if self._orders.get(number, (None,))[0] != epoch:
            rng = random.Random(f"motet mixture {self.seed} {number} {epoch}")
            keys = [rng.random() for _ in range(size)]
            self._orders[number] = (epoch, sorted(range(size), key=keys.__getitem__))
        return self._orders[number][1]
