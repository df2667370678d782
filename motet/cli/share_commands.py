"""The options of `motet card`, `motet push` and `motet demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.options import Overwrite, Resume, ResumeMode

Shared = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, a stage of it, or a checkpoint folder.")]
Base = Annotated[
    str | None, typer.Option("--base", help="Hub id of the base model; default: the recipe's, if it is one.")
]
License = Annotated[
    str | None, typer.Option("--license", help="Licence of the weights, by the hub's id: apache-2.0, mit.")
]
Best = Annotated[bool, typer.Option("--best", help="The best checkpoint instead of the newest.")]
SeedRuns = Annotated[
    list[Path] | None,
    typer.Option("--seed-run", help="A run of the same recipe with another seed, for means over seeds; repeatable."),
]


def card(
    run: Shared,
    *,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; default: card in RUN.")] = None,
    base: Base = None,
    license: License = None,
    best: Best = False,
    seed_run: SeedRuns = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model card: evaluation, learning curve, images, recipe, seed, licence, citation."""
    from motet.cli.share import card as write

    write(run, out, base=base, license=license, best=best, overwrite=overwrite, seeds=seed_run or ())


def push(
    run: Shared,
    repo: Annotated[str, typer.Argument(metavar="REPO_ID", help="Repository on the Hugging Face Hub: OWNER/NAME.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and print the card; upload nothing.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Create the repository as a private one.")] = False,
    base: Base = None,
    license: License = None,
    best: Best = False,
    optimizer: Annotated[bool, typer.Option("--optimizer", help="Upload the optimizer's state too.")] = False,
    samples: Annotated[bool, typer.Option("--samples", help="Upload the run's samples too.")] = False,
    seed_run: SeedRuns = None,
) -> None:
    """Upload a checkpoint with its model card to the Hugging Face Hub."""
    from motet.cli.share import push as run_push

    options = {"base": base, "license": license, "best": best, "optimizer": optimizer, "samples": samples}
    run_push(run, repo, dry_run=dry_run, private=private, seeds=seed_run or (), **options)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder to write.")] = Path("runs/demo"),
    *,
    minutes: Annotated[
        float | None, typer.Option(min=0.05, help="Minutes of training; default: the recipe's, at most 8.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the run.")] = 0,
    resume: Resume = ResumeMode.NO,
) -> None:
    """Train a small Janus on images and answers, and print a table before and after: 5 to 10 minutes on 2 CPU cores."""
    from motet.cli.demo import demo as run

    run(output, minutes, seed, resume.choice)
