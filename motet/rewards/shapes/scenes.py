"""The shapes world's verifier for images that must show one scene: an edit, a restored image, a regenerated image.

The target scene is parsed from an image of the row, so that no column of scenes is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from motet.core.errors import DataError
from motet.rewards.base import reward
from motet.rewards.image.pairwise import ImagePairReward
from motet.rewards.image.pixels import scatter_scores, unique_by_identity
from motet.rewards.info import RewardInfo
from motet.rewards.options import check_bool, check_choice, check_int, check_number
from motet.shapes.render import VOCABULARIES
from motet.shapes.scene import Scene
from motet.shapes.verifier import ParsedImage, compare, layout_free_spec, parse_scenes, verify


@reward("scene_match", info=RewardInfo(range="0 or 1; with partial [0, 1]"))
@dataclass(eq=False, kw_only=True)
class SceneMatch(ImagePairReward):
    """Whether the image shows exactly the scene of another image: 1 or 0, by the shapes world's verifier.

    The other image is the row's input image, or that of `column` or of the act `to`; `act` is the act that is scored
    (default: the last image). With `partial` p in [0, 1] it is (1 - p) * exact + p * fraction of correct cells, empty
    ones included: a copy of the source has 14 or 15 of 16 correct. `world` and `grid` are those of `data.options`.
    `match_cells: false` requires the same objects in any cells, as a caption lists them; the fraction is then that of
    the objects (see `motet.shapes.verifier.verify`).
    """

    name: ClassVar[str] = "scene_match"

    world: Any = "small"
    grid: Any = 4
    partial: Any = 0.0
    match_cells: Any = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "world", self.world, tuple(VOCABULARIES))
        check_int(self.name, "grid", self.grid, 2)
        check_number(self.name, "partial", self.partial, 0.0, 1.0)
        check_bool(self.name, "match_cells", self.match_cells)

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """One score per completion; None where the scored act or the other image is missing."""
        places, pairs = self.pairs(completions, columns)
        others, place_of = unique_by_identity([other for _, other in pairs])
        scenes = self._target_scenes(others)
        parsed = parse_scenes([generated for generated, _ in pairs], self.grid, self.world)
        values = [self._score(parsed, scenes[n]) for parsed, n in zip(parsed, place_of, strict=True)]
        return scatter_scores(len(completions), places, values)

    def _score(self, parsed: ParsedImage, target: Scene | None) -> float:
        if target is None:
            return 0.0
        result = compare(parsed, target) if self.match_cells else verify(parsed, layout_free_spec(target))
        return (1 - self.partial) * float(result.correct) + self.partial * result.partial

    def _target_scenes(self, images: Sequence[Image.Image]) -> list[Scene | None]:
        """The target scenes; None for an image of another act that cannot be parsed: nothing matches it."""
        found = parse_scenes(images, self.grid, self.world)
        return [self._target_scene(parsed.scene, bool(parsed.unreadable)) for parsed in found]

    def _target_scene(self, scene: Scene, unreadable: bool) -> Scene | None:
        if unreadable and self.to is None:
            raise DataError(
                f"An image in the column {self.column!r} is not an image of the {self.world} shapes world with "
                f"{self.grid} x {self.grid} cells, for {self.name!r}.",
                fix="set rewards.options.world and rewards.options.grid to those of data.options.",
            )
        return None if unreadable else scene


@reward("edit_shapes", info=RewardInfo(range="0 or 1; with partial [0, 1]"))
@dataclass(eq=False, kw_only=True)
class EditShapes(SceneMatch):
    """Whether an edit shows exactly the requested scene: `scene_match` of the act `edit` with column `edited`."""

    name: ClassVar[str] = "edit_shapes"

    act: Any = "edit"
    column: Any = "edited"


@reward("restored_shapes", info=RewardInfo(range="0 or 1; with partial [0, 1]"))
@dataclass(eq=False, kw_only=True)
class RestoredShapes(SceneMatch):
    """Whether an edit was inverted exactly: `scene_match` of the act `restored` with the row's input image."""

    name: ClassVar[str] = "restored_shapes"

    act: Any = "restored"
