"""Settings of `algorithm` that each are legal and together are not. One small function per rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from motet.config.algorithm import DROPOUTS, ActKind, KindConfig
from motet.config.problems import Problem
from motet.config.schema import Recipe

Check = Callable[[Recipe], Iterator[Problem]]


def _advantages(recipe: Recipe) -> Iterator[Problem]:
    algorithm = recipe.algorithm
    if algorithm.loss_type == "dr_grpo" and algorithm.scale_rewards == "group":
        text = "is group, but loss_type dr_grpo means not to divide by the group's deviation (arXiv 2503.20783)."
        yield Problem("algorithm.scale_rewards", text, "set algorithm.scale_rewards to none.")
    if algorithm.normalize_each and algorithm.scale_rewards == "none":
        text = "divides every reward by its deviation, which algorithm.scale_rewards none forbids."
        yield Problem(
            "algorithm.normalize_each", text, "set scale_rewards to group or batch, or normalize_each to false."
        )


def _clip_range(recipe: Recipe) -> Iterator[Problem]:
    algorithm = recipe.algorithm
    if algorithm.epsilon is None and algorithm.epsilon_high is not None:
        text = f"is {algorithm.epsilon_high:g}, but algorithm.epsilon null means never to clip."
        yield Problem("algorithm.epsilon_high", text, "set algorithm.epsilon too, or remove epsilon_high.")
    else:
        yield from _ordered("algorithm", algorithm.epsilon, algorithm.epsilon_high)
    for kind, settings in algorithm.per_kind.items():
        yield from _clip_range_of(kind, settings, recipe)
    ranges = {"algorithm.epsilon": algorithm.epsilon}
    ranges |= {f"algorithm.per_kind.{kind}.epsilon": settings.epsilon for kind, settings in algorithm.per_kind.items()}
    for key, epsilon in ranges.items():
        if epsilon == 0:
            yield Problem(
                key, "0 clips every change away.", "write algorithm.epsilon: null to never clip, or a value > 0."
            )
        elif epsilon is not None and epsilon > 1:
            yield Problem(key, f"{epsilon:g} is a ratio below 0; expected at most 1.", "0.2 is usual for tokens.")


def _clip_range_of(kind: ActKind, settings: KindConfig, recipe: Recipe) -> Iterator[Problem]:
    algorithm = recipe.algorithm
    key = f"algorithm.per_kind.{kind}"
    low = algorithm.epsilon if settings.epsilon is None else settings.epsilon
    if settings.epsilon_high is not None and low is None:
        text = f"is {settings.epsilon_high:g}, but algorithm.epsilon null means never to clip."
        yield Problem(f"{key}.epsilon_high", text, f"set {key}.epsilon too, or remove epsilon_high.")
    elif settings.epsilon_high is not None:
        yield from _ordered(key, low, settings.epsilon_high)
    elif settings.epsilon is not None and algorithm.epsilon_high is not None:
        text = (
            f"is {settings.epsilon:g}, but its upper range is still algorithm.epsilon_high {algorithm.epsilon_high:g}."
        )
        yield Problem(f"{key}.epsilon", text, f"set {key}.epsilon_high too.")


def _ordered(key: str, low: float | None, high: float | None) -> Iterator[Problem]:
    if low is not None and high is not None and high < low:
        text = f"{high:g} is below epsilon {low:g}; clip-higher wants it above (DAPO: 0.2 and 0.28)."
        yield Problem(f"{key}.epsilon_high", text, "raise it, or remove it: then both ranges are epsilon.")


def _minibatches(recipe: Recipe) -> Iterator[Problem]:
    minibatches = recipe.algorithm.num_minibatches
    each = [track.prompts_per_step for track in recipe.practised().values()]
    prompts = min(each) if recipe.run.turn is not None else sum(each)
    if minibatches > prompts:
        text = (
            f"{minibatches} minibatches cannot be cut from {prompts} prompts (run.prompts_per_step): groups stay whole."
        )
        yield Problem("algorithm.num_minibatches", text, f"set it to {prompts} or less, or raise run.prompts_per_step.")


def _dropouts(recipe: Recipe) -> Iterator[Problem]:
    given = {name: getattr(recipe.algorithm, name) for name in DROPOUTS}
    if sum(given.values()) > 1:
        shares = " + ".join(f"{value:g}" for value in given.values())
        text = f"{shares} of the edits are more than all of them."
        yield Problem(f"algorithm.{max(given, key=given.__getitem__)}", text, f"lower {', '.join(DROPOUTS)}.")


def _flow_algorithm(recipe: Recipe) -> Iterator[Problem]:
    flow = recipe.algorithm.flow
    if flow.guard and recipe.denoising.sde_type != "flow_sde":
        text = f"weights the steps of flow_sde alike, but denoising.sde_type is {recipe.denoising.sde_type}."
        yield Problem("algorithm.flow.guard", text, "set denoising.sde_type to flow_sde, or guard to false.")
    if flow.objective == "nft":
        if flow.guard:
            yield Problem("algorithm.flow.guard", "normalises ratios, which nft has none of.", "set it to false.")
        if flow.penalty == "kl":
            text = "is kl, but nft replays no stochastic step, so there is no KL of one."
            yield Problem("algorithm.flow.penalty", text, "set it to velocity_mse.")


ALGORITHM_CHECKS: tuple[Check, ...] = (
    _advantages,
    _clip_range,
    _minibatches,
    _dropouts,
    _flow_algorithm,
)
