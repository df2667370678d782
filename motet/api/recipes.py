"""A recipe from keyword arguments: sections as mappings, with Python objects wherever a recipe has a name.

Each object gets a name `python:NAME` that the registry knows while the recipe is in use, so a recipe is plain data
however it is written. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

from motet.config import Recipe, parse_recipe
from motet.config.load import read_mapping
from motet.config.section import Section
from motet.core.registry import PYTHON, bind_objects

Mapped = dict[str, Any]


class _Rows:
    """A list of rows, which is one object and not a list of settings."""

    __name__ = "rows"

    def __init__(self, rows: Any) -> None:
        self.rows = rows


@contextmanager
def python_recipe(base: Recipe | str | PathLike[str] | None, sections: Mapping[str, Any]) -> Iterator[Recipe]:
    """The recipe `base` (none, a Recipe, or a YAML file) with the given sections laid over it.

    Sections are None (not given), or what a recipe holds at that key with objects in place of names; see
    `motet.train` and `motet.sft` for the shorter forms. The objects are known to the
    registry while the context lasts. Raises ConfigError as `parse_recipe` does.
    """
    given = {
        key: value.model_dump(mode="json", exclude_unset=True) if isinstance(value, Section) else value
        for key, value in sections.items()
        if value is not None
    }
    objects: Mapped = {}
    plain = _to_plain(_full_form(given), objects)
    with bind_objects(objects):
        yield parse_recipe(_merged(_mapping_of(base), plain))


def _mapping_of(base: Recipe | str | PathLike[str] | None) -> Mapped:
    if base is None:
        return {}
    if isinstance(base, Recipe):
        return base.model_dump(mode="json", exclude_unset=True)
    return read_mapping(Path(base))


def _full_form(given: Mapped) -> Mapped:
    """The sections with short forms written out: a path is `policy.path`, rows are `data.source`, and so on."""
    full = _full_track(given)
    if "policy" in full and not _is_section(full["policy"]):
        full["policy"] = {"path": full["policy"]}
    if isinstance(full.get("algorithm"), str) or ("algorithm" in full and not _is_section(full["algorithm"])):
        full["algorithm"] = {"loss": full["algorithm"]}
    if "tracks" in full:
        full["tracks"] = {name: _full_track(track) for name, track in full["tracks"].items()}
    if _is_section(full.get("eval")):
        full["eval"] = {key: _source(value) if key == "data" else value for key, value in full["eval"].items()}
        suite = full["eval"].get("suite")
        if _is_section(suite) and "data" in suite:
            full["eval"]["suite"] = {**suite, "data": _source(suite["data"])}
    if "targets" in full:
        full["data"] = {**full.get("data", {}), "targets": full.pop("targets")}
    run = {key: full.pop(key) for key in ("steps", "callbacks") if key in full}
    if run:
        full["run"] = {**full.get("run", {}), **run}
    return full


def _full_track(given: Mapping[str, Any]) -> Mapped:
    full = dict(given)
    if "data" in full:
        data = full["data"]
        full["data"] = (
            {**data, **({"source": _source(data["source"])} if "source" in data else {})}
            if _is_section(data)
            else {"source": _source(data)}
        )
    if "rewards" in full:
        rewards = full["rewards"]
        listed = rewards if isinstance(rewards, Sequence) and not isinstance(rewards, str) else [rewards]
        full["rewards"] = [reward if _is_section(reward) else {"name": reward} for reward in listed]
    return full


def _source(value: Any) -> Any:
    """Where data comes from; a list is rows, which stay one object."""
    return _Rows(value) if isinstance(value, list | tuple) else value


def _is_section(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value holds settings. A `DatasetDict` is a mapping too, and is data."""
    return isinstance(value, Mapping) and type(value).__name__ != "DatasetDict"


def _to_plain(value: Any, objects: Mapped) -> Any:
    """A copy in which every object is a name; `objects` takes the objects by these names."""
    if value is None or isinstance(value, str | bool | int | float | PathLike):
        return value
    if _is_section(value):
        return {key: _to_plain(inner, objects) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(inner, objects) for inner in value]
    return _name_of(value, objects)


def _name_of(value: Any, objects: Mapped) -> str:
    """`python:NAME`, the same for the same object: its name or its class's, with a number where that is taken."""
    target = value.rows if isinstance(value, _Rows) else value
    for name, known in objects.items():
        if known is target:
            return name
    own = getattr(value, "__name__", None) or getattr(value, "name", None) or type(value).__name__
    stem = PYTHON + (re.sub(r"\W+", "_", str(own)).strip("_") or "object")
    name, number = stem, 2
    while name in objects:
        name, number = f"{stem}_{number}", number + 1
    objects[name] = target
    return name


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Mapped:
    both = {
        key: _merged(under[key], value) if isinstance(value, Mapping) and isinstance(under.get(key), Mapping) else value
        for key, value in over.items()
    }
    return {**under, **both}
