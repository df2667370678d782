"""A task: one dataset row, as a scenario and a reward see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from motet.conversation import Conversation, from_chat, user
from motet.errors import DataError


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

    def _conversation(self, column: str, pictures: Sequence[Image.Image]) -> Conversation:
        if column not in self.built:
            content = self[column]
            self.built[column] = user(*pictures, content) if isinstance(content, str) else from_chat(content, pictures)
        return self.built[column]
