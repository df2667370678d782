"""Keys and values of older recipes, and what they are called now. Imports no torch.

A key that is renamed needs one line in `KEYS`, a name that a recipe gives (a scenario, a reward) one in `VALUES`. `*`
stands for one part of a key: a track, a kind of act, the place in a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from motet.config.problem import Problem

KEYS: dict[str, str] = {
    "text": "sampling.text",
    "image": "sampling.image",
    "denoising": "sampling.denoising",
    "denoising.sde_window.moves": "sampling.denoising.sde_window.schedule",
    "denoising.sde_window.interval": "sampling.denoising.sde_window.schedule.steps_per_position",
    "sampling.denoising.sde_window.steps_per_position": "sampling.denoising.sde_window.schedule.steps_per_position",
    "policy.expert": "policy.diffusion",
    "policy.expert.height": "policy.diffusion.size (height and width: [512, 512])",
    "policy.expert.width": "policy.diffusion.size (height and width: [512, 512])",
    "policy.autocast": "policy.dtype (float32 instead of none)",
    "policy.rollout_autocast": "policy.rollout_dtype (float32 instead of none)",
    "policy.rollout_batch": "policy.generation_batch_size",
    "scenario_options": "scenario ({name: NAME, OPTION: VALUE})",
    "rewards.*.timeout": "rewards.*.on_failure.timeout",
    "algorithm.prompt_dropout": "sft.prompt_dropout",
    "algorithm.source_dropout": "sft.source_dropout",
    "algorithm.joint_dropout": "sft.joint_dropout",
    "optimizer.learning_rates": "optimizer.param_group_lrs",
    "optimizer.tokens_per_microbatch": "optimizer.max_tokens_per_microbatch",
    "eval.data": "eval.suite.data",
    "eval.split": "eval.suite.split",
    "eval.held_out_size": "eval.suite.held_out_size",
    "eval.guidance_scale": "eval.suite.guidance_scale",
    "eval.pass_at": "eval.samples_per_item",
    "run.turn": "run.steps_per_track",
    "run.sample_every": "run.log_samples_every",
    "algorithm.credit": "algorithm.advantage_assignment",
    "algorithm.loss_type": "algorithm.loss",
    "algorithm.population_std": "algorithm.advantage.population_std",
    "algorithm.advantage_clip": "algorithm.advantage.clip",
    "algorithm.normalize_each": "algorithm.advantage.normalize_separately",
    "algorithm.sync_ref_model": "algorithm.reference_sync ({every: 512, alpha: 0.6})",
    "algorithm.ref_model_sync_steps": "algorithm.reference_sync.every",
    "algorithm.ref_model_mixup_alpha": "algorithm.reference_sync.alpha",
    "algorithm.use_bias_correction_kl": "algorithm.loss.kl_bias_correction",
    "algorithm.flow.objective": "algorithm.per_kind.denoising.loss (nft)",
    "algorithm.flow.guard": "algorithm.per_kind.denoising.loss (grpo_guard)",
    "algorithm.flow.penalty": "algorithm.per_kind.denoising.loss.kl_estimator (gaussian or velocity_mse)",
    "algorithm.flow.nft_beta": "algorithm.per_kind.denoising.loss.beta",
    "algorithm.importance_sampling_level": "algorithm.loss.importance_sampling_level",
    "algorithm.epsilon": "algorithm.loss.epsilon",
    "algorithm.epsilon_high": "algorithm.loss.epsilon_high",
    "algorithm.delta": "algorithm.loss.delta",
    "algorithm.kl_estimator": "algorithm.loss.kl_estimator",
    "algorithm.top_entropy_quantile": "algorithm.loss.top_entropy_quantile",
    "algorithm.mask_truncated_completions": "algorithm.loss.mask_truncated_completions",
    "algorithm.entropy_bonus": "algorithm.loss.entropy_bonus",
    "algorithm.per_kind.*.epsilon": "algorithm.per_kind.*.loss.epsilon",
    "algorithm.per_kind.*.epsilon_high": "algorithm.per_kind.*.loss.epsilon_high",
    "algorithm.per_kind.*.delta": "algorithm.per_kind.*.loss.delta",
    "algorithm.sapo_temperature_pos": "algorithm.loss.temperature_pos",
    "algorithm.sapo_temperature_neg": "algorithm.loss.temperature_neg",
    "algorithm.vespo_k_pos": "algorithm.loss.k_pos",
    "algorithm.vespo_lambda_pos": "algorithm.loss.lambda_pos",
    "algorithm.vespo_k_neg": "algorithm.loss.k_neg",
    "algorithm.vespo_lambda_neg": "algorithm.loss.lambda_neg",
}
"""Old key -> new key, with a remark in parentheses where the value changes too; a section needs one line."""

_SCENARIOS = {
    "draw": "text_to_image",
    "duet": "generate_and_answer",
    "think_draw": "think_then_generate",
    "redraw": "regenerate",
    "caption_redraw": "caption_cycle",
    "refine_draw": "refine_prompt",
    "paint": "tokens_then_flow",
    "think_paint": "think_tokens_then_flow",
}

STAGE_KEYS: dict[str, str] = {"rows": "table", "stages.*.from": "stages.*.init_from"}
"""The same for files of stages."""
SWEEP_KEYS: dict[str, str] = {
    "against": "baseline",
    "strategies.*.stages.*.from": "strategies.*.stages.*.init_from",
}
"""The same for sweeps."""

VALUES: dict[str, dict[str, str]] = {
    "scenario": _SCENARIOS,
    "rewards.*.name": {"picture_qa": "image_qa"},
    "policy.dtype": {"none": "float32"},
    "policy.rollout_dtype": {"none": "float32"},
}
"""Key -> old value -> new value; of a named choice its name."""


def renamed_problems(
    content: Mapping[str, Any], prefix: str = "", keys: Mapping[str, str] | None = None
) -> Iterator[Problem]:
    """A problem for every old key and value in the mapping of a recipe, tracks included; `prefix` goes before each."""
    table = KEYS if keys is None else keys
    for path, value in _places(content, ()):
        where, track = prefix, path
        if len(path) > 2 and path[0] == "tracks":
            where, track = f"{prefix}tracks.{path[1]}.", path[2:]
        key = where + ".".join(track)
        new = _look_up(track, table)
        if new is not None:
            yield Problem(key, f"was renamed to {where}{new}.", f"write {where}{new}.")
        old = cast("Mapping[str, Any]", value).get("name") if isinstance(value, Mapping) else value
        names = next((names for at, names in VALUES.items() if _matches(track, at)), dict[str, str]())
        if isinstance(old, str) and old in names:
            yield Problem(key, f"{old!r} was renamed to {names[old]!r}.", f"write {names[old]}.")


def _places(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key below a value, with what it holds."""
    pairs: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        pairs = list(cast("Mapping[Any, Any]", value).items())
    elif isinstance(value, list):
        pairs = list(enumerate(cast("list[Any]", value)))
    for name, inner in pairs:
        here = (*path, str(name))
        yield here, inner
        yield from _places(inner, here)


def _look_up(path: Sequence[str], table: Mapping[str, str]) -> str | None:
    """The new key of a path, if exactly it was renamed."""
    for old, new in table.items():
        if _matches(path, old):
            wild = iter([part for part, name in zip(path, old.split("."), strict=True) if name == "*"])
            return ".".join(next(wild) if part == "*" else part for part in new.split("."))
    return None


def _matches(path: Sequence[str], pattern: str) -> bool:
    parts = pattern.split(".")
    return len(parts) == len(path) and all(name in ("*", part) for part, name in zip(path, parts, strict=True))
