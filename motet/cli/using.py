"""`motet eval`, `motet sample` and `motet ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from motet.cli.numbers import write_numbers
from motet.config import Recipe
from motet.errors import ConfigError, DataError
from motet.evals.shapes import evaluate_shapes
from motet.policies import load_policy
from motet.report.pictures import picture_grid, save_picture
from motet.report.progress import ProgressBar
from motet.report.tables import suite_table
from motet.saved import newest_of
from motet.session import require_suite, samplings_of


def evaluate(recipe: Recipe, json_path: Path | None) -> None:
    """Run the suite of a recipe on its checkpoint, in the world of its data, and print the table."""
    if recipe.eval.suite != "shapes":
        raise ConfigError(f"--suite {recipe.eval.suite} measures nothing.", fix="use --suite shapes.")
    console, checkpoint = Console(), recipe.policy.path
    policy = load_policy(newest_of(checkpoint))
    require_suite(recipe.eval.suite, policy)
    world, longest, drawing = dict(recipe.data.options), recipe.text.max_tokens, samplings_of(recipe)["denoising"]
    with ProgressBar(console) as bar:

        def tell(done: int, total: int) -> None:
            bar.items("measure", done, total)

        table = evaluate_shapes(policy, recipe.eval, world, longest, tell, denoising=drawing).table
    write_numbers(json_path, table)
    console.print(suite_table({Path(checkpoint).name: table}, "On held-back items, strict"))


def sample(
    checkpoint: str, prompt: str, n: int, out: Path, *, seed: int, temperature: float, guidance_scale: float
) -> None:
    """Draw a prompt `n` times into one PNG."""
    policy = load_policy(newest_of(checkpoint))
    guidance: dict[str, Any] = {"guidance": "guided", "guidance_scale": guidance_scale} if guidance_scale > 1 else {}
    acts = policy.draw(prompt, n=n, seed=seed, temperature=temperature, **guidance)
    grid = picture_grid([act.image for act in acts], [f"{k + 1}" for k in range(n)], [None] * n, title=prompt)
    save_picture(grid, out)
    print(out)


def ask(checkpoint: str, image: Path, question: str, temperature: float, max_tokens: int, seed: int) -> None:
    """Print what the policy writes about a picture."""
    try:
        with Image.open(image) as file:
            picture = file.convert("RGB")
    except OSError as error:
        raise DataError(
            f"{str(image)!r} cannot be read as a picture: {error}.", fix="give a PNG or JPEG file."
        ) from error
    policy = load_policy(newest_of(checkpoint))
    act = policy.write(question, [picture], seed=seed, temperature=temperature, max_tokens=max_tokens)[0]
    print(act.text if act.finished else f"{act.text} [cut off at {max_tokens} tokens]")
