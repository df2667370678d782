"""Make text of models, files and users safe to print: without terminal control characters and passwords."""

from __future__ import annotations

import re
import unicodedata

_JOINERS = "\u200c\u200d"  # used in Persian and in emoji; harmless
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control and format characters (escape sequences, right-to-left overrides, zero-width ones), lone surrogates, and line
separators, by their Unicode category."""
_USER = re.compile(r"(?<=://)[^\s/?#'\"]+@")
_SECRET = re.compile(
    r"([?&][^\s=&#'\"]*(?:key|token|secret|passw(?:or)?d|pwd|auth|signature|sig)[^\s=&#'\"]*=)[^\s&#'\"]+",
    re.IGNORECASE,
)


def printable(text: str, *, lines: bool = True) -> str:
    r"""The text with `\x1b`, `\u202e` and the like in place of control characters.

    Tabs stay, and line breaks unless `lines` is False. Idempotent.
    """
    if text.isprintable():
        return text
    kept = "\t\n" if lines else "\t"
    return "".join(char if char in kept or not _is_hidden(char) else _escaped(char) for char in text)


def without_passwords(text: str) -> str:
    """The text with `***` for user and password in addresses (`https://user:password@host`), and for what a query
    calls a key, a token, a secret, a password or a signature (`?api_key=...`)."""
    return _SECRET.sub(r"\1***", _USER.sub("***@", text)) if "://" in text else text


def plural(count: int, noun: str) -> str:
    """The number with its noun: `1 step`, `2 steps`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN and char not in _JOINERS


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
