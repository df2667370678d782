"""Multiple choice: which options a question offers. Which one an answer chooses:
`motet.rewards.text.choice_parsing`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from motet.core.conversation import IMAGE_PLACEHOLDER

_LINE = re.compile(r"\s*\(?([A-Z])\)?[.):]\s+(\S.*?)\s*")
_MARK = re.compile(r"(?<![\w(])\(?([A-Z])[.):]\s+")
_OWN_LETTER = re.compile(r"\s*\(?([A-Z])[.):]\s+(\S.*)", re.DOTALL)


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
    """`... (A) cat (B) dog`: the texts between the letters A, B, ... of the last such list; None without one."""
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


def text_of_question(question: Any) -> str:
    """The text of a question that is a string or chat messages, one part per line, without `<image>` placeholders."""
    if isinstance(question, str):
        return question.replace(IMAGE_PLACEHOLDER, "").strip() if IMAGE_PLACEHOLDER in question else question
    texts = []
    for message in question or ():
        content = message.get("content")
        parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content or ()]
        texts.extend(text_of_question(part) for part in parts)
    return "\n".join(texts)
