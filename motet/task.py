"""A task: one dataset row, as a scenario and a reward see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from motet.conversation import Conversation, from_chat, user
from motet.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Task:
    """One row of data.

    `columns` are the dataset's columns, passed to rewards as keyword arguments.
    `index` identifies the row within the run (it seeds the sampling noise); `sibling` says which of the G
    trajectories of the group this is.
    """

    index: int
    columns: Mapping[str, Any]
    sibling: int = 0
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

    def for_sibling(self, sibling: int) -> Task:
        """This task as sibling number `sibling` sees it; the conversations are the same objects."""
        return replace(self, sibling=sibling)

    @property
    def images(self) -> list[Image.Image]:
        """The row's input pictures: column `images` (a list) or `image` (one), or none."""
        if self.columns.get("images") is not None:
            return list(self.columns["images"])
        image = self.columns.get("image")
        return [] if image is None else [image]

    @property
    def prompt(self) -> Conversation:
        """What to draw or to think about: the column `prompt`, a string or chat messages."""
        return self._conversation("prompt", ())

    @property
    def question(self) -> Conversation:
        """What to answer: the row's pictures, then the column `question` (a string or chat messages)."""
        return self._conversation("question", self.images)

    @property
    def instruction(self) -> Conversation:
        """What to change: the row's pictures, then the column `instruction` (a string or chat messages)."""
        return self._conversation("instruction", self.images)

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
            place, content = f"{{{column}}}", self[column]
            if place not in template or "{" in template.replace(place, ""):
                raise ConfigError(
                    f"The instruction {template!r} is to hold the row's {column!r} at {place}, and no other braces.",
                    fix=f"write {place} where it belongs.",
                )
            words = content if isinstance(content, str) else from_chat(content, self.images).text
            self.built[key] = user(*(self.images if pictures else ()), template.replace(place, words))
        return self.built[key]

    def _conversation(self, column: str, pictures: Sequence[Image.Image]) -> Conversation:
        if column not in self.built:
            content = self[column]
            self.built[column] = user(*pictures, content) if isinstance(content, str) else from_chat(content, pictures)
        return self.built[column]
