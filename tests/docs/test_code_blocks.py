"""Every code block of README.md, CONTRIBUTING.md and docs/: Python runs, YAML is a valid recipe, commands are parsed.

Python blocks of a page run as one program, in a folder where the shipped checkpoints are tiny ones. YAML blocks are
recipes or parts of one: they are completed and validated. Every `motet` command of shell blocks is parsed by the
command line, with its options, and its recipe is loaded with its overrides; `make` targets and scripts exist. Pages
whose commands are also run: test_own_case.py, test_first_own_run.py.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from motet.cli.app import app
from motet.config import parse_recipe
from motet.config.stages import is_plan, load_plan, parse_plan
from motet.config.sweep import is_sweep, load_sweep
from motet.serving.rewards_config import load_service

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
RUN_ELSEWHERE = {
    *(
        "own-reward.md",
        "own-scenario.md",
        "six-scenarios.md",
    ),  # code of the examples: test_own_case.py, test_six_page.py
    *("python-api.md", "plugins.md", "own-loss.md"),  # test_python_pages.py, test_own_loss.py
    "understanding-benchmarks.md",  # tests/serving/test_openai.py
}


def blocks(page: Path, language: str) -> list[str]:
    return [text for _, name, text in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def with_blocks(language: str) -> list:
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES if blocks(page, language)]


def test_every_block_is_of_a_language_that_is_tested() -> None:
    languages = {(page.name, name) for page in PAGES for _, name, _ in BLOCK.findall(page.read_text())}
    assert {(page, name) for page, name in languages if name not in ("python", "yaml", "bash", "toml", "")} == set()


@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_runs(page: Path, tiny_checkpoint, tmp_path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "shapes_janus").symlink_to(tiny_checkpoint)
    for name in ("recipes", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    program = "\n\n".join(blocks(page, "python"))
    compile(program, str(page), "exec")
    if page.name not in RUN_ELSEWHERE:  # in a process of its own, as pages register things
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", with_blocks("yaml"))
def test_yaml_is_a_recipe(page: Path, tmp_path) -> None:
    """Or a plan, a sweep, or the configuration of a reward service, which has a port."""
    for text in blocks(page, "yaml"):
        text = text.replace("[...]", "[{name: format, acts: [answer]}]").replace(", ...", "")
        content = yaml.safe_load(text)
        if "stages" in content:
            content.setdefault("shared", {}).setdefault("policy", {"path": "x"})
            content["shared"].setdefault("run", {"steps": 1})
            assert parse_plan(content, tmp_path, source=page.name).stages
            continue
        if "strategies" in content:
            (tmp_path / "sweep.yaml").write_text(text)
            assert load_sweep(tmp_path / "sweep.yaml", tmp_path).plans
            continue
        if "port" in content:
            (tmp_path / "service.yaml").write_text(text)
            assert load_service(tmp_path / "service.yaml").rewards
            continue
        if set(content) == {"options"}:  # of a reward
            content = {"rewards": [{"name": "cycle", **content}]}
        content = {"policy": {"path": "x"}} | content
        content["run"] = {"steps": 1} | content.get("run", {})
        parse_recipe(content)


@pytest.mark.parametrize("page", with_blocks("toml"))
def test_toml_is_parsed(page: Path) -> None:
    assert all(tomllib.loads(text) for text in blocks(page, "toml"))


@pytest.mark.parametrize("page", with_blocks("bash"))
def test_commands_are_parsed(page: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)
        if not words:
            continue
        program, arguments = words[0], words[1:]
        if program == "make":
            assert {word for word in arguments if "=" not in word} <= targets, line
        elif program == "python" and arguments[0] == "-c":
            compile(arguments[1], line, "exec")
        elif program == "python":
            assert (ROOT / arguments[0]).is_file(), line
        elif program.startswith("scripts/"):
            assert (ROOT / program).is_file(), line
        elif program in ("motet", "torchrun"):
            arguments = arguments[arguments.index("motet") + 1 :] if program == "torchrun" else arguments
            with contextlib.suppress(typer.Exit):  # --help
                parse_command(arguments, tmp_path)
        else:
            assert program in ("source", "pip", "git", "cd"), line


def parse_command(arguments: list[str], output: Path) -> None:
    """Parse a command as the command line does, and load the shipped recipe that it names with its overrides."""
    command = typer.main.get_command(app)
    context, rest = command.make_context("motet", list(arguments)), list(arguments)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, list(rest), parent=context)
    given = [str(value) for value in context.params.values() if value is not None]
    recipes = [value for value in given if value.startswith(("recipes/", "examples/")) and value.endswith(".yaml")]
    for recipe in recipes:
        suite = ["eval.suite=rewards"] if context.info_name == "eval" else []  # which the command sets itself
        load_recipe_of_any_kind(recipe, [*suite, *(context.params.get("overrides") or [])], output)


def load_recipe_of_any_kind(recipe: str, overrides: list[str], output: Path) -> None:
    from motet.config import load_recipe

    overrides = [text for text in overrides if "NAME" not in text and "TRACK" not in text]
    if is_sweep(recipe):
        load_sweep(recipe, output, overrides)
    elif is_plan(recipe):
        load_plan(recipe, output, overrides)
    else:
        load_recipe(recipe, overrides)
