"""Three-letter words as a dataset: `the word "CAT"` with an image of CAT, deterministic by (seed, split, index).

A word is any three capitals: 17,576 words. Three in four are in the split `train`, one in five in `prompts`, one in 20
in `test`: supervised training needs images, RL by a reward for the text in the image only prompts.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from string import ascii_uppercase
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean

WORDS = tuple("".join(letters) for letters in product(ascii_uppercase, repeat=3))
PHRASES = ('the word "{}"', 'a sign that says "{}"', 'an image with the text "{}"', '"{}" in black letters')
SPLITS = ("train", "prompts", "test")
_SPLIT_OF = {0: "test", 1: "prompts", 2: "prompts", 3: "prompts", 4: "prompts"}
"""Splits of words by their checksum modulo 20; the others are in `train`."""
_DEFAULTS = {"canvas": 48, "font_size": 18, "typos": 0.0}


class WordsRows:
    """Rows with the columns `prompt`, `word` and `target`, an image of the word; endless.

    Options: `canvas`, the side of the images in pixels; `font_size` of Pillow's own font; `typos`, the fraction of
    letters in images that are random ones instead. Raises ConfigError for an unknown split or option.
    """

    def __init__(self, split: str, seed: int, options: Mapping[str, Any]) -> None:
        if split not in SPLITS:
            raise ConfigError(f"data.split={split!r} is not a split of words.", fix=f"use one of: {', '.join(SPLITS)}.")
        for name, value in options.items():
            if name not in _DEFAULTS:
                raise ConfigError(
                    f"data.options has an unknown key {name!r}.{did_you_mean(name, _DEFAULTS)}",
                    fix=f"the options of words are {', '.join(_DEFAULTS)}.",
                )
            kinds, low, high = ((int, float), 0, 1) if name == "typos" else ((int,), 8, 1024)
            if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
                kind = "a number" if name == "typos" else "an integer"
                raise ConfigError(f"data.options.{name}={value!r} is not {kind} of {low} to {high}.", fix="give one.")
        self.split, self.seed = split, seed
        self.words = words_of(split)
        self._look = {**_DEFAULTS, **options}
        self._typos = self._look.pop("typos")

    def row(self, index: int) -> dict[str, Any]:
        """A word in a random phrase; the rows of one pass over the words of the split show each once."""
        turn, place = divmod(index, len(self.words))
        key = [self.seed, SPLITS.index(self.split), turn]
        word = self.words[int(np.random.default_rng(key).permutation(len(self.words))[place])]
        rng = np.random.default_rng([*key, place])
        phrase = PHRASES[int(rng.integers(len(PHRASES)))]
        typed = zip(
            word, rng.random(len(word)) < self._typos, rng.choice(list(ascii_uppercase), len(word)), strict=True
        )
        shown = "".join(other if wrong else letter for letter, wrong, other in typed)
        return {"prompt": phrase.format(word), "word": word, "target": render(shown, **self._look)}


def words_of(split: str) -> tuple[str, ...]:
    """The words of a split."""
    return tuple(word for word in WORDS if _SPLIT_OF.get(zlib.crc32(word.encode()) % 20, "train") == split)


def render(word: str, canvas: int, font_size: int) -> Image.Image:
    """The word in black on white, each letter centred in a cell of the same width; capitals stand in the middle."""
    font, cell = _font(font_size), font_size * 7 // 9
    image = Image.new("RGB", (canvas, canvas), "white")
    draw = ImageDraw.Draw(image)
    for place, letter in enumerate(word):
        left, _, right, _ = font.getbbox(letter, anchor="ls")
        middle = canvas / 2 + cell * (place - (len(word) - 1) / 2)
        at = (round(middle - (left + right) / 2), canvas // 2 + round(0.36 * font_size))
        draw.text(at, letter, font=font, fill="black", anchor="ls")
    return image


@lru_cache(maxsize=8)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
