"""Loads recipes: YAML, overrides, schema, cross-field validation. All problems become one ConfigError. No torch."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from motet.config.choice import Choice, as_mapping
from motet.config.error_messages import Root, from_pydantic, to_error
from motet.config.keys import annotation_at, is_choice, is_list, show
from motet.config.problem import Problem
from motet.config.renamed import renamed_problems
from motet.config.schema import Recipe
from motet.config.validation import contradictions, unused_keys
from motet.config.yaml import Unreadable, from_yaml, to_yaml_text
from motet.core.errors import ConfigError

T = TypeVar("T", bound=BaseModel)
_MAX_DEPTH = 20
_HALF = "holds half of a character (a lone surrogate)."
_LARGEST = 4_000_000
"""Bytes of a file that are read."""


def load_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, changed by overrides such as `algorithm.beta=0.01` or `rewards.0.weight=0.5`."""
    return _parse(read_yaml(Path(path)), overrides, source=str(path))


def parse_recipe(mapping: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that nested mappings describe; otherwise as `load_recipe`."""
    return _parse(mapping, overrides, source="the recipe")


def read_mapping(path: Path) -> dict[str, Any]:
    """The nested mappings of a YAML file, as they are written there."""
    mapping = read_yaml(path)
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path} is {show(mapping)}; expected keys with values.", fix="write key: value.")
    return cast("dict[str, Any]", mapping)


def apply_overrides(
    mapping: Mapping[str, Any], overrides: Sequence[str], source: str, model: type[BaseModel] = Recipe
) -> dict[str, Any]:
    """A plain copy of a mapping with overrides applied; `model` has its keys, but nothing is checked against them."""
    problems: list[Problem] = []
    content = _plain(mapping, "", problems)
    problems += [problem for override in overrides if (problem := _apply(content, override, model)) is not None]
    content = _plain(content, "", problems)
    if problems:
        raise config_error(problems, overrides, source)
    return content


def read_section(content: Mapping[str, Any], root: Root[T]) -> T | list[Problem]:
    """A plain mapping as an instance of the root's model, or what is wrong with it."""
    try:
        # JSON mode, so that lists become tuples while text never becomes a number.
        return root.model.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        return list(from_pydantic(cast("list[dict[str, Any]]", error.errors(include_url=False)), root))


def read_file(content: Mapping[str, Any], root: Root[T], renamed: Mapping[str, str]) -> T | list[Problem]:
    """A plain mapping with recipes in it as an instance of the root's model, or what is wrong with it."""
    problems = list(renamed_problems(content, keys=renamed))
    for key in content.keys() & Recipe.model_fields.keys() - root.model.model_fields.keys():
        problems.append(Problem(key, f"is a key of recipes; {root.what} has no such key.", "move it below shared."))
    return problems or read_section(content, root)


def read_recipe(content: Mapping[str, Any]) -> Recipe | list[Problem]:
    """The recipe of a plain mapping, or everything that is wrong with it."""
    recipe = list(renamed_problems(content)) or read_section(content, Root(Recipe))
    return recipe if isinstance(recipe, list) else contradictions(recipe) or recipe


def config_error(problems: Sequence[Problem], overrides: Sequence[str], source: str) -> ConfigError:
    """The problems as one error; those of a value that an override set name the override."""
    return to_error([_with_override(problem, overrides) for problem in problems], source)


def to_yaml(recipe: Recipe) -> str:
    """The recipe with every setting spelled out; `load_recipe` reads an equal one from it.

    Left out is what has no effect under the other settings: given explicitly, it would be rejected.
    """
    problems: list[Problem] = []
    content = _plain(recipe.model_dump(), "", problems)
    if problems:
        raise to_error(problems, "the recipe")
    for key in unused_keys(recipe):
        *sections, name = key.split(".")
        place: Any = content
        for section in sections:
            place = place[section]
        del place[name]
    return to_yaml_text(content)


def _parse(mapping: Any, overrides: Sequence[str], *, source: str) -> Recipe:
    if mapping is None or (isinstance(mapping, Mapping) and not mapping and not overrides):
        raise ConfigError(f"{source} is empty.", fix="give at least policy.path and run.steps.")
    if not isinstance(mapping, Mapping):
        raise ConfigError(
            f"{source} is {show(mapping)}; expected keys such as policy and run.", fix="write key: value."
        )
    recipe = read_recipe(apply_overrides(cast("Mapping[str, Any]", mapping), overrides, source))
    if isinstance(recipe, Recipe):
        return recipe
    raise config_error(recipe, overrides, source)


# --- plain values


def _plain(value: Any, key: str, problems: list[Problem], around: tuple[int, ...] = ()) -> Any:
    """A copy made of dicts, lists and scalars only; what a recipe file could not say becomes a problem.

    `around`: the ids of the containers that it lies in.
    """
    inside = (*around, id(value))
    if len(around) > _MAX_DEPTH or id(value) in around:
        problems.append(Problem(key, "is nested too deeply, or contains itself.", "flatten it."))
    elif isinstance(value, Mapping):
        content: dict[str, Any] = {}
        for name, inner in cast("Mapping[Any, Any]", value).items():
            if not isinstance(name, str):
                problems.append(Problem(key, f"the key {show(name)} is not text.", "put it in quotes."))
            elif _half_character(name):
                problems.append(Problem(key, f"the key {show(name)} {_HALF}", "write it in UTF-8."))
                name = show(name)
            content[str(name)] = _plain(inner, f"{key}.{name}" if key else str(name), problems, inside)
        return content
    elif isinstance(value, list | tuple):
        items = enumerate(cast("Sequence[Any]", value))
        return [_plain(inner, f"{key}.{place}", problems, inside) for place, inner in items]
    elif isinstance(value, os.PathLike):
        return str(cast("os.PathLike[str]", value))
    elif isinstance(value, str) and _half_character(value):
        problems.append(Problem(key, f"{show(value)} {_HALF}", "write the character itself, in UTF-8."))
    elif value is not None and not isinstance(value, str | bool | int | float):
        text = f"{show(value)} is a {type(value).__name__}; expected what YAML can write."
        problems.append(Problem(key, text, "use text, numbers, true, false, null, lists and mappings."))
    else:
        return value
    return None


def _half_character(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


# --- overrides


def _apply(content: dict[str, Any], override: str, model: type[BaseModel]) -> Problem | None:
    """Set one `a.b.c=value` in place."""
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path) or key.startswith("-") or "[" in key:
        meant = re.sub(r"\[(\w+)\]", r".\1", re.sub(r"\.\.+", ".", key.strip(" -."))) or "KEY"
        fix = f"write {meant}={text if equals else 'VALUE'}."
        return Problem("", f"the override '{override}' is not of the form a.b.c=value.", fix)
    try:
        value = from_yaml(text)
    except Unreadable as error:
        return Problem(key, f"the override's value {show(text)} is not readable YAML: {error}.", "put it in quotes.")
    place: Any = content
    for depth, part in enumerate(path):
        problem = _no_entry(place, part, ".".join(path[:depth]))
        if problem is not None:
            return problem
        listed = type(place) is list
        index: Any = int(part) if listed else part
        if depth == len(path) - 1:
            place[index] = value
        elif not listed and is_choice(annotation_at(path[: depth + 1], model)[0]):
            place[part] = _choice_at(place, path, depth, value, annotation_at(path[: depth + 1], model)[2])
        elif not listed and place.get(part) is None:
            place[part] = [] if is_list(path[: depth + 1], model) else {}
        place = place[index]
    return None


def _choice_at(place: dict[str, Any], path: Sequence[str], depth: int, value: Any, field: FieldInfo | None) -> Any:
    """The named choice at a depth of a path as a mapping, ready for one of its options or another name to be set."""
    default = field.default.name if field is not None and isinstance(field.default, Choice) else None
    chosen = as_mapping(place.get(path[depth], default))
    if chosen is None or (path[depth + 1 :] == ["name"] and dict(chosen).get("name") != value):
        return {}  # options belong to the name that they were given for
    return chosen


def _no_entry(place: Any, part: str, where: str) -> Problem | None:
    """Why an override cannot go from a place to its part."""
    if isinstance(place, list):
        length = len(cast("list[Any]", place))
        if not part.isdecimal() or int(part) >= length:
            text = f"has {length} entries; expected an index below {length}, got '{part}'."
            return Problem(where, text, f"give the whole list, {where}=[...], or write it in the file.")
    elif not isinstance(place, dict):
        return Problem(where, f"is {show(place)}, which has no keys; got '{part}'.", f"write {where}=VALUE.")
    return None


def _with_override(problem: Problem, overrides: Sequence[str]) -> Problem:
    """The problem, with the override that it comes from, if any."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if problem.key and f"{key}.".startswith(f"{problem.key}.") and override not in problem.text:
            return Problem(
                problem.key, f"{problem.text[:-1]} (override {_short(override)!r}){problem.text[-1:]}", problem.fix
            )
    return problem


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:197]}..."


# --- files


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises ConfigError for one that is not there or not readable."""
    try:
        return from_yaml(_read(path))
    except Unreadable as error:
        raise ConfigError(f"{path} is not readable YAML: {error}.", fix="correct the file there.") from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            fix = "name a recipe: a YAML file of some KB."
            raise ConfigError(f"{path} is larger than {_LARGEST / 1e6:.0f} MB.", fix=fix)
        return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8").read()
    except FileNotFoundError:
        names = [file.name for file in path.parent.glob("*.y*ml")]
        close = get_close_matches(path.name, names, n=1) or get_close_matches(f"{path.name}.yaml", names, n=1)
        fix = f"did you mean '{path.parent / close[0]}'?" if close else "check the path."
        raise ConfigError(f"There is no recipe {path}.", fix=fix) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason}.", fix="save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", fix="name a readable YAML file.") from None
