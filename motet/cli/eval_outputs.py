"""What `motet eval` shows and writes: tables, one JSON file, and a folder of what each suite generated."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet.cli.outputs import finite_or_null, write_image, write_output, write_results
from motet.core.errors import OutputError
from motet.core.write_errors import write_error
from motet.report.terminal import Terminal, say

if TYPE_CHECKING:
    from motet.config import Recipe
    from motet.training.suites import SuiteResult


@dataclass(frozen=True)
class Evaluated:
    """One suite's result with the recipe that it evaluated by, and its table for the terminal."""

    recipe: Recipe
    result: SuiteResult
    shown: Any


def check_output_folder(path: Path | None, *, overwrite: bool) -> None:
    """Raise OutputError for a file, or for a folder with something in it unless `overwrite`."""
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise OutputError(f"--output {str(path)!r} is a file.", fix="name a folder.")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise OutputError(f"--output {str(path)!r} exists and is not empty.", fix="name a new folder, or --overwrite.")


def suite_folder(output: Path, name: str) -> Path:
    """The folder of one suite below the output folder; it is made."""
    folder = output / re.sub(r"[^\w.-]+", "_", name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(OutputError, f"--output {str(output)!r}", error) from error
    return folder


def show_evaluated(
    checkpoint: str, results: Mapping[str, Evaluated], json_path: Path | None, output: Path | None, *, single: bool
) -> None:
    """Print the tables, then write them; `--json` holds the bare table of a `single` suite, several by name."""
    tables = {name: one.result.table for name, one in results.items()}
    try:
        for one in results.values():
            Terminal().print(one.shown)
    finally:
        write_results(json_path, next(iter(tables.values())) if single else tables)
        if output is not None:
            _write_folder(checkpoint, results, output)
    if output is not None:
        say(output)


def _write_folder(checkpoint: str, results: Mapping[str, Evaluated], output: Path) -> None:
    """`results.json`, `tables.txt`, and `SUITE/samples.png` of suites that return samples."""
    content = {
        "checkpoint": checkpoint,
        "suites": {
            name: {
                "metrics": one.result.metrics,
                "eval": one.recipe.eval.model_dump(mode="json"),
                "sampling": one.recipe.sampling.model_dump(mode="json"),
                "table": one.result.table,
            }
            for name, one in results.items()
        },
    }
    text = io.StringIO()
    for one in results.values():
        Terminal(file=text, width=120).print(one.shown)
    body = json.dumps(finite_or_null(content), indent=2, allow_nan=False) + "\n"
    write_output("--output", output / "results.json", body.encode())
    write_output("--output", output / "tables.txt", text.getvalue().encode())
    for name, one in results.items():
        if one.result.samples:
            from motet.report.image_grid import make_image_grid

            images, prompts, correct = zip(*one.result.samples, strict=True)
            grid = make_image_grid(images, prompts, correct, title=name)
            write_image("--output", suite_folder(output, name) / "samples.png", grid)
