"""The tables of evaluation suites, as `before.json` and `summary.json` have them, as means with intervals by label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from motet.numerics.statistics import item_interval


@dataclass(frozen=True)
class Measured:
    """A mean with the half-width of its 95 % interval (None: unknown), and the value of greedy sampling."""

    mean: float | None
    half: float | None = None
    greedy: float | None = None
    items: tuple[float | None, ...] = ()


def measured(table: Mapping[str, Any] | None) -> Iterator[tuple[str, Measured]]:
    """The results of a suite by label: of the built-in suites as they write them, else every number."""
    if table is None:
        return
    if "by_item" in table and "held_out" in table:
        yield from _shapes(table)
        return
    for label, value in table.items():
        if isinstance(value, Mapping) and _has_mean(value):
            yield label, _entry(value)
        elif isinstance(value, Mapping):
            yield from _nested(label, value)
        elif _is_number(value):
            yield label, Measured(float(value))


def held_out_splits(result: Mapping[str, Any]) -> list[str]:
    """The splits of a result of the shapes suite besides `test`."""
    return [split for split in result["by_item"] if split not in ("draw", "answer")]


def _shapes(table: Mapping[str, Any]) -> Iterator[tuple[str, Measured]]:
    for skill, shown in (("draw", "image"), ("answer", "answer")):
        for split in ("", *held_out_splits(table)):
            part, greedy, by_item = (
                whole.get(split, {}) if split else whole for whole in (table, table.get("greedy", {}), table["by_item"])
            )
            for label, mean in part.get(skill, {}).items():
                own = tuple(by_item.get(skill, {}).get(label, ()))
                half = item_interval(own)[1] if len(own) > 1 else None
                where = f"{split.replace('_', '-')}, " if split else ""
                if not split or label == "overall":
                    yield f"{shown}: {where}{label}", Measured(mean, half, greedy.get(skill, {}).get(label), own)


def _nested(label: str, table: Mapping[str, Any]) -> Iterator[tuple[str, Measured]]:
    for name, value in table.items():
        if isinstance(value, Mapping) and _has_mean(value):
            yield f"{label}: {name}", _entry(value)
        elif not isinstance(value, Mapping) and _is_number(value):
            yield f"{label}: {name}", Measured(float(value))


def _has_mean(value: Mapping[str, Any]) -> bool:
    return "mean" in value or "accuracy" in value


def _entry(value: Mapping[str, Any]) -> Measured:
    rows = tuple(value.get("by_row") or value.get("by_item") or ())
    return Measured(value.get("mean", value.get("accuracy")), value.get("interval"), value.get("greedy"), rows)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
