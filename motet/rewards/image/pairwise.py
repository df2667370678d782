"""Rewards that compare a generated image with another image: of the row, or of another act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from motet.core.errors import DataError
from motet.rewards.base import ModelReward
from motet.rewards.image.pixels import image_of
from motet.rewards.options import check_non_empty, raise_option_error

Pair = tuple[Image.Image, Image.Image]
"""The generated image, and the image that it is compared with."""


@dataclass(eq=False, kw_only=True)
class ImagePairReward(ModelReward):
    """`act` names the act whose last image is scored (None: the last image of the completion).

    It is compared with the image in `column` (`images` or `image`: the row's first), or with that of the act `to`.
    """

    name: ClassVar[str] = ""

    act: Any = None
    column: Any = "images"
    to: Any = None

    def __post_init__(self) -> None:
        for option, value in (("act", self.act), ("to", self.to)):
            if value is not None:
                check_non_empty(self.name, option, value, "name of an act")
        check_non_empty(self.name, "column", self.column, "name of a column")
        if self.to is not None and self.to == self.act:
            raise_option_error(
                self.name, "to", self.to, "is the scored act itself", fix="name another act, or a column."
            )

    @property
    def required_columns(self) -> tuple[str, ...]:
        return () if self.to is not None else (self.column,)

    @property
    def reads_acts(self) -> tuple[str, ...]:
        return tuple(name for name in (self.act, self.to) if name is not None)

    def pairs(self, completions: Sequence[Any], columns: Mapping[str, Any]) -> tuple[list[int], list[Pair]]:
        """The indices of the completions to score, and their pairs.

        Completions without one of the acts, and rows whose column is None, are left out. Raises DataError for a column
        that does not contain an image.
        """
        places, found = [], []
        for place, completion in enumerate(completions):
            generated = image_of(completion, self.act)
            other = image_of(completion, self.to) if self.to is not None else self._image_of_column(columns, place)
            if generated is not None and other is not None:
                places.append(place)
                found.append((generated, other))
        return places, found

    def _image_of_column(self, columns: Mapping[str, Any], place: int) -> Image.Image | None:
        rows = columns.get("images" if self.column == "image" else self.column)
        given = rows[place] if rows is not None else None
        if self.column in ("image", "images"):
            given = given[0] if given else None
        if given is not None and not isinstance(given, Image.Image):
            raise DataError(
                f"The column {self.column!r} holds a {type(given).__name__}, not an image, for {self.name!r}.",
                fix="map the row's image to it with data.columns.image=NAME and leave rewards.options.column out.",
            )
        return given
