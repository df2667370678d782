"""`motet sample` and `motet ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from motet.cli.outputs import write_image
from motet.core.images import read_image
from motet.policies import load_policy
from motet.report.image_grid import make_image_grid
from motet.report.progress import waiting
from motet.report.terminal import say
from motet.weights.locate import resolve_checkpoint


def sample(
    checkpoint: str,
    prompt: str,
    n: int,
    out: Path,
    *,
    seed: int,
    temperature: float,
    guidance_scale: float,
) -> None:
    """Generate `n` images of a prompt and save them as a grid."""
    guidance: dict[str, Any] = {"guidance": "guided", "guidance_scale": guidance_scale} if guidance_scale > 1 else {}
    with waiting("load the policy") as bar:
        policy = load_policy(resolve_checkpoint(checkpoint))
        bar.phase("generate images")
        acts = policy.generate_images(prompt, n=n, seed=seed, temperature=temperature, **guidance)
    grid = make_image_grid([act.image for act in acts], [f"{k + 1}" for k in range(n)], [None] * n, title=prompt)
    write_image("--out", out, grid)
    say(out)


def ask(checkpoint: str, image: Path, question: str, temperature: float, max_tokens: int, seed: int) -> None:
    """Print the policy's answer to a question about an image."""
    opened = read_image(str(image), Path.cwd(), "motet ask")
    with waiting("load the policy") as bar:
        policy = load_policy(resolve_checkpoint(checkpoint))
        bar.phase("answer")
        act = policy.generate_text(question, [opened], seed=seed, temperature=temperature, max_tokens=max_tokens)[0]
    cut = "" if act.finished else f" [cut off at {max_tokens} tokens]"
    say(*f"{act.text}{cut}".split("\n"))
