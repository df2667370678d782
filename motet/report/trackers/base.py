"""What trackers are given, and the methods of one. Imports no tracking library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class RunInfo:
    """The run that a tracker shows: its name, folder and recipe, and the steps that are done already (resumed)."""

    name: str
    folder: Path
    recipe: Mapping[str, Any]
    """The resolved recipe, of lists, mappings, texts and numbers."""
    recipe_yaml: str
    step: int = 0


@dataclass(frozen=True)
class ShownImage:
    """An image with its reward and prompt in one line."""

    image: Image.Image
    caption: str


@dataclass(frozen=True)
class ShownText:
    """A text act with its prompt and the weighted sum of the trajectory's rewards; None: a reward has no value."""

    act: str
    prompt: str
    text: str
    reward: float | None


TEXT_COLUMNS = ("act", "reward", "prompt", "text")


@dataclass(frozen=True)
class Samples:
    """What was generated for one track, or the images of an evaluation: `name` is `samples/TRACK`,
    `fixed_prompts/TRACK` or `before`."""

    name: str
    images: Sequence[ShownImage] = ()
    texts: Sequence[ShownText] = ()

    @property
    def rows(self) -> list[list[Any]]:
        """The texts as rows of `TEXT_COLUMNS`."""
        return [[text.act, text.reward, text.prompt, text.text] for text in self.texts]


@dataclass(frozen=True)
class Results:
    """The evaluations before and after training: a row per number; None where one was not made."""

    columns: tuple[str, ...] = ("metric", "before", "after")
    rows: list[tuple[str, float | None, float | None]] = field(default_factory=list)

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Results:
        """From `summary.json`, whose tables are nested mappings of numbers; the lists in them are of single items."""
        before, after = (
            {key: float(value) for key, value in leaves(summary.get(name), lists=False) if _is_number(value)}
            for name in ("before", "after")
        )
        return cls(rows=[(key, before.get(key), after.get(key)) for key in dict.fromkeys([*before, *after])])


def leaves(value: Any, key: str = "", *, lists: bool = True) -> Iterator[tuple[str, Any]]:
    """What lies below mappings, and below `lists`, each with its dotted key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, f"{key}.{name}" if key else str(name), lists=lists)
    elif isinstance(value, list | tuple) and lists:
        for place, inner in enumerate(value):
            yield from leaves(inner, f"{key}.{place}" if key else str(place))
    else:
        yield key, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Tracker:
    """The methods of a tracker. Any object with `log` is one; the others are called where it has them.

    All are called by one thread of its own, in order, `start` first. What raises is dropped and counted; the run goes
    on. Options of the recipe are arguments of the constructor, which neither waits nor writes.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    """Modules that it imports; without them the run does not start."""
    extra: ClassVar[str] = ""
    """motet's extra that installs them."""

    def start(self, run: RunInfo, resumed: Any) -> Any:
        """Begin, or go on with the run of the id `resumed`; returns the id (anything JSON can hold), None without."""

    def log(self, step: int, metrics: Metrics) -> None:
        """The metrics after `step` steps, of training or of an evaluation (`eval/NAME`); they may be NaN."""

    def log_samples(self, step: int, samples: Samples) -> None:
        """Images and texts that step number `step` generated, or that the weights after it did."""

    def finish(self, results: Results) -> None:
        """At the end, also of a run that was stopped or failed."""
