"""What the shapes worlds share: prompts, scenes and questions of one split, from which tasks make their rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from motet.core.errors import ConfigError
from motet.shapes.options import PROMPTS, LargeOptions, WorldOptions
from motet.shapes.prompts import Rng, Spec, choose
from motet.shapes.questions import Question, Thought
from motet.shapes.render import Vocabulary, render
from motet.shapes.scene import Scene, ShapeInstance
from motet.shapes.split import in_test_split

COLUMNS = (
    "prompt", "category", "spec", "target", "image", "question", "options", "answer", "kind", "solution", "scene",
)  # fmt: skip
"""Of the task `prompts`."""

Options = TypeVar("Options", bound=WorldOptions | LargeOptions)


class World(ABC, Generic[Options]):
    """Rows of a shapes world; endless when `size` is None. Row i depends on (seed, split, i) alone."""

    title: ClassVar[str]
    """The world in messages."""
    vocabulary: ClassVar[Vocabulary]
    splits: ClassVar[Sequence[str]]
    kinds: ClassVar[Sequence[str]]
    hard_kinds: ClassVar[Sequence[str]]
    categories: ClassVar[Sequence[str]]
    hard_categories: ClassVar[Sequence[str]]
    short_cot_fraction: float = 0.0
    """Fraction of the chains of thought without a list of the image."""

    def __init__(self, split: str, seed: int, options: Options, size: int | None = None) -> None:
        if split not in self.splits:
            raise ConfigError(
                f"data.split={split!r} is not a split of {self.title}.", fix=f"use one of: {', '.join(self.splits)}."
            )
        self.split, self.seed, self.size, self.options = split, seed, size, options
        trains = split == "train"  # evaluation uses the uniform distribution
        self._hard = options.hard_fraction if trains else 0.0
        self._kinds = options.parsed_question_kinds if trains else self.kinds
        self._hard_kinds = _some(self._kinds, self.hard_kinds)
        self._categories = options.parsed_categories if trains else self.categories
        self._hard_categories = _some(self._categories, self.hard_categories)
        self._caption_fraction = options.caption_fraction if trains else 0.0
        self.open_ended_fraction = options.open_ended_fraction if trains else 0.5
        render(Scene(options.grid, ()), options.canvas)  # rejects an impossible canvas now, not at row 0

    @abstractmethod
    def row(self, index: int) -> dict[str, Any]:
        """A row of the task, such as a prompt with its target image, and an image with a question."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the task."""
        return COLUMNS if self.options.task == PROMPTS else tuple(self.row(0))

    @abstractmethod
    def prompt(self, rng: Rng) -> tuple[str, Spec]:
        """A prompt that belongs to the split, and its spec."""

    @abstractmethod
    def target(self, rng: Rng, spec: Spec) -> Scene:
        """A random scene that satisfies the spec."""

    @abstractmethod
    def question(self, rng: Rng) -> tuple[Scene, Question]:
        """A question that belongs to the split, and the scene of its image."""

    @abstractmethod
    def text_question(self, rng: Rng) -> tuple[Scene, Question]:
        """The same for a scene that is described in words."""

    @abstractmethod
    def scene(self, rng: Rng) -> Scene:
        """A random scene of any content that the rows of the task may have."""

    @abstractmethod
    def may_list(self, scene: Scene) -> bool:
        """Whether texts of the split may name all objects of the scene."""

    @abstractmethod
    def may_count(self, scene: Scene) -> bool:
        """Whether texts of the split may say how many objects of a shape the scene has."""

    @abstractmethod
    def may_show_edit(self, before: Scene, after: Scene) -> bool:
        """Whether rows of the split may show both scenes."""

    @abstractmethod
    def may_instruct(self, there: Sequence[ShapeInstance], back: Sequence[ShapeInstance]) -> bool:
        """Whether an instruction of the split, and its inverse, may change or name these objects."""

    def question_kind(self, rng: Rng) -> str:
        """A random kind of question, with the weights of the options."""
        return choose(rng, self._hard_kinds if rng.random() < self._hard else self._kinds)

    def category(self, rng: Rng) -> str:
        """A random category of prompts, with the weights of the options."""
        return choose(rng, self._hard_categories if rng.random() < self._hard else self._categories)

    def thought(self, rng: Rng) -> Thought:
        """How the next solution thinks."""
        if rng.random() >= self.options.cot_fraction:
            return "direct"
        return "short" if self.short_cot_fraction > 0 and rng.random() < self.short_cot_fraction else "full"

    def wants_caption(self, rng: Rng) -> bool:
        """Whether the next question requests a caption."""
        return self._caption_fraction > 0 and rng.random() < self._caption_fraction

    def belongs_to_split(self, *keys: str) -> bool:
        """Whether all items with these keys belong to the split: an item is either for training or for validation."""
        return all(in_test_split(key) == (self.split != "train") for key in keys)

    def __len__(self) -> int:
        if self.size is None:
            raise TypeError("the shapes world is endless; give data.size for a finite one")
        return self.size


def _some(names: Sequence[str], hard: Collection[str]) -> Sequence[str]:
    """The names that are hard; all of them if none is."""
    return tuple(name for name in names if name in hard) or names
