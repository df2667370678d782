"""Settings of `algorithm` that each are legal and together are not. One small function per rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from motet.config.algorithm import CLIPPED, ActKind, AlgorithmConfig, KindConfig, LossType
from motet.config.keys import show
from motet.config.problem import Problem
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


_OWN_KEYS: Mapping[str, tuple[LossType, ...]] = {
    "epsilon": CLIPPED,
    "epsilon_high": (*CLIPPED, "cispo"),
    "delta": CLIPPED,
    "sapo_temperature_pos": ("sapo",),
    "sapo_temperature_neg": ("sapo",),
    "vespo_k_pos": ("vespo",),
    "vespo_lambda_pos": ("vespo",),
    "vespo_k_neg": ("vespo",),
    "vespo_lambda_neg": ("vespo",),
}
"""Keys that some loss types read and others do not."""


def unused_algorithm_keys(algorithm: AlgorithmConfig) -> Iterator[Problem]:
    """Keys of `algorithm` without a meaning under its other settings."""
    for name, readers in _OWN_KEYS.items():
        if algorithm.loss_type not in readers:
            fix = f"remove it, or set algorithm.loss_type to {' or '.join(readers)}."
            yield Problem(f"algorithm.{name}", f"has no effect under loss_type {algorithm.loss_type}.", fix)
    if not algorithm.sync_ref_model:
        for name in ("ref_model_mixup_alpha", "ref_model_sync_steps"):
            text = "has no effect while algorithm.sync_ref_model is false."
            yield Problem(f"algorithm.{name}", text, "remove it, or set algorithm.sync_ref_model to true.")
    if algorithm.scale_rewards == "none":
        text = "has no effect while algorithm.scale_rewards is none."
        yield Problem("algorithm.population_std", text, "remove it, or set algorithm.scale_rewards to batch.")


def _reference(recipe: Recipe) -> Iterator[Problem]:
    """A reference can be moved where there is one, and it is weights of its own."""
    algorithm, policy = recipe.algorithm, recipe.policy
    if not algorithm.sync_ref_model:
        return
    if not algorithm.beta and not any(settings.beta for settings in algorithm.per_kind.values()):
        text = "moves the reference of the KL, but algorithm.beta is 0."
        yield Problem("algorithm.sync_ref_model", text, "set algorithm.beta, or remove it.")
    elif policy.lora is not None or (policy.diffusion is not None and policy.diffusion.lora is not None):
        text = "mixes weights, but adapters train, whose reference is the model without them."
        yield Problem("algorithm.sync_ref_model", text, "remove it, or train without adapters.")


def _loss_type(recipe: Recipe) -> Iterator[Problem]:
    """What a loss type needs, and what it cannot go with."""
    algorithm = recipe.algorithm
    loss, level = algorithm.loss_type, algorithm.importance_sampling_level
    key = "algorithm.importance_sampling_level"
    if loss == "luspo" and level != "sequence":
        yield Problem(key, f"is {level}, but luspo is a loss of whole sequences' ratios.", "set it to sequence.")
    if loss == "vespo" and level != "token":
        yield Problem(key, f"is {level}, but vespo makes the ratio of the sequence itself.", "remove it.")
    if loss in ("cispo", "vespo") and algorithm.flow.guard:
        text = f"normalises ratios, through which {loss} has no gradient."
        yield Problem("algorithm.flow.guard", text, "set it to false, or choose another loss_type.")
    for kind, settings in algorithm.per_kind.items():
        for name in ("epsilon", "epsilon_high", "delta"):
            if getattr(settings, name) is not None and loss not in _OWN_KEYS[name]:
                yield Problem(
                    f"algorithm.per_kind.{kind}.{name}", f"has no effect under loss_type {loss}.", "remove it."
                )
    if loss == "cispo":
        yield from _cap("algorithm.epsilon_high", algorithm.epsilon_high)
        for kind, settings in algorithm.per_kind.items():
            if settings.epsilon_high is not None:
                yield from _cap(f"algorithm.per_kind.{kind}.epsilon_high", settings.epsilon_high)


def _cap(key: str, cap: float | None) -> Iterator[Problem]:
    if cap is None or cap < 1:
        text = f"is {show(cap)}, but loss_type cispo caps the ratio itself there; expected a number >= 1."
        yield Problem(key, text, "set it to 5, which ScaleRL found good.")


def _delta(recipe: Recipe) -> Iterator[Problem]:
    """Two-sided clipping bounds ratios that the clip range leaves, so it lies above that."""
    algorithm = recipe.algorithm
    kinds = {f"algorithm.per_kind.{kind}": settings for kind, settings in algorithm.per_kind.items()}
    for key, own in {"algorithm": KindConfig(), **kinds}.items():
        low, high, delta = (
            getattr(own, name) if getattr(own, name) is not None else getattr(algorithm, name)
            for name in ("epsilon", "epsilon_high", "delta")
        )
        if delta is None or algorithm.loss_type not in CLIPPED:
            continue
        if low is None:
            text = f"is {delta:g}, but algorithm.epsilon null means never to clip."
            yield Problem(f"{key}.delta", text, "set algorithm.epsilon too, or remove delta.")
        elif delta <= 1 + (low if high is None else high):
            text = f"{delta:g} lies inside the clip range, which ends at {1 + (low if high is None else high):g}."
            yield Problem(f"{key}.delta", text, "raise it, or remove it: INTELLECT-2 has 4 at epsilon 0.2.")


def _kl(recipe: Recipe) -> Iterator[Problem]:
    algorithm = recipe.algorithm
    if algorithm.use_bias_correction_kl and algorithm.kl_estimator == "k2":
        text = "weights the KL by the ratio, but k2 has the gradient of the reverse KL without it."
        yield Problem("algorithm.use_bias_correction_kl", text, "set it to false, or kl_estimator to k3.")


def _clip_range(recipe: Recipe) -> Iterator[Problem]:
    algorithm = recipe.algorithm
    if algorithm.loss_type not in CLIPPED:
        return
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
    each = [track.prompts_per_step for track in recipe.resolved_tracks().values()]
    prompts = min(each) if recipe.run.steps_per_track is not None else sum(each)
    if minibatches > prompts:
        text = (
            f"{minibatches} minibatches cannot be cut from {prompts} prompts (run.prompts_per_step): groups stay whole."
        )
        yield Problem("algorithm.num_minibatches", text, f"set it to {prompts} or less, or raise run.prompts_per_step.")


def _flow_algorithm(recipe: Recipe) -> Iterator[Problem]:
    flow = recipe.algorithm.flow
    sde_type = recipe.sampling.denoising.sde_type
    if flow.guard and sde_type != "flow_sde":
        text = f"weights the steps of flow_sde alike, but sampling.denoising.sde_type is {sde_type}."
        yield Problem("algorithm.flow.guard", text, "set sampling.denoising.sde_type to flow_sde, or guard to false.")
    if flow.objective == "nft":
        if flow.guard:
            yield Problem("algorithm.flow.guard", "normalises ratios, which nft has none of.", "set it to false.")
        if flow.penalty == "kl":
            text = "is kl, but nft replays no stochastic step, so there is no KL of one."
            yield Problem("algorithm.flow.penalty", text, "set it to velocity_mse.")


ALGORITHM_CHECKS: tuple[Check, ...] = (
    _advantages,
    _reference,
    _loss_type,
    _clip_range,
    _delta,
    _kl,
    _minibatches,
    _flow_algorithm,
)
