"""docs/how-to/own-act-kind.md: the kind on the page is registered, and recipes can set it."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-act-kind.md"
CHECK = """
from motet.config import parse_recipe

recipe = parse_recipe({"policy": {"path": "x"}, "run": {"steps": 1}}, ["sampling.patches.temperature=0.7"])
assert recipe.sampling.kinds()["patches"].at().temperature == 0.7
"""


def test_the_kind_of_the_page() -> None:
    """In a process of its own: a kind stays registered."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code + CHECK], capture_output=True, text=True, cwd=PAGE.parents[2])
    assert done.returncode == 0, done.stderr
