"""Code style: limits on sizes, the README, no machine-specific paths, no pickles."""

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


def size_errors(name: str, text: str) -> Iterator[str]:
    """Files, functions, classes and parameter lists that exceed their limits."""
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


def pickle_errors(name: str, text: str) -> Iterator[str]:
    """Imports and calls that could load a pickle, which can run arbitrary code."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"{name}:{node.lineno} imports {m}" for m in module if m.split(".")[0] in PICKLERS)
        if isinstance(node, ast.Call):
            settings = {keyword.arg: keyword.value for keyword in node.keywords}
            for option, unsafe in [("weights_only", False), ("allow_pickle", True), ("trust_remote_code", True)]:
                value = settings.get(option)
                if isinstance(value, ast.Constant) and value.value is unsafe:
                    yield f"{name}:{node.lineno} sets {option}={unsafe}"
            if ast.unparse(node.func) == "torch.load" and "weights_only" not in settings:
                yield f"{name}:{node.lineno} calls torch.load without weights_only=True"


def tracked() -> list[Path]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_sizes_are_within_limits() -> None:
    assert SOURCES
    assert [error for path in SOURCES for error in size_errors(str(path.relative_to(ROOT)), path.read_text())] == []


def test_nothing_loads_pickles() -> None:
    assert [error for path in SOURCES for error in pickle_errors(str(path.relative_to(ROOT)), path.read_text())] == []


def test_tests_and_scripts_load_no_pickles() -> None:
    """They may write one, to see that a value can be sent to another process."""
    files = [path for path in tracked() if path.suffix == ".py" and path not in SOURCES]
    calls = [(path, node) for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    loads = ("pickle.load", "pickle.loads", "pickle.Unpickler")
    assert [path for path, node in calls if isinstance(node, ast.Call) and ast.unparse(node.func) in loads] == []


def test_the_readme_is_short_and_names_every_package() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert len(readme.splitlines()) <= 120
    assert packages == set(re.findall(r"motet/(\w+)", readme.split("## Layout")[1]))


def test_no_file_contains_a_machine_specific_path() -> None:
    errors: list[str] = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # an image
        errors += [
            f"{path.relative_to(ROOT)}:{n} {line[:120]}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)
        ]
    assert errors == []
