"""`motet studio`: a page to try a checkpoint, beside the one that it was trained from."""

from __future__ import annotations

from typing import Annotated

import typer

from motet.cli.options import Checkpoint


def studio(
    checkpoint: Checkpoint,
    *,
    base: Annotated[
        str | None, typer.Option("--base", help="Checkpoint to show beside it, from the same noise.")
    ] = None,
    reward: Annotated[
        str | None, typer.Option(help="Reward that scores images by their prompt; default: shapes.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of --reward: key=value, e.g. path=MODEL. Repeatable.")
    ] = None,
    world: Annotated[
        str | None,
        typer.Option(help="Shapes world whose prompts the reward shapes parses: small or large; default: the run's."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")] = 7860,
    token_variable: Annotated[
        str | None, typer.Option(help="Environment variable with the password of the page (user: motet).")
    ] = None,
) -> None:
    """Open a page to generate images, ask, edit and reflect: docs/how-to/studio.md."""
    from motet.cli.rewards import key_values
    from motet.cli.run_recipe import run_recipe
    from motet.evaluation.suites import world_of
    from motet.studio.server import serve_studio

    options = key_values("--option", option or ())
    run = run_recipe(checkpoint) if world is None else None
    of_run = "small" if run is None else world_of(run).get("world", "small")
    serve_studio(
        checkpoint,
        base=base,
        reward=reward,
        options=options,
        world=world or of_run,
        host=host,
        port=port,
        token_variable=token_variable,
    )
