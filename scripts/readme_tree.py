"""Rewrite the file tree in README.md from the first lines of docstrings.

python scripts/readme_tree.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "motet"
WIDTH = 100
# Entries in reading order.
ORDER = ("trajectory.py", "task.py", "conversation.py", "protocols.py", "errors.py", "config/", "loop.py", "")


def caption(path: Path) -> str:
    """The first sentence of the docstring of a module, or of a folder's `__init__.py`, cut to one line at a pause."""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    first = re.split(r"(?<=[.;])\s", " ".join(text.split()))[0].rstrip(".:;")
    return first if len(first) <= WIDTH else re.split(r"[,;:]\s(?!.*[,;:]\s)", first[:WIDTH])[0]


def rank(name: str) -> tuple[int, bool, str]:
    place = next(number for number, start in enumerate(ORDER) if name.startswith(start))
    return place, "/" in name, name


def main() -> None:
    places = {path.name: path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"}
    places |= {f"{path.parent.relative_to(PACKAGE)}/": path for path in PACKAGE.glob("*/**/__init__.py")}
    width = max(map(len, places)) + 2
    lines = [f"  {name:<{width}}{caption(places[name])}" for name in sorted(places, key=rank)]
    readme = ROOT / "README.md"
    block = "```\nmotet/\n" + "\n".join(lines) + "\n```"
    text = re.sub(r"```\nmotet/\n.*?\n```", lambda _: block, readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
