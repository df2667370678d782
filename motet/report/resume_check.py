"""Which settings may change when a run is resumed; its starting weights may not. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from motet.config import Recipe, load_recipe
from motet.core.errors import ConfigError
from motet.core.printable import plural
from motet.report.run_dir import RECIPE, START, RunFolder
from motet.weights.locate import latest_checkpoint, step_of, weights_digest

RESUMABLE_KEYS = frozenset(
    {
        "description",
        "policy.device",
        "policy.gradient_checkpointing",
        "policy.generation_batch_size",
        "optimizer.max_tokens_per_microbatch",
        "eval.every",
        "run.steps",
        "run.minutes",
        "run.save_every",
        "run.save_minutes",
        "run.keep_checkpoints",
        "run.log_samples_every",
        "run.threads",
    }
)
"""Keys that change the speed, memory use, length or reporting of a run, but not its updates. `run.steps` is the end of
a linear or cosine schedule, so it may change only if the learning rate is constant: see `_check_length`."""


COMPUTE_TYPES = ("policy.dtype", "policy.rollout_dtype")
POLICY, DIFFUSION = "policy.path", "policy.diffusion.path"


def keep_resolved_dtypes(folder: RunFolder, recipe: Recipe) -> Recipe:
    """The recipe with each dtype `auto` replaced by the one it resolved to when the run in the folder started."""
    if not folder.resume:
        return recipe
    before = load_recipe(folder.path / RECIPE).policy
    names = [key.removeprefix("policy.") for key in COMPUTE_TYPES]
    chosen = {name: getattr(before, name) for name in names if getattr(recipe.policy, name) == "auto"}
    return recipe.model_copy(update={"policy": recipe.policy.model_copy(update=chosen)})


def starting_weights(recipe: Recipe) -> dict[str, str | None]:
    """Recipe key -> digest of the weights that it names; None for a hub id or a path without weights."""
    diffusion = recipe.policy.diffusion
    paths = {POLICY: recipe.policy.path}
    if diffusion is not None and diffusion.path is not None:
        paths[DIFFUSION] = diffusion.path
    return {key: weights_digest(path) for key, path in paths.items()}


def check_resume_compatible(folder: RunFolder, recipe: Recipe, start: Mapping[str, str | None] | None = None) -> None:
    """Raise ConfigError, naming the keys, if a recipe would change the run in the folder beyond `RESUMABLE_KEYS`.

    `start`: digests of the starting weights; None: of the weights that the recipe names. Paths are compared by the
    weights they lead to: a path may change if the weights are the same, and may not stay if they differ.
    """
    if not folder.resume:
        return
    own = folder.path / RECIPE
    before = load_recipe(own)
    _check_length(folder, before, recipe)
    now, then = dict(_leaves(recipe.model_dump(mode="json"), "")), dict(_leaves(before.model_dump(mode="json"), ""))
    start_now = starting_weights(recipe) if start is None else dict(start)
    start_then: dict[str, Any] = folder.read_json(START) or dict.fromkeys(start_now)
    for key in COMPUTE_TYPES:
        if now[key] == "auto":  # the run goes on with the dtype chosen when it started
            now[key] = then[key]
    for key in start_now.keys() | start_then.keys():
        digest_then, digest_now = start_then.get(key), start_now.get(key)
        unknown = key in start_now and key in start_then and None in (digest_then, digest_now)
        if not unknown:  # compare weights, not paths
            then[key], now[key] = digest_then, digest_now
    changed = sorted(
        key for key in now.keys() | then.keys() if not _is_resumable(key) and now.get(key) != then.get(key)
    )
    if changed:
        changes = ", ".join(f"{key} was {then.get(key)!r} and is {now.get(key)!r}" for key in changed)
        raise ConfigError(
            f"The recipe differs from that of the run in {str(folder.path)!r}: {changes}.",
            fix=f"resume with {own}, or start a new run with another --output.",
        )


def _is_resumable(key: str) -> bool:
    """Whether a key may change: also callbacks, trackers, and what happens when a reward fails, so that such a run can
    go on."""
    keys = r"(tracks\..*\.)?rewards\.\d+\.on_failure(\..+)?|run\.(callbacks|report_to)(\..+)?"
    return key in RESUMABLE_KEYS or re.fullmatch(keys, key) is not None


def _check_length(folder: RunFolder, before: Recipe, recipe: Recipe) -> None:
    """Raise ConfigError if a new run length would have changed the schedule so far, or if the run is already longer."""
    schedule = before.optimizer.schedule
    for key in ("steps", "minutes"):
        then, now = getattr(before.run, key), getattr(recipe.run, key)
        if then != now and schedule != "constant":
            raise ConfigError(
                f"run.{key} was {then} and is {now}, but optimizer.schedule={schedule!r} takes the learning rate to 0 "
                "at the last step: with another length all learning rates so far would have been different.",
                fix=f"set run.{key} to {then}, or start a new run from its weights: policy.path={folder.path}.",
            )
    newest = latest_checkpoint(folder.checkpoints)
    done = 0 if newest is None else step_of(newest)
    if recipe.run.steps < done:
        raise ConfigError(
            f"run.steps was {before.run.steps} and is {recipe.run.steps}, but the run in {str(folder.path)!r} already "
            f"has {plural(done, 'step')}.",
            fix=f"set run.steps to {done} or more, or start a new run with another --output.",
        )


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        yield from _leaves({str(index): inner for index, inner in enumerate(value)}, key)
    else:
        yield key, value
