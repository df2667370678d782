"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipePath = Annotated[Path, typer.Argument(help="A recipe (YAML).")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides: key.subkey=value ...")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Run folder to write.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the run in that folder.")]
Parallel = Annotated[
    str | None,
    typer.Option(help="Several processes: how they share the run, replicas (the default) or fsdp (sharded weights)."),
]
Timeout = Annotated[
    float | None,
    typer.Option(min=1.0, help="Several processes: seconds that they wait for the slowest; default: 1800."),
]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the results to this JSON file.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Overwrite an existing output file.")]
Checkpoint = Annotated[str, typer.Argument(help="A checkpoint folder, a run folder, or a hub id.")]
Stage = Annotated[str | None, typer.Option(help="Stage whose recipe to use, if RECIPE has several stages.")]
