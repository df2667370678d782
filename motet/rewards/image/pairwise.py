"""Rewards that compare a drawing with another picture: of the row, or of another act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from motet.core.errors import DataError
from motet.rewards.base import ModelReward
from motet.rewards.image.pixels import image_of
from motet.rewards.options import filled, refuse

Pair = tuple[Image.Image, Image.Image]
"""The drawing, and the picture that it is compared with."""


@dataclass(eq=False, kw_only=True)
class ImagePairReward(ModelReward):
    """`act` names the act whose last picture is judged (None: the last picture that is shown).

    It is compared with the picture in `column` (`images` or `image`: the row's first), or with that of the act `to`.
    """

    name: ClassVar[str] = ""

    act: Any = None
    column: Any = "images"
    to: Any = None

    def __post_init__(self) -> None:
        for option, value in (("act", self.act), ("to", self.to)):
            if value is not None:
                filled(self.name, option, value, "name of an act")
        filled(self.name, "column", self.column, "name of a column")
        if self.to is not None and self.to == self.act:
            refuse(self.name, "to", self.to, "is the judged act itself", fix="name another act, or a column.")

    @property
    def needs(self) -> tuple[str, ...]:
        return () if self.to is not None else (self.column,)

    @property
    def sees(self) -> tuple[str, ...]:
        return tuple(name for name in (self.act, self.to) if name is not None)

    def pairs(self, completions: Sequence[Any], columns: Mapping[str, Any]) -> tuple[list[int], list[Pair]]:
        """Which completions are to be judged, and their pairs.

        A completion that lacks one of the acts and a row whose column is None are not. Raises DataError for a column
        that holds no picture.
        """
        places, found = [], []
        for place, completion in enumerate(completions):
            drawing = image_of(completion, self.act)
            other = image_of(completion, self.to) if self.to is not None else self._given(columns, place)
            if drawing is not None and other is not None:
                places.append(place)
                found.append((drawing, other))
        return places, found

    def _given(self, columns: Mapping[str, Any], place: int) -> Image.Image | None:
        rows = columns.get("images" if self.column == "image" else self.column)
        given = rows[place] if rows is not None else None
        if self.column in ("image", "images"):
            given = given[0] if given else None
        if given is not None and not isinstance(given, Image.Image):
            raise DataError(
                f"The column {self.column!r} holds a {type(given).__name__}, not a picture, for {self.name!r}.",
                fix="map the row's picture to it with data.columns.image=NAME and leave rewards.options.column out.",
            )
        return given
