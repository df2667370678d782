"""Markdown of texts that others wrote, and of tables: nothing in them is read as markup, links or HTML."""

from __future__ import annotations

import html
import re
from typing import Any

from rich.table import Table
from rich.text import Text

from motet.core.printable import printable, without_passwords


def escape_markdown(text: str) -> str:
    """A text as one line that Markdown shows as it is: HTML, emphasis, links, code and table bars are escaped."""
    line = " ".join(without_passwords(printable(text)).split())
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", html.escape(line, quote=False)).replace("://", ":&#47;&#47;")


def code_block(text: str, language: str = "") -> str:
    """A fenced block, whose fence is longer than any run of backticks in the text."""
    text = without_passwords(printable(text)).rstrip()
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def markdown_table(table: Table) -> str:
    """A table of rich as Markdown, without colours."""
    columns = [[_plain(column.header), *map(_plain, column.cells)] for column in table.columns]
    head, *rows = zip(*columns, strict=True)
    lines = [head, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(cell: Any) -> str:
    text = Text.from_markup(cell).plain if isinstance(cell, str) else str(cell)
    return escape_markdown(text) or " "
