"""Multiple choice: which options a question offers, and which one an answer chooses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from motet.rewards.answers import normalise, unwrap

_LINE = re.compile(r"\s*\(?([A-Z])\)?[.):]\s+(\S.*?)\s*")
_MARK = re.compile(r"(?<![\w(])\(?([A-Z])[.):]\s+")
_OWN_LETTER = re.compile(r"\s*\(?([A-Z])[.):]\s+(\S.*)", re.DOTALL)
_LEAD = re.compile(
    r"(?:(?:so|thus|therefore|hence)[, ]+)?(?:"
    r"(?:(?:my|the) )?(?:(?:final|correct|right|best) )*(?:answer|option|choice)\b"
    r"(?: (?:is|would be|must be|should be))?\s*[:=]?\s*"
    r"|(?:i (?:would )?(?:choose|pick|select|think|believe|go with)(?: that)?|it is|it's|it must be)[:, ]+)",
    re.IGNORECASE,
)
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\]]?(?![A-Za-z0-9'])")
_BREAK = re.compile(r"(?:[\s.:,;)\]–—]|-(?![0-9]))*")  # but the sign of a number
_REASON = re.compile(
    r"(?:^|[\s.,;:(–—-]+)(?:because|since|as(?! well)|due to|(?:and |but )?not|rather than|instead of)\b", re.I
)
_RIGHT = re.compile(
    r"\s+is\s+(?:the\s+)?(?:correct|right|best)?(?:\s*(?:answer|option|choice))?\s*[.!]*$", re.IGNORECASE
)
_CLAIMS = (
    re.compile(r"\b(?i:answer|choice)\s*(?:is|:|=|would be)\s*(?:option\s*)?[(\[]?([A-Z])\b"),
    re.compile(r"\b([A-Z])[)\]]?\s+is\s+(?:the\s+)?(?:correct|right|best|answer)\b"),
)


def options_of(question: Any, column: Sequence[Any] | None) -> list[str] | None:
    """The texts of the options A, B, ...: those of the row's column, else `A. text` in the question, else None.

    `question` is a string or chat messages; its options stand on lines of their own, or one after another on one.
    Options that carry their own letters lose them.
    """
    if column is not None and len(column):
        texts = [str(option).strip() for option in column]
        own = [_OWN_LETTER.fullmatch(text) for text in texts]
        if all(m is not None and m[1] == letter for m, letter in zip(own, ascii_uppercase, strict=False)):
            texts = [m[2].strip() for m in own if m is not None]
        return texts
    text, options = text_of_question(question), []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match and match[1] == "A":
            options = [match[2]]
        elif match and options and match[1] == ascii_uppercase[len(options) % 26]:
            options.append(match[2])
    return options if len(options) > 1 else _options_in_line(text)


def _options_in_line(text: str) -> list[str] | None:
    """`... (A) cat (B) dog`: what stands between the letters A, B, ... of the last list of them, None without one."""
    marks = list(_MARK.finditer(text))
    begin = max((place for place, mark in enumerate(marks) if mark[1] == "A"), default=len(marks))
    chosen: list[re.Match[str]] = []
    for mark in marks[begin:]:
        if mark[1] == ascii_uppercase[len(chosen) % 26]:
            chosen.append(mark)
    if len(chosen) < 2:
        return None
    ends = [*(mark.start() for mark in chosen[1:]), len(text)]
    options = [text[mark.end() : end].partition("\n")[0].strip(" \t,;") for mark, end in zip(chosen, ends, strict=True)]
    return options if all(options) else None


def letter_of(gold: str, options: Sequence[str] | None) -> str | None:
    """The letter that a gold answer means: a letter, an option's text, or both (`B. cat`); None when it means none."""
    return _strict(gold.strip(), options)


def chosen_letter(answer: str, options: Sequence[str] | None) -> str | None:
    """The letter of the one option that an answer chooses, None when it chooses none or more than one.

    Understood: a letter (`B`, `b.`, `(B)`), an option's text, both (`B. cat`), each after a lead (`the answer is`,
    `option`), and before a reason (`because A is wrong`). Anything else is no choice.
    """
    plain = " ".join(answer.replace("*", "").replace("`", "").replace("’", "'").split())
    bare = plain
    while (match := _LEAD.match(bare)) and match.end():
        bare = bare[match.end() :]
    for text in (plain, bare):
        letter = _strict(text, options)
        if letter is not None:
            return letter
    reason = _REASON.search(bare)
    if reason is None:
        return None
    letter = _strict(bare[: reason.start()], options)
    claims = {claim for pattern in _CLAIMS for claim in pattern.findall(bare[reason.start() :])}
    return letter if claims <= {letter} else None


def _strict(text: str, options: Sequence[str] | None) -> str | None:
    """A letter, an option's text, both, or one of them `is correct`."""
    letters = ascii_uppercase if options is None else ascii_uppercase[: len(options)]
    bare = _RIGHT.sub("", text)
    for candidate in (text, bare):
        alone, normal = unwrap(candidate).upper(), normalise(candidate)
        if len(alone) == 1 and alone in letters:
            return alone
        same = [letter for letter, option in zip(letters, options or (), strict=False) if normalise(option) == normal]
        if same and normal:
            return same[0] if len(same) == 1 else None
    match = _LETTER.match(bare)
    if match is None or match[1].upper() not in letters:
        return None
    letter = match[1].upper()
    rest = _BREAK.sub("", bare[match.end() :], count=1)
    if not rest or (options is not None and normalise(rest) == normalise(options[letters.index(letter)])):
        return letter
    return None


def text_of_question(question: Any) -> str:
    """The words of a question that is a string or chat messages, one part per line."""
    if isinstance(question, str):
        return question
    texts = []
    for message in question or ():
        content = message.get("content")
        parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content or ()]
        texts.extend(parts)
    return "\n".join(texts)
