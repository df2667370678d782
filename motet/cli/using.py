"""`motet eval`, `motet sample` and `motet ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from motet.cli.numbers import write_numbers
from motet.config import EvalConfig
from motet.errors import ConfigError, DataError
from motet.evals.shapes import evaluate_shapes
from motet.policies import load_policy
from motet.report.pictures import picture_grid, save_picture
from motet.report.progress import ProgressBar
from motet.report.tables import suite_table
from motet.saved import newest_of


def evaluate(
    checkpoint: str, settings: EvalConfig, world: dict[str, Any], max_tokens: int, json_path: Path | None
) -> None:
    """Run a suite and print its table."""
    if settings.suite != "shapes":
        raise ConfigError(f"--suite {settings.suite} measures nothing.", fix="use --suite shapes.")
    console = Console()
    policy = load_policy(newest_of(checkpoint))
    with ProgressBar(console) as bar:
        table = evaluate_shapes(policy, settings, world, max_tokens, lambda d, t: bar.items("measure", d, t)).table
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
