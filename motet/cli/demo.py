"""`motet demo`: the recipe and the checkpoint of the demo, from the installed package or a source checkout."""

from __future__ import annotations

from pathlib import Path

import motet
from motet.cli.train import train
from motet.core.errors import ConfigError
from motet.report.resume_mode import ResumeChoice

RECIPE, CHECKPOINT = "shapes_demo.yaml", "shapes_demo"
EVAL_SHARE = 0.2
"""Minutes of one evaluation per minute of training."""


def demo(output: Path, minutes: float | None, seed: int, resume: ResumeChoice) -> None:
    """Train the small Janus of the demo and print the table before and after."""
    recipe, checkpoint = demo_files()
    overrides = [f"policy.path={checkpoint}", f"run.seed={seed}"]
    if minutes is not None:
        overrides += [f"run.minutes={minutes}", f"eval.minutes={EVAL_SHARE * minutes}"]
    train(recipe, output, overrides, resume)


def demo_files() -> tuple[Path, Path]:
    """The recipe and the checkpoint. Raises ConfigError if they are not installed."""
    package = Path(motet.__file__).parent
    places = (package / "demo_files",) * 2, (package.parent / "recipes", package.parent / "checkpoints")
    for recipes, checkpoints in places:
        if (recipes / RECIPE).is_file() and (checkpoints / CHECKPOINT / "config.json").is_file():
            return recipes / RECIPE, checkpoints / CHECKPOINT
    raise ConfigError(
        f"The recipe and the checkpoint of the demo are not in {str(package / 'demo_files')!r}.",
        fix="install motet again: its wheel contains both.",
    )
