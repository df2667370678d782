"""Settings of `algorithm` that each are legal and together are not. One small function per rule.

What a loss or an advantage estimator asks of its own options and of the recipe is checked where it is looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from motet.config.problem import Problem
from motet.config.schema import Recipe

Check = Callable[[Recipe], Iterator[Problem]]


def _reference(recipe: Recipe) -> Iterator[Problem]:
    """The reference that moves is weights of its own."""
    policy = recipe.policy
    adapters = policy.lora is not None or (policy.diffusion is not None and policy.diffusion.lora is not None)
    if recipe.algorithm.reference_sync is not None and adapters:
        text = "mixes weights, but adapters train, whose reference is the model without them."
        yield Problem("algorithm.reference_sync", text, "remove it, or train without adapters.")


def _minibatches(recipe: Recipe) -> Iterator[Problem]:
    minibatches = recipe.algorithm.num_minibatches
    each = [track.prompts_per_step for track in recipe.resolved_tracks().values()]
    prompts = min(each) if recipe.run.steps_per_track is not None else sum(each)
    if minibatches > prompts:
        text = (
            f"{minibatches} minibatches cannot be cut from {prompts} prompts (run.prompts_per_step): groups stay whole."
        )
        yield Problem("algorithm.num_minibatches", text, f"set it to {prompts} or less, or raise run.prompts_per_step.")


ALGORITHM_CHECKS: tuple[Check, ...] = (_reference, _minibatches)
