"""The OCR reward by hand with a fake reader, and the real reader on rendered words."""

import sys
from types import SimpleNamespace

import pytest

from motet.config import RewardConfig
from motet.core.errors import ConfigError, DataError, RewardError
from motet.rewards import bind_policy, resolve
from motet.rewards.image.ocr import Ocr, OcrExact, OcrReader, edit_distance, quoted_text
from motet.testing import FakePolicy
from motet.words.world import render, words_of
from tests.rewards.judges import image, shows

pytest.importorskip("rapidocr")


def scores(reads, prompts, given_as="prompt", kind=Ocr, **options):
    """The reward for images in which `reads` are read."""
    reward = kind(**options)
    reward._read = lambda images: [reads[one.width] for one in images]
    images = [image("red", (width, 1)) for width in range(len(prompts))]
    return reward(completions=shows(*images), **{given_as: prompts})


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edit_distance_by_hand(first, second, distance):
    assert edit_distance(first, second) == distance


def test_the_wanted_text_is_the_first_in_double_quotes():
    assert quoted_text('a sign "New York" and "Rome"') == "New York"
    assert quoted_text("a sign “New York”") == "New York"
    assert quoted_text("it's a 'sign'") is None


@pytest.mark.parametrize(
    ("read", "score"),
    [("Hello World", 1.0), ("helloworld", 1.0), ("hell world", 0.9), ("", 0.0), ("Hello World!", 0.9),
     ("some other long text here", 0.0), ("hlo wold", 0.7)],
)  # fmt: skip
def test_one_minus_distance_by_length_at_least_zero(read, score):
    assert scores([read], ['a shop with "Hello World" over the door']) == [pytest.approx(score)]


def test_options_by_hand():
    prompts = ['the word "AB"']
    assert scores(["ab"], prompts) == [1.0]
    assert scores(["ab"], prompts, ignore_case=False) == [0.0]
    assert scores(["Ab"], prompts, ignore_case=False) == [0.5]
    assert scores(["A B"], prompts, ignore_spaces=False) == [0.5]
    assert scores(["A  B"], ['"A B"'], ignore_spaces=False) == [1.0]
    assert scores(["xxab"], prompts) == [0.0]
    assert scores(["xxab"], prompts, extra_text=True) == [1.0]
    assert scores(["xxb"], prompts, extra_text=True) == [0.0]
    assert scores(["ax", "ab"], prompts * 2, kind=OcrExact) == [0.0, 1.0]


def test_a_column_instead_of_the_quoted_text():
    assert scores(["cat", "cat"], ["CAT", None], "word", column="word") == [1.0, None]
    assert Ocr(column="word").required_columns == ("word",)
    assert Ocr().required_columns == ("prompt",)


def test_a_prompt_as_chat_messages():
    chat = [{"role": "user", "content": [{"type": "text", "text": 'the word "CAT"'}]}]
    assert scores(["cat"], [chat]) == [1.0]


def test_rows_without_a_quoted_text_and_failed_generations_get_none():
    assert scores(["cat"], ["a cat"]) == [None]
    reward = Ocr()
    reward._read = lambda images: ["cat"] * len(images)
    completions = [[], *shows(image("red"))]
    assert reward(completions=completions, prompt=['"cat"', '"cat"']) == [None, 1.0]


@pytest.mark.parametrize("row", [{"prompt": 'the word ""'}, {"prompt": 'the word " "'}])
def test_an_empty_text_raises(row):
    with pytest.raises(DataError, match="has no text to read"):
        Ocr().check_row(row)


def test_a_column_that_is_not_a_text_raises():
    with pytest.raises(DataError, match="The column 'word' holds 3"):
        Ocr(column="word").check_row({"word": 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": ""}, "column=''"),
        ({"ignore_case": 1}, "ignore_case=1"),
        ({"detect_side": 8}, "detect_side=8"),
        ({"line_width": 8}, "line_width=8"),
        ({"threads": 0}, "threads=0"),
        ({"min_confidence": 2}, "min_confidence=2"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ConfigError, match=message):
        Ocr(**options)


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("motet.rewards.image.ocr.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the packages rapidocr") as raised:
        Ocr()
    assert raised.value.fix == 'pip install "motet[ocr]".'


def fake_engine(monkeypatch, read):
    """rapidocr with an engine that calls `read` with the side of the image."""
    engine = SimpleNamespace(RapidOCR=lambda params: lambda pixels: read(len(pixels)))
    monkeypatch.setitem(sys.modules, "rapidocr", engine)


def test_lines_are_joined_without_those_of_low_confidence(monkeypatch):
    fake_engine(monkeypatch, lambda side: SimpleNamespace(txts=("AB", "x", str(side)), scores=(0.9, 0.2, 0.5)))
    images = [image("red", (side, side)) for side in range(1, 7)]
    wanted = [f"AB {side}" for side in range(1, 7)]
    assert OcrReader()(images) == OcrReader(threads=3)(images) == wanted
    assert OcrReader(min_confidence=0.0)(images[:1]) == ["AB x 1"]


def test_nothing_read_is_an_empty_text(monkeypatch):
    fake_engine(monkeypatch, lambda side: SimpleNamespace(txts=None, scores=None))
    assert OcrReader()([image("red")]) == [""]


def test_an_engine_that_fails_raises(monkeypatch):
    def fails(side):
        raise ValueError("no memory")

    fake_engine(monkeypatch, fails)
    with pytest.raises(RewardError, match="OCR cannot read an image of 8 x 8 pixels: ValueError"):
        OcrReader()([image("red", (8, 8))])


def test_rewards_with_the_same_options_read_an_image_once(monkeypatch):
    read = []
    first, second, other = Ocr(), OcrExact(), Ocr(line_width=96)
    fake_engine(monkeypatch, lambda side: read.append(side) or SimpleNamespace(txts=("cat",), scores=(1.0,)))
    for reward in (first, second, other):
        reward.prepare(FakePolicy())
    completions = shows(image("red", (8, 8)), image("red", (9, 9)))
    assert first(completions, prompt=['"cat"', '"cab"']) == [1.0, pytest.approx(2 / 3)]
    assert second(completions, prompt=['"cat"', '"cab"']) == [1.0, 0.0]
    assert read == [8, 9]
    assert other(completions[:1], prompt=['"cat"']) == first(completions[:1], prompt=['"cat"']) == [1.0]
    assert read == [8, 9, 8, 8]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "right"),
    [({}, 38), ({"detect": False}, 39), ({"detect": False, "line_width": 48}, 38), ({"threads": 2}, 38)],
)
def test_the_real_reader_reads_rendered_words(options, right):
    words = words_of("test")[::6][:40]
    config = RewardConfig(name="ocr_exact", options=options)
    (reward,) = bind_policy([resolve(config, {"image": "image"}, ("prompt",))], FakePolicy())
    images = [render(word, 64, 28) for word in words]
    values = reward(prompts=[], completions=shows(*images), prompt=[f'the word "{word}"' for word in words])
    assert sum(values) >= right
    blank = reward(prompts=[], completions=shows(image("white", (64, 64))), prompt=['the word "CAT"'])
    assert blank == [0.0]
