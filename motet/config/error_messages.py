"""What is wrong with a recipe, one line per problem: the key, its value, what was expected, and the fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel

from motet.config.keys import (
    KeyPath,
    annotation_at,
    as_section,
    describe,
    dotted,
    show,
    suggestions,
    unwrap_annotation,
)
from motet.config.problem import Problem
from motet.core.act_kinds import ACT_KINDS
from motet.core.errors import ConfigError


def to_error(problems: Sequence[Problem], source: str) -> ConfigError:
    """All problems as one error, each on its line."""
    if len(problems) == 1:
        where = f"{source}: {problems[0].place}" if problems[0].key else source
        return ConfigError(f"{where}: {problems[0].text}", fix=problems[0].fix)
    lines = "\n".join(f"  {problem}" for problem in problems)
    return ConfigError(f"{source} has {len(problems)} problems:\n{lines}\n", fix="correct all of these.")


M = TypeVar("M", bound=BaseModel, covariant=True)


@dataclass(frozen=True)
class Root(Generic[M]):
    """The section that errors are about, and what comes before its keys in messages, such as `algorithm.loss.`."""

    model: type[M]
    prefix: str = ""
    what: str = "a recipe"

    def key(self, path: KeyPath) -> str:
        """The key as messages give it."""
        return self.prefix + dotted(path)


def from_pydantic(errors: Sequence[Mapping[str, Any]], root: Root[BaseModel]) -> Iterator[Problem]:
    """Pydantic's errors in the words of a recipe."""
    unknown_kinds = {tuple(error["loc"][:-1]) for error in errors if error["loc"][-1:] == ("[key]",)}
    for error in errors:
        path = tuple(error["loc"])
        if path[-1:] == ("[key]",):
            path = path[:-1]
            mapping = unwrap_annotation(annotation_at(path[:-1], root.model)[0])[0]
            keys = get_args(mapping)[0]
            literals = get_args(keys) if get_origin(keys) is Literal else ACT_KINDS.entries  # else kinds of act
            choices = [str(choice) for choice in literals]
            close = get_close_matches(str(path[-1]), choices, n=1)
            yield _unknown(root, path, "", [root.key([*path[:-1], name]) for name in close], choices)
        elif any(path[: len(kind)] == kind for kind in unknown_kinds):
            continue  # the key itself is wrong; what lies below it says nothing more
        elif error["type"] == "extra_forbidden":
            section = as_section(annotation_at(path[:-1], root.model)[0])
            known = list(section.model_fields) if section is not None else []
            meant = [root.prefix + key for key in suggestions(path, root.model)]
            yield _unknown(root, path, f" (its value here is {show(error['input'])})", meant, known)
        elif error["type"] == "missing" and isinstance(path[-1], str):
            yield from _missing(root, path)
        else:
            path = path[:-1] if error["type"] == "missing" else path  # a list that is too short
            yield _type_error(root, path, error["input"])


def _unknown(root: Root[BaseModel], path: KeyPath, value: str, meant: Sequence[str], known: Sequence[str]) -> Problem:
    text = f"the key is unknown{value}"
    if meant:
        names = " or ".join(f"'{name}'" for name in meant)
        return Problem(root.key(path), f"{text}; did you mean {names}?", "rename it, or remove it.")
    where = f"'{root.key(path[:-1])}'" if path[:-1] else root.what
    return Problem(root.key(path), f"{text}; {where} expects {', '.join(known)}.", "remove it.")


def _missing(root: Root[BaseModel], path: KeyPath) -> Iterator[Problem]:
    annotation, metadata, field = annotation_at(path, root.model)
    section = as_section(annotation)
    if section is not None:
        for name, inner in section.model_fields.items():
            if inner.is_required():
                yield from _missing(root, (*path, name))
        return
    expected = describe(annotation, metadata)
    meaning = f" ({field.description})" if field is not None and field.description else ""
    yield Problem(
        root.key(path), f"missing; expected {expected}{meaning}.".replace(".).", ")."), f"add {root.key(path)}."
    )


def _type_error(root: Root[BaseModel], path: KeyPath, value: Any) -> Problem:
    annotation, metadata, field = annotation_at(path, root.model)
    text = f"{show(value)} does not fit; expected {describe(annotation, metadata)}."
    fix = _rewrite(annotation, value)
    if fix is None and value is None and field is not None and not field.is_required():
        fix = "remove the key to take its default."
    if fix is None:
        fix = f"change it ({field.description})." if field is not None and field.description else "change it."
    return Problem(root.key(path), text, fix.replace(".).", ")."))


def _rewrite(annotation: Any, value: Any) -> str | None:
    """The value that was probably meant, for slips of notation."""
    kind = unwrap_annotation(annotation)[0]
    if get_origin(kind) is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        meant = "none" if value is None or value is False else str(value)
        close = get_close_matches(meant, choices, n=1)
        return f"write {close[0]}." if close else f"write {' or '.join(choices)}."
    if kind is bool and isinstance(value, str) and value.lower() in {"yes", "on", "no", "off", "true", "false"}:
        return f"write {show(value.lower() in {'yes', 'on', 'true'})}, without quotes."
    if kind is int and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}."
    if kind in (int, float) and isinstance(value, str):
        return _number_in(value, kind)
    if kind is str and isinstance(value, int | float):
        return f"put it in quotes: '{value}'."
    if get_origin(kind) is tuple and not isinstance(value, list | dict | None):
        return f"write a list: [{value}]."
    if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, str):
        return "write its keys, indented, on the lines below."
    return None


def _number_in(text: str, kind: type[int] | type[float]) -> str | None:
    try:
        number = float(text.replace("_", "").replace(",", "").replace(" ", ""))
    except ValueError:
        return None
    return f"write {int(number) if kind is int and number.is_integer() else number}, without quotes or separators."
