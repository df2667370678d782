"""The options of a named choice, read into the settings class of what is named. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from motet.config.choice import Choice
from motet.config.error_messages import Root, from_pydantic, to_error
from motet.config.keys import walk
from motet.config.problem import Problem
from motet.config.sampling import WINDOW_SCHEDULES
from motet.config.schema import ON_FAILURE, SUITES

OPTIONS: dict[str, Mapping[str, type[BaseModel]]] = {
    "rewards.N.on_failure": ON_FAILURE,
    "sampling.denoising.sde_window.schedule": WINDOW_SCHEDULES,
    "eval.suite": SUITES,
}
"""Key of a named choice -> built-in name -> its settings class."""

T = TypeVar("T", bound=BaseModel)


def walk_options() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every option of a built-in name: its key, the name that it belongs to, and its field."""
    for key, named in OPTIONS.items():
        for name, settings in named.items():
            for option, field in walk(settings, f"{key}."):
                yield option, name, field


def option_problems(choice: Choice, settings: type[BaseModel], key: str) -> list[Problem]:
    """What is wrong with a choice's options; `key` is where the choice is given, such as `algorithm.loss`."""
    read = _read(choice, settings, key)
    return [] if isinstance(read, BaseModel) else read


def read_options(choice: Choice, settings: type[T], key: str) -> T:
    """The options of a choice as an instance of its settings class. Raises ConfigError that names the keys."""
    read = _read(choice, settings, key)
    if isinstance(read, BaseModel):
        return read
    raise to_error(read, f"{key}={choice.name}")


def _read(choice: Choice, settings: type[T], key: str) -> T | list[Problem]:
    try:
        return settings.model_validate_json(json.dumps(choice.options), strict=True)
    except ValidationError as error:
        errors = cast("list[dict[str, Any]]", error.errors(include_url=False))
        return list(from_pydantic(errors, Root(settings, f"{key}.", f"'{choice.name}'")))
