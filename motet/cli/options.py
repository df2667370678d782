"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from motet.core.printable import printable


class ResumeMode(StrEnum):
    """How a run treats what its output folder holds."""

    NO = "no"
    YES = "yes"
    AUTO = "auto"

    @property
    def choice(self) -> bool | str:
        """As functions take it."""
        return "auto" if self is ResumeMode.AUTO else self is ResumeMode.YES


class PrintableGroup(TyperGroup):
    """Commands whose usage errors are printed on one line, with control characters in what the user wrote escaped."""

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """As of typer, for what stands before the command."""
        with _printable_errors():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: Any) -> Any:
        """As of typer, for what stands behind it."""
        with _printable_errors():
            return super().invoke(ctx)


@contextmanager
def _printable_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # typer has moved its class of usage errors more than once
        message = getattr(error, "message", None)
        if hasattr(error, "format_message") and isinstance(message, str):
            vars(error)["message"] = printable(message, lines=False)
        raise


class ResumableCommand(TyperCommand):
    """A command whose `--resume` stands alone or before `auto`: options of click always or never take a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give `--resume` its value, so that click does not take the next argument for it."""
        given: list[str] = []
        for place, argument in enumerate(args):
            if argument == "--resume":
                given.append(f"--resume={'auto' if args[place + 1 : place + 2] == ['auto'] else 'yes'}")
            elif not (argument == "auto" and place and args[place - 1] == "--resume"):
                given.append(argument)
        return super().parse_args(ctx, given)


DATA_IMAGE = Path("data.png")
"""Where `motet data` writes the rows' images; replaced by the next call."""
RecipePath = Annotated[Path, typer.Argument(help="A recipe (YAML).")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides: key.subkey=value ...")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Run folder to write.")]
Resume = Annotated[
    ResumeMode,
    typer.Option(
        "--resume", metavar="[auto]", show_default=False,
        help="Resume the run in that folder; auto: start one if there is none.",
    ),
]  # fmt: skip
"""Of a `ResumableCommand`."""
Parallel = Annotated[
    str | None,
    typer.Option(help="Several processes: how they share the run, replicas (the default) or fsdp (sharded weights)."),
]
Timeout = Annotated[
    float | None,
    typer.Option(min=1.0, help="Several processes: seconds that they wait for the slowest; default: 1800."),
]
SkipPreflight = Annotated[
    bool, typer.Option("--skip-preflight", help="Start without the checks before the first step.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the results to this JSON file.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Overwrite an existing output file.")]
Checkpoint = Annotated[str, typer.Argument(help="A checkpoint folder, a run folder, or a hub id.")]
Stage = Annotated[str | None, typer.Option(help="Stage whose recipe to use, if RECIPE has several stages.")]
OnlyStages = Annotated[list[str] | None, typer.Option(help="Run only this stage and its dependencies. Repeatable.")]
OnlyStrategies = Annotated[
    list[str] | None, typer.Option(help="Run only this strategy of the sweep, to compare later. Repeatable.")
]
OnlySeeds = Annotated[
    list[int] | None, typer.Option("--seed", help="Run only this seed of the sweep, to compare later. Repeatable.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Sampling seed.")]
ShardGb = Annotated[float, typer.Option("--shard-gb", min=0.001, help="Size limit of a weight file in GB.")]
