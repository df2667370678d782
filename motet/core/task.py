"""A task: one dataset row, as a scenario and a reward see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from motet.core.conversation import Conversation, from_column, user
from motet.core.errors import ConfigError, DataError

ABOUT_PICTURES = ("question", "instruction")
"""Columns that speak of the row's pictures."""


@dataclass(frozen=True, eq=False)
class Task:
    """One row of data.

    `columns` are the dataset's columns, passed to rewards as keyword arguments.
    `index` identifies the row within the run (it seeds the sampling noise); `generation_index` says which of the G
    trajectories of the group this is.
    """

    index: int
    columns: Mapping[str, Any]
    generation_index: int = 0
    built: dict[str, Conversation] = field(default_factory=dict, repr=False)  # shared by siblings: one prefill

    def __getitem__(self, column: str) -> Any:
        try:
            return self.columns[column]
        except KeyError:
            known = ", ".join(sorted(self.columns))
            raise DataError(
                f"Row {self.index} has no column {column!r}; it has: {known}.",
                fix=f"add the column {column!r} to the data or map one to it with data.columns.{column}=NAME.",
            ) from None

    def for_generation(self, generation_index: int) -> Task:
        """This task as sibling number `generation_index` sees it; the conversations are the same objects."""
        return replace(self, generation_index=generation_index)

    @property
    def images(self) -> list[Image.Image]:
        """The row's input pictures: column `images` (a list) or `image` (one), or none. Raises DataError for both."""
        image, images = self.columns.get("image"), self.columns.get("images")
        if image is not None and images:
            raise DataError(
                f"Row {self.index} has pictures in both `image` and `images`.",
                fix="keep one of them; give the other another name with data.columns.NAME=image.",
            )
        return list(images or ([] if image is None else [image]))

    @property
    def prompt(self) -> Conversation:
        """What to draw or to think about: the column `prompt`, a string or chat messages."""
        return self.conversation("prompt")

    @property
    def question(self) -> Conversation:
        """What to answer: the column `question` (a string or chat messages), with the row's pictures."""
        return self.conversation("question")

    @property
    def instruction(self) -> Conversation:
        """What to change: the column `instruction` (a string or chat messages), with the row's pictures."""
        return self.conversation("instruction")

    def conversation(self, column: str) -> Conversation:
        """A column as a conversation; one object for all siblings.

        The row's pictures go to the places that it has for them. Without places, `question` and `instruction` show
        them first and other columns do not show them. Raises DataError for what `motet.core.conversation.from_column`
        does.
        """
        if column not in self.built:
            self.built[column] = from_column(self[column], self.images, lead=column in ABOUT_PICTURES)
        return self.built[column]

    def looking(self, words: str) -> Conversation:
        """A user's turn: the row's pictures, then words that are the scenario's own. One object for all siblings."""
        key = f"pictures, then {words}"
        if key not in self.built:
            self.built[key] = user(*self.images, words)
        return self.built[key]

    def filled(self, template: str, column: str, *, pictures: bool = False) -> Conversation:
        """A user's turn: the row's pictures if asked for, then `template` with the column's words at `{column}`.

        One object for all siblings. Raises ConfigError when the template has no such place, or another one.
        """
        key = f"{column} in {template} {pictures}"
        if key not in self.built:
            place = f"{{{column}}}"
            if place not in template or "{" in template.replace(place, ""):
                raise ConfigError(
                    f"The instruction {template!r} is to hold the row's {column!r} at {place}, and no other braces.",
                    fix=f"write {place} where it belongs.",
                )
            words = self.conversation(column).text
            self.built[key] = user(*(self.images if pictures else ()), template.replace(place, words))
        return self.built[key]
