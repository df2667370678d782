"""Which settings of a run may change when it is resumed. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from motet.config import Recipe, load_recipe
from motet.errors import ConfigError
from motet.report.folder import RECIPE, RunFolder

FREE = frozenset(
    {
        "description",
        "policy.device",
        "policy.gradient_checkpointing",
        "policy.rollout_batch",
        "optimizer.tokens_per_microbatch",
        "eval.every",
        "run.steps",
        "run.save_every",
        "run.keep_checkpoints",
        "run.sample_every",
        "run.threads",
    }
)
"""What changes speed, memory, length or reporting of a run, and not what it learns. `run.steps` is the end of a linear
or cosine schedule, so only runs with a constant learning rate may change it."""


def refuse_changes(folder: RunFolder, recipe: Recipe) -> None:
    """Raise ConfigError, naming the keys, when a recipe would go on otherwise than the folder's run began."""
    if not folder.resume:
        return
    own = folder.path / RECIPE
    before = load_recipe(own)
    free = FREE if before.optimizer.schedule == "constant" else FREE - {"run.steps"}
    now, then = dict(_leaves(recipe.model_dump(mode="json"), "")), dict(_leaves(before.model_dump(mode="json"), ""))
    changed = sorted(key for key in now.keys() | then.keys() if key not in free and now.get(key) != then.get(key))
    if changed:
        named = ", ".join(f"{key} was {then.get(key)!r} and is {now.get(key)!r}" for key in changed)
        raise ConfigError(
            f"The recipe differs from that of the run in {str(folder.path)!r}: {named}.",
            fix=f"resume with {own}, or start a new run with another --output.",
        )


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        yield from _leaves({str(place): inner for place, inner in enumerate(value)}, key)
    else:
        yield key, value
