"""Parse answers from text, and compare them in normal form."""

from __future__ import annotations

import re
import unicodedata

_TAG = re.compile(r"<\s*(?:/\s*)?(?:think|answer)\s*>", re.IGNORECASE)  # never \s* beside \s*: quadratic in spaces
_FORMAT = re.compile(r"\s*<think>(?P<thought>.*)</think>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL)

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_NUMBERS = {word: n for n, word in enumerate(_UNITS)} | _TENS
_NUMBERS |= {f"{ten}-{_UNITS[unit]}": value + unit for ten, value in _TENS.items() for unit in range(1, 10)}
_NUMERAL = re.compile(r"([+-]?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.([0-9]*))?")
_PAIRS = (("(", ")"), ("[", "]"), ('"', '"'), ("'", "'"), ("`", "`"), ("**", "**"), ("*", "*"), ("$", "$"))
_PAIRS += ((r"\boxed{", "}"), (r"\text{", "}"))
_SAME = str.maketrans({"−": "-", "‘": "'", "’": "'", "“": '"', "”": '"'})


def extract_answer(text: str) -> str | None:
    """The content of the one `<answer>...</answer>` block, trimmed; None when there is not exactly one, or it is empty.

    A block inside a thought does not count, nor does one that holds another tag.
    """
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    before, _, rest = text.partition("<answer>")
    inside, closed, _ = rest.partition("</answer>")
    if not closed or _TAG.search(inside) or before.count("<think>") > before.count("</think>"):
        return None
    return inside.strip() if visible(inside) else None


def well_formed(text: str) -> bool:
    """CoRL's format, strictly: `<think>thought</think><answer>answer</answer>` with white space around and between.

    Each of the four tags occurs once in any spelling, the thought has a letter or a digit, the answer a visible mark.
    """
    match = _FORMAT.fullmatch(text)
    return (
        match is not None
        and len(_TAG.findall(text)) == 4
        and any(mark.isalnum() for mark in match["thought"])
        and visible(match["answer"])
    )


def visible(text: str) -> bool:
    """Whether a text has a visible character: not only zero-width characters and white space."""
    return any(mark.isprintable() and not mark.isspace() for mark in text)


def normalise(text: str) -> str:
    """The form in which equal answers are equal strings.

    Case, white space, wrapping quotes, brackets or markup, final punctuation and a leading article do not count;
    number words up to ninety-nine are numerals; `1,000`, `+4`, `04` and `4.0` are 1000, 4, 4 and 4. Nothing else is
    normalised: no synonyms, no rounding, no units. (NFC and not NFKC, which would turn `5²` into 52.)
    """
    words = unwrap(text).split(" ")
    if len(words) > 1 and words[0] in ("a", "an", "the"):
        words = words[1:]
    return " ".join(_join_numbers(words))


def same_answer(answer: str, gold: str) -> bool:
    """Strict equality of normal forms; an answer without content equals nothing."""
    normal = normalise(answer)
    return visible(normal) and normal == normalise(gold)


def unwrap(text: str) -> str:
    """`text` in lower case and single spaces, without wrapping marks and final punctuation."""
    text = " ".join(unicodedata.normalize("NFC", text).translate(_SAME).casefold().split())
    while (shorter := _peel(text)) != text:
        text = shorter
    return text


def _peel(text: str) -> str:
    for left, right in _PAIRS:
        if text.startswith(left) and text.endswith(right) and len(text) > len(left) + len(right):
            text = text[len(left) : len(text) - len(right)].strip()
    text = re.sub(r"(?<=[^\W\d])[!?]+$", "", text)  # `yes!`, but not `5!`
    return text.rstrip(".,;: ")


def _join_numbers(words: list[str]) -> list[str]:
    """Number words and numerals in one spelling; `twenty two` is one number."""
    joined: list[str] = []
    for word in words:
        tens = joined[-1] if joined else ""
        value = _NUMBERS.get(word)
        if value is not None and 0 < value < 10 and tens in _TENS:
            joined[-1] = str(_TENS[tens] + value)
        else:
            joined.append(word)
    return [str(_NUMBERS[word]) if word in _NUMBERS else _numeral(word) for word in joined]


def _numeral(word: str) -> str:
    match = _NUMERAL.fullmatch(word)
    if match is None or not any(mark.isdigit() for mark in word):
        return word
    sign, whole, fraction = match.groups()
    whole, fraction = whole.replace(",", "").lstrip("0"), (fraction or "").rstrip("0")
    number = (whole or "0") + (f".{fraction}" if fraction else "")
    return f"-{number}" if sign == "-" and number != "0" else number
