"""What of a run may change when it is resumed: some settings, and never the weights it began with. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from motet.config import Recipe, load_recipe
from motet.core.errors import ConfigError
from motet.report.run_dir import RECIPE, START, RunFolder
from motet.weights.locate import latest_checkpoint, step_of, weights_digest

RESUMABLE_KEYS = frozenset(
    {
        "description",
        "policy.device",
        "policy.gradient_checkpointing",
        "policy.rollout_batch",
        "optimizer.tokens_per_microbatch",
        "eval.every",
        "run.steps",
        "run.minutes",
        "run.save_every",
        "run.save_minutes",
        "run.keep_checkpoints",
        "run.sample_every",
        "run.threads",
    }
)
"""What changes speed, memory, length or reporting of a run, and not what it learns. `run.steps` is the end of a linear
or cosine schedule, so only runs with a constant learning rate may change it: see `_refuse_length`."""


COMPUTE_TYPES = ("policy.autocast", "policy.rollout_autocast")
POLICY, EXPERT = "policy.path", "policy.expert.path"


def as_begun(folder: RunFolder, recipe: Recipe) -> Recipe:
    """The recipe, computing in the types that `auto` became when the run in the folder began."""
    if not folder.resume:
        return recipe
    before = load_recipe(folder.path / RECIPE).policy
    names = [key.removeprefix("policy.") for key in COMPUTE_TYPES]
    chosen = {name: getattr(before, name) for name in names if getattr(recipe.policy, name) == "auto"}
    return recipe.model_copy(update={"policy": recipe.policy.model_copy(update=chosen)})


def starting_weights(recipe: Recipe) -> dict[str, str | None]:
    """Key -> digest of the weights that a recipe names; None for a hub id, and where there are none."""
    expert = recipe.policy.expert
    paths = {POLICY: recipe.policy.path} | ({} if expert is None or expert.path is None else {EXPERT: expert.path})
    return {key: weights_digest(path) for key, path in paths.items()}


def check_resume_compatible(folder: RunFolder, recipe: Recipe, start: Mapping[str, str | None] | None = None) -> None:
    """Raise ConfigError, naming the keys, when a recipe would go on otherwise than the folder's run began.

    `start`: what it would begin with now; None: the weights that the recipe names. A path may change if the weights
    that it leads to are the same, and may not stay if they are others.
    """
    if not folder.resume:
        return
    own = folder.path / RECIPE
    before = load_recipe(own)
    _refuse_length(folder, before, recipe)
    now, then = dict(_leaves(recipe.model_dump(mode="json"), "")), dict(_leaves(before.model_dump(mode="json"), ""))
    start_now = starting_weights(recipe) if start is None else dict(start)
    start_then: dict[str, Any] = folder.read_json(START) or dict.fromkeys(start_now)
    for key in COMPUTE_TYPES:
        if now[key] == "auto":  # it goes on in what was chosen when the run began
            now[key] = then[key]
    for key in start_now.keys() | start_then.keys():
        one, other = start_then.get(key), start_now.get(key)
        unknown = key in start_now and key in start_then and None in (one, other)
        if not unknown:  # the weights count, not where they lie
            then[key], now[key] = one, other
    changed = sorted(key for key in now.keys() | then.keys() if not _is_free(key) and now.get(key) != then.get(key))
    if changed:
        named = ", ".join(f"{key} was {then.get(key)!r} and is {now.get(key)!r}" for key in changed)
        raise ConfigError(
            f"The recipe differs from that of the run in {str(folder.path)!r}: {named}.",
            fix=f"resume with {own}, or start a new run with another --output.",
        )


def _is_free(key: str) -> bool:
    """Also how long a reward may take, which is raised when a run ended for it: `[tracks.TRACK.]rewards.N.timeout`."""
    return key in RESUMABLE_KEYS or re.fullmatch(r"(tracks\..*\.)?rewards\.\d+\.timeout", key) is not None


def _refuse_length(folder: RunFolder, before: Recipe, recipe: Recipe) -> None:
    """Raise ConfigError for a number of steps with which the run would have been another, or that it is past."""
    schedule = before.optimizer.schedule
    for key in ("steps", "minutes"):
        then, now = getattr(before.run, key), getattr(recipe.run, key)
        if then != now and schedule != "constant":
            raise ConfigError(
                f"run.{key} was {then} and is {now}, but optimizer.schedule={schedule!r} takes the learning rate to 0 "
                "at the last step: with another number of steps every rate would have been another.",
                fix=f"set run.{key} to {then}, or start a new run from its weights: policy.path={folder.path}.",
            )
    newest = latest_checkpoint(folder.checkpoints)
    done = 0 if newest is None else step_of(newest)
    if recipe.run.steps < done:
        raise ConfigError(
            f"run.steps was {before.run.steps} and is {recipe.run.steps}, but {str(folder.path)!r} is trained for "
            f"{done} steps already.",
            fix=f"set run.steps to {done} or more, or start a new run with another --output.",
        )


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        yield from _leaves({str(place): inner for place, inner in enumerate(value)}, key)
    else:
        yield key, value
