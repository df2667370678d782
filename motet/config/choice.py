"""A named choice of a recipe: `loss: dapo`, or `loss: {name: dapo, epsilon_high: 0.28}`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator


class Choice(BaseModel):
    """A name with the options of what it names, written as `NAME` or as `{name: NAME, option: value}`.

    Whether the name exists, and which options it has, is up to whatever looks it up: `motet.config.options` reads them.
    """

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str
    """A built-in name, or a path `package.module:attribute`."""

    @classmethod
    def of(cls, name: str, /, **options: Any) -> Choice:
        """The choice of a name with these options."""
        return cls.model_validate({"name": name, **options})

    @property
    def options(self) -> dict[str, Any]:
        """What was given beside the name; lists and mappings as a recipe holds them."""
        return dict(self.model_extra or {})

    def with_options(self, **changes: Any) -> Choice:
        """The same choice with some options set."""
        return Choice.of(self.name, **{**self.options, **changes})

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_serializer
    def _to_plain(self) -> str | dict[str, Any]:
        return {"name": self.name, **self.options} if self.options else self.name

    def __str__(self) -> str:
        return self.name


def as_mapping(value: Any) -> Any:
    """The mapping that a choice's plain name stands for; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


def merge_choice(under: Any, over: Any) -> Any:
    """`over` on top of `under`, both as a recipe writes a choice: options of another name are dropped."""
    below, above = as_mapping(under), as_mapping(over)
    if isinstance(over, str) or not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return over
    below, above = cast("Mapping[str, Any]", below), cast("Mapping[str, Any]", above)
    return {**below, **above} if above.get("name", below.get("name")) == below.get("name") else dict(above)
