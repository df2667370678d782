"""The shapes world's exact judge of pictures that are to show one scene: an edit, its undoing, a redrawn picture.

The scene asked for is read off a picture of the row with the strict reader, so that no column of scenes is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from motet.core.errors import DataError
from motet.rewards.base import reward
from motet.rewards.image.pairwise import ImagePairReward
from motet.rewards.image.pixels import spread, unique_by_identity
from motet.rewards.options import boolean, number, whole
from motet.shapes.scene import Scene
from motet.shapes.verifier import ParsedImage, compare, layout_free_spec, parse_scenes, verify


@reward("scene_match")
@dataclass(eq=False, kw_only=True)
class SceneMatch(ImagePairReward):
    """Whether the drawing reads back as exactly the scene of another picture: 1 or 0, by the shapes world's reader.

    The other picture is the row's input picture, or what `column` or the act `to` name; `act` is the act that is judged
    (default: the last picture shown). With `partial` p in [0, 1] it is (1 - p) * exact + p * share of right cells. The
    share counts cells that stay empty: a copy of the source has 14 or 15 of 16 right. `grid` is the world's.
    `places: false` asks for the same things wherever they stand, as a caption in words names them; the share is then
    that of the things (see `motet.shapes.verifier.verify`).
    """

    name: ClassVar[str] = "scene_match"

    grid: Any = 4
    partial: Any = 0.0
    places: Any = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.name, "grid", self.grid, 2)
        number(self.name, "partial", self.partial, 0.0, 1.0)
        boolean(self.name, "places", self.places)

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """One score per completion; None where the judged act or the other picture is missing."""
        places, pairs = self.pairs(completions, columns)
        others, place_of = unique_by_identity([other for _, other in pairs])
        scenes = self._scenes(others)
        parsed = parse_scenes([drawing for drawing, _ in pairs], self.grid)
        values = [self._score(parsed, scenes[n]) for parsed, n in zip(parsed, place_of, strict=True)]
        return spread(len(completions), places, values)

    def _score(self, parsed: ParsedImage, asked: Scene | None) -> float:
        if asked is None:
            return 0.0
        result = compare(parsed, asked) if self.places else verify(parsed, layout_free_spec(asked))
        return (1 - self.partial) * float(result.correct) + self.partial * result.partial

    def _scenes(self, images: Sequence[Image.Image]) -> list[Scene | None]:
        """The scenes asked for; None for a picture of another act that cannot be read: nothing matches it."""
        return [self._asked(parsed.scene, bool(parsed.unreadable)) for parsed in parse_scenes(images, self.grid)]

    def _asked(self, scene: Scene, unreadable: bool) -> Scene | None:
        if unreadable and self.to is None:
            raise DataError(
                f"A picture in the column {self.column!r} is no picture of the shapes world with {self.grid} x "
                f"{self.grid} cells, for {self.name!r}.",
                fix="set rewards.options.grid to the grid of data.options.",
            )
        return None if unreadable else scene


@reward("edit_shapes")
@dataclass(eq=False, kw_only=True)
class EditShapes(SceneMatch):
    """Whether an edited picture shows exactly the asked scene: `scene_match` of the act `edit` with column `edited`."""

    name: ClassVar[str] = "edit_shapes"

    act: Any = "edit"
    column: Any = "edited"


@reward("restored_shapes")
@dataclass(eq=False, kw_only=True)
class RestoredShapes(SceneMatch):
    """Whether an edit was taken back exactly: `scene_match` of the act `restored` with the row's input picture."""

    name: ClassVar[str] = "restored_shapes"

    act: Any = "restored"
