"""`motet rewards` and the commands below `motet reward`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.options import Json, Overwrite
from motet.cli.outputs import check_output

reward = typer.Typer(no_args_is_help=True, help="Try out a reward.")


def rewards(json_path: Json = None, overwrite: Overwrite = False) -> None:
    """List the rewards with model, licence, size, range, and where they run."""
    check_output("--json", json_path, overwrite=overwrite)
    from motet.cli.rewards import list_rewards

    list_rewards(json_path)


@reward.command("test")
def test_reward(
    name: Annotated[str, typer.Argument(help="A name (motet rewards lists them), or a path to your own.")],
    image: Annotated[Path | None, typer.Argument(help="The image file to score.")] = None,
    prompt: Annotated[str | None, typer.Argument(help="Its prompt: the column `prompt`.")] = None,
    *,
    text: Annotated[str | None, typer.Option(help="Score this text instead of an image.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="Option of the reward, key=value. Repeatable.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Column of the row, key=value; key=@FILE reads an image. Repeatable."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Checkpoint, for rewards that ask the policy; they run on its device.")
    ] = None,
) -> None:
    """Score one image, or one text, by a reward."""
    from motet.cli.rewards import RewardTest
    from motet.cli.rewards import test_reward as run

    run(RewardTest(name, image, prompt, text, option or [], column or [], policy))
