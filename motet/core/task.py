"""A task: one dataset row for a scenario and its rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from motet.core.conversation import Conversation, from_column, user
from motet.core.errors import ConfigError, DataError

COLUMNS_WITH_IMAGES = ("question", "instruction")
"""Columns whose conversations begin with the row's images."""


@dataclass(frozen=True, eq=False)
class Task:
    """One row of data.

    `columns` are the dataset's columns, passed to rewards as keyword arguments.
    `index` identifies the row within the run, also in later epochs (it seeds the sampling noise); `generation_index` is
    the index of the trajectory in its group of G. `place` is where the row is in the data: `Line 31 of train.jsonl`.
    """

    index: int
    columns: Mapping[str, Any]
    generation_index: int = 0
    place: str = ""
    _conversation_cache: dict[str, Conversation] = field(default_factory=dict, repr=False)  # shared: one prefill

    @property
    def location(self) -> str:
        """The row for messages: its place in the data, or its index."""
        return self.place or f"Row {self.index}"

    def __getitem__(self, column: str) -> Any:
        try:
            return self.columns[column]
        except KeyError:
            known = ", ".join(sorted(self.columns))
            raise DataError(
                f"{self.location} has no column {column!r}; it has: {known}.",
                fix=f"add the column {column!r} to the data or map one to it with data.columns.{column}=NAME.",
            ) from None

    def for_generation(self, generation_index: int) -> Task:
        """This task for one generation of the group; the conversations are the same objects."""
        return replace(self, generation_index=generation_index)

    @property
    def images(self) -> list[Image.Image]:
        """The row's input images: column `images` (a list) or `image` (one), or none. Raises DataError for both."""
        image, images = self.columns.get("image"), self.columns.get("images")
        if image is not None and images:
            raise DataError(
                f"{self.location} has images in both `image` and `images`.",
                fix="keep one of them; give the other another name with data.columns.NAME=image.",
            )
        return list(images or ([] if image is None else [image]))

    @property
    def prompt(self) -> Conversation:
        """The image prompt: the column `prompt`, a string or chat messages."""
        return self.conversation("prompt")

    @property
    def question(self) -> Conversation:
        """The question: the column `question` (a string or chat messages), with the row's images."""
        return self.conversation("question")

    @property
    def instruction(self) -> Conversation:
        """The edit instruction: the column `instruction` (a string or chat messages), with the row's images."""
        return self.conversation("instruction")

    def conversation(self, column: str) -> Conversation:
        """A column as a conversation; one object for the whole group.

        The row's images replace its placeholders. Without placeholders, `question` and `instruction` begin with the
        images and other columns have none. Raises DataError as `motet.core.conversation.from_column`.
        """
        if column not in self._conversation_cache:
            self._conversation_cache[column] = from_column(
                self[column], self.images, lead=column in COLUMNS_WITH_IMAGES
            )
        return self._conversation_cache[column]

    def with_images(self, text: str) -> Conversation:
        """A user turn: the row's images, then `text`, the scenario's own. One object for the whole group."""
        key = f"images, then {text}"
        if key not in self._conversation_cache:
            self._conversation_cache[key] = user(*self.images, text)
        return self._conversation_cache[key]

    def render_template(self, template: str, column: str, *, include_images: bool = False) -> Conversation:
        """A user turn: the row's images with `include_images`, then `template` with the column's text at `{column}`.

        One object for the whole group. Raises ConfigError when the template lacks the placeholder, or has another one.
        """
        key = f"{column} in {template} {include_images}"
        if key not in self._conversation_cache:
            placeholder = f"{{{column}}}"
            if placeholder not in template or "{" in template.replace(placeholder, ""):
                raise ConfigError(
                    f"The template {template!r} must contain {placeholder} and no other braces.",
                    fix=f"write {placeholder} where the row's {column!r} goes.",
                )
            text = template.replace(placeholder, self.conversation(column).text)
            self._conversation_cache[key] = user(*(self.images if include_images else ()), text)
        return self._conversation_cache[key]
