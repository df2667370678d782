"""The words world: words, splits, rows and images."""

import numpy as np
import pytest

from motet.config import DataConfig
from motet.core.errors import ConfigError
from motet.data import open_rows
from motet.rewards.image.ocr import quoted_text
from motet.words.world import SPLITS, WORDS, WordsRows, render, words_of


def test_every_word_is_in_one_split():
    splits = [words_of(split) for split in SPLITS]
    assert sorted(word for words in splits for word in words) == sorted(WORDS)
    assert [len(words) for words in splits] == [13108, 3535, 933]


def test_one_pass_shows_every_word_once_in_another_order_by_seed_and_pass():
    rows, count = WordsRows("test", 0, {}), len(words_of("test"))
    first, second = ([rows.row(i)["word"] for i in range(start, start + count)] for start in (0, count))
    assert sorted(first) == sorted(second) == sorted(words_of("test"))
    assert first != second
    assert first != [WordsRows("test", 1, {}).row(i)["word"] for i in range(count)]


def test_a_row_quotes_the_word_of_its_image():
    rows = WordsRows("train", 0, {"canvas": 64, "font_size": 24})
    shown = [rows.row(i) for i in range(20)]
    assert all(quoted_text(row["prompt"]) == row["word"] for row in shown)
    assert len({row["prompt"].replace(row["word"], "") for row in shown}) > 2
    assert all(row["target"] == render(row["word"], 64, 24) for row in shown)
    assert shown[3] == rows.row(3)


def test_letters_stand_in_cells_around_the_middle():
    for word in ("HHH", "BEJ"):
        dark = np.asarray(render(word, 48, 18).convert("L")) < 128
        columns, rows = dark.any(axis=0).nonzero()[0], dark.any(axis=1).nonzero()[0]
        assert abs(columns[0] - (47 - columns[-1])) <= 2
        assert rows[0] >= 16 and rows[-1] < 32


def test_the_image_of_a_letter_depends_only_on_its_place():
    first, second = (np.asarray(render(word, 48, 18)) for word in ("HAT", "HIP"))
    assert (first[:, :17] == second[:, :17]).all()
    assert (first[:, 17:] != second[:, 17:]).any()
    shifted = np.asarray(render("THU", 48, 18))
    assert (shifted[:, 17:31] == first[:, 3:17]).all()


def test_a_fraction_of_the_letters_in_images_is_wrong():
    clean, wrong = (WordsRows("train", 3, {"typos": fraction}) for fraction in (0.0, 0.5))
    rows = [(clean.row(i), wrong.row(i)) for i in range(200)]
    assert all(a["word"] == b["word"] and a["prompt"] == b["prompt"] for a, b in rows)
    same = [a["target"] == b["target"] for a, b in rows]
    assert 0.07 < sum(same) / len(same) < 0.22  # (1 - 0.5 * 25 / 26) ** 3 = 0.14
    assert wrong.row(5) == wrong.row(5)


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        ("held_out", {}, "data.split='held_out' is not a split of words"),
        ("train", {"canvass": 64}, "unknown key 'canvass'. Did you mean 'canvas'"),
        ("train", {"canvas": "64"}, "data.options.canvas='64' is not an integer"),
        ("train", {"font_size": True}, "data.options.font_size=True is not an integer of 8 to 1024"),
        ("train", {"typos": 2}, "data.options.typos=2 is not a number of 0 to 1"),
    ],
)
def test_a_wrong_split_or_option_raises(split, options, message):
    with pytest.raises(ConfigError, match=message):
        WordsRows(split, 0, options)


def test_it_is_a_data_source():
    rows = open_rows(
        DataConfig(source="words", split="test", options={"canvas": 32}), ("prompt",), image_columns=("target",)
    )
    assert rows.generated and rows.columns == ("prompt", "word", "target")
    assert rows.row(0)["target"].size == (32, 32)
