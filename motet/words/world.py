"""Three-letter words as a dataset: `the word "CAT"` with an image of CAT, deterministic by (seed, split, index).

A word is consonant, vowel, consonant, in capitals: 2205 words. Four in five are in the split `train`, half of the rest
in `prompts`, half in `test`: supervised training needs images, RL by a reward for the text in the image only prompts.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean

CONSONANTS, VOWELS = "BCDFGHJKLMNPQRSTVWXYZ", "AEIOU"
WORDS = tuple(a + b + c for a in CONSONANTS for b in VOWELS for c in CONSONANTS)
PHRASES = ('the word "{}"', 'a sign that says "{}"', 'an image with the text "{}"', '"{}" in black letters')
SPLITS = ("train", "prompts", "test")
_SPLIT_OF = {0: "test", 5: "prompts"}
"""Splits of words by the last digit of their checksum; the others are in `train`."""
_DEFAULTS = {"canvas": 48, "font_size": 18}


class WordsRows:
    """Rows with the columns `prompt`, `word` and `target`, an image of the word; endless.

    Options: `canvas`, the side of the images in pixels; `font_size` of Pillow's own font. Raises ConfigError for an
    unknown split or option.
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
            if isinstance(value, bool) or not isinstance(value, int) or not 8 <= value <= 1024:
                raise ConfigError(f"data.options.{name}={value!r} is not an integer of 8 to 1024.", fix="give one.")
        self.split, self.seed = split, seed
        self.words = words_of(split)
        self._look = {**_DEFAULTS, **options}

    def row(self, index: int) -> dict[str, Any]:
        """A word in a random phrase; the rows of one pass over the words of the split show each once."""
        turn, place = divmod(index, len(self.words))
        key = [self.seed, SPLITS.index(self.split), turn]
        word = self.words[int(np.random.default_rng(key).permutation(len(self.words))[place])]
        phrase = PHRASES[int(np.random.default_rng([*key, place]).integers(len(PHRASES)))]
        return {"prompt": phrase.format(word), "word": word, "target": render(word, **self._look)}


def words_of(split: str) -> tuple[str, ...]:
    """The words of a split."""
    return tuple(word for word in WORDS if _SPLIT_OF.get(zlib.crc32(word.encode()) % 10, "train") == split)


def render(word: str, canvas: int, font_size: int) -> Image.Image:
    """The word in black on white, centred by its width; capitals stand in the middle."""
    font = _font(font_size)
    left, _, right, _ = font.getbbox(word, anchor="ls")
    image = Image.new("RGB", (canvas, canvas), "white")
    at = ((canvas - (right - left)) // 2 - left, canvas // 2 + round(0.36 * font_size))
    ImageDraw.Draw(image).text(at, word, font=font, fill="black", anchor="ls")
    return image


@lru_cache(maxsize=8)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
