"""Promises of the house: sizes, the README's file tree, no paths of one machine, no pickles.

The tree in README.md is a fenced block whose first line is `motet/`; every further line is two spaces, a path below
motet/, at least two spaces, and a caption. It names every file of the package; `__init__.py` may go unnamed.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "motet"
SOURCES = sorted(PACKAGE.rglob("*.py"))

FILE_LINES, FUNCTION_LINES, CLASS_LINES, POSITIONAL = 350, 60, 200, 6

MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|farm|home/\w+)/|/opt/(?:wheels|pypi)")
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
TREE = re.compile(r"^```\w*\nmotet/\n(.*?)^```", re.MULTILINE | re.DOTALL)


def too_big(name: str, text: str) -> Iterator[str]:
    """What in a source text is larger than promised."""
    lines = len(text.splitlines())
    if lines > FILE_LINES:
        yield f"{name} has {lines} lines, more than {FILE_LINES}"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        length = (node.end_lineno or 0) - node.lineno + 1
        limit = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
        if length > limit:
            yield f"{name}:{node.lineno} {node.name} has {length} lines, more than {limit}"
        if not isinstance(node, ast.ClassDef):
            arguments = [argument.arg for argument in node.args.posonlyargs + node.args.args]
            count = len(arguments) - (arguments[:1] in (["self"], ["cls"]))
            if count > POSITIONAL:
                yield f"{name}:{node.lineno} {node.name} takes {count} positional arguments, more than {POSITIONAL}"


def pickles(name: str, text: str) -> Iterator[str]:
    """Where a source text could load a pickle, and so run what a stranger wrote into it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"{name}:{node.lineno} imports {m}" for m in module if m.split(".")[0] in PICKLERS)
        if isinstance(node, ast.Call):
            settings = {keyword.arg: keyword.value for keyword in node.keywords}
            for option, unsafe in [("weights_only", False), ("allow_pickle", True), ("trust_remote_code", True)]:
                value = settings.get(option)
                if isinstance(value, ast.Constant) and value.value is unsafe:
                    yield f"{name}:{node.lineno} says {option}={unsafe}"
            if ast.unparse(node.func) == "torch.load" and "weights_only" not in settings:
                yield f"{name}:{node.lineno} calls torch.load without weights_only=True"


def tree_errors(readme: str, files: set[str]) -> list[str]:
    """Where the README's tree and the package differ: its folders, and the files that are in none."""
    found = TREE.search(readme)
    if found is None:
        return ["README.md has no fenced block that starts with the line `motet/`"]
    errors: list[str] = []
    named: set[str] = set()
    for line in found.group(1).splitlines():
        entry = re.fullmatch(r"  (\S+)\s{2,}\S.*", line)
        if entry is None:
            errors.append(f"not of the form `  path   caption`: {line!r}")
        else:
            named.add(entry.group(1))
    places = {path.rpartition("/")[0] + "/" if "/" in path else path for path in files} - {"__init__.py"}
    errors += [f"{path} does not exist" for path in sorted(named - places)]
    errors += [f"{path} is not named" for path in sorted(places - named)]
    return errors


def tracked() -> list[Path]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_sizes_are_as_promised() -> None:
    assert SOURCES
    assert [error for path in SOURCES for error in too_big(str(path.relative_to(ROOT)), path.read_text())] == []


def test_nothing_loads_pickles() -> None:
    assert [error for path in SOURCES for error in pickles(str(path.relative_to(ROOT)), path.read_text())] == []


def test_the_readme_tree_matches_the_disk() -> None:
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("README.md is not written yet")
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    assert tree_errors(readme.read_text(), {path for path in files if "__pycache__" not in path}) == []


def test_no_file_holds_a_path_of_one_machine() -> None:
    found: list[str] = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        found += [
            f"{path.relative_to(ROOT)}:{n} {line[:120]}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)
        ]
    assert found == []


# --- each check sees what it is there to see


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n" * 351, "a.py has 351 lines, more than 350"),
        ("def f():\n" + "    x = 1\n" * 60, "a.py:1 f has 61 lines, more than 60"),
        ("class C:\n" + "    x = 1\n" * 200, "a.py:1 C has 201 lines, more than 200"),
        ("class C:\n    async def f(self, a, b, c, d, e, f, g): ...", "f takes 7 positional arguments, more than 6"),
        ("def f(a, b, c, /, d, e, f, g): ...", "f takes 7 positional arguments, more than 6"),
    ],
)
def test_what_is_too_big_is_seen(text: str, words: str) -> None:
    assert [error for error in too_big("a.py", text) if words in error]


def test_what_is_just_small_enough_passes() -> None:
    text = "class C:\n    def f(self, a, b, c, d, e, f, *, g, h):\n" + "        x = 1\n" * 59 + "x = 1\n" * 289
    assert not list(too_big("a.py", text))


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from dill import load",
        "import torch\ntorch.load('a')",
        f"torch.load('a', weights_only={False})",
        "numpy.load('a', allow_pickle=True)",
        f"AutoModel.from_pretrained('a', trust_remote_code={True})",
    ],
)
def test_what_loads_a_pickle_is_seen(text: str) -> None:
    assert list(pickles("a.py", text))


def test_what_loads_weights_only_passes() -> None:
    assert not list(pickles("a.py", "torch.load('a', weights_only=True)\nnumpy.load('b')\nimport json"))


@pytest.mark.parametrize(
    ("lines", "errors"),
    [
        (["  a.py   words", "  b/   words", "  b/c/   words"], []),
        (["  a.py   words", "  b/   words"], ["b/c/ is not named"]),
        (["  b/   words", "  b/c/   words"], ["a.py is not named"]),
        (["  a.py   words", "  b/   words", "  b/c/   words", "  d.py   words"], ["d.py does not exist"]),
        (["  a.py   words", "  b/   words", "  b/c/   words", "  e/   words"], ["e/ does not exist"]),
        (
            ["  a.py   words", "  b/   words", "  b/c/"],
            ["not of the form `  path   caption`: '  b/c/'", "b/c/ is not named"],
        ),
    ],
)
def test_a_wrong_tree_is_seen(lines: list[str], errors: list[str]) -> None:
    readme = "\n".join(["# motet", "```text", "motet/", *lines, "```", ""])
    assert tree_errors(readme, {"a.py", "__init__.py", "b/__init__.py", "b/x.py", "b/c/y.py"}) == errors


def test_a_readme_without_a_tree_is_seen() -> None:
    assert tree_errors("# motet\n", {"a.py"}) == ["README.md has no fenced block that starts with the line `motet/`"]


@pytest.mark.parametrize("path", ["work/main/x", "root/x", "farm/x", "home/me/x", "opt/wheels", "opt/pypi/simple"])
def test_a_machine_path_is_seen(path: str) -> None:
    assert MACHINE_PATH.search(f"pip install --find-links /{path}")
    top = path.partition("/")[0]
    assert not MACHINE_PATH.search(f"https://example.org/{top}/a ~/{top}/ ../{top}/ runs/{top}/")
