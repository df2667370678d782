"""Rewrite the file tree in README.md from the modules' own first lines.

python scripts/readme_tree.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "motet"
# As a reader would visit them: the words, the story, then the rooms.
ORDER = ("trajectory.py", "task.py", "conversation.py", "protocols.py", "errors.py", "config/", "loop.py", "")


def caption(path: Path) -> str:
    """The first sentence of a module's docstring, cut to one line."""
    text = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    first = re.split(r"(?<=[.;])\s", " ".join(text.split()))[0].rstrip(".:;")
    return first if len(first) <= 90 else first[:89].rsplit(" ", 1)[0] + " ..."


def rank(name: str) -> tuple[int, int, str]:
    place = next(number for number, start in enumerate(ORDER) if name.startswith(start))
    return place, name.count("/"), name


def main() -> None:
    names = [p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"]
    width = max(map(len, names)) + 2
    lines = [f"  {name:<{width}}{caption(PACKAGE / name)}" for name in sorted(names, key=rank)]
    readme = ROOT / "README.md"
    block = "```\nmotet/\n" + "\n".join(lines) + "\n```"
    text = re.sub(r"```\nmotet/\n.*?\n```", lambda _: block, readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
