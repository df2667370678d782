"""For every key of a recipe: what it is changed to, and in which part of a tiny run's outcome the change must show.

A new key needs one line here. `Shows("metrics/loss", 0.1)` reads: in the recipe `janus` of `bases.py`, setting the key
to 0.1 changes the metric `loss` of the run. `given` are keys that both runs set, where the key means nothing without
them. Parts are listed in `outcome.py`; a prefix such as `metrics` stands for all of them. Keys of a list or a mapping
are written with an example: `at="rewards.0.weight"` for `rewards.N.weight`. Keys below `tracks.TRACK` are tested by the
line of the same key outside tracks, moved into a track.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.runs import CALLBACKS, REWARDS


@dataclass(frozen=True)
class Shows:
    """One key: the part of the outcome that must differ, and the changed value."""

    part: str
    value: Any
    base: str = "janus"
    given: dict[str, Any] = field(default_factory=dict)
    at: str | None = None


SLOW = (
    "tracks",
    "sampling",
    "algorithm.loss",
    "policy.lora",
    "policy.diffusion",
    "rewards.N.on_failure",
    "eval",
    "optimizer",
)
"""Sections whose keys reach a run along one path, and have tests of their own: a few keys stand for the others."""
FAST = {
    "tracks.TRACK.scenario",
    "tracks.TRACK.rewards.N.acts",
    "sampling.text.max_tokens",
    "sampling.image.guidance",
    "sampling.denoising.num_steps",
    "algorithm.loss.epsilon",
    "policy.lora.rank",
    "policy.diffusion.path",
    "rewards.N.on_failure.process",
    "eval.suite.split",
    "eval.size",
    "optimizer.learning_rate",
    "optimizer.max_tokens_per_microbatch",
}


OFF_POLICY = {"algorithm.num_iterations": 2, "optimizer.learning_rate": 0.01}
WITH_KL = {"algorithm.beta": 0.1, **OFF_POLICY}
TIGHT = {"algorithm.loss.epsilon": 1e-6, **OFF_POLICY}
REJECTED = {"answer": "question"}
SAPO = {"algorithm.loss": "sapo", **OFF_POLICY}
VESPO = {"algorithm.loss": "vespo", **OFF_POLICY}
SYNCED = {"algorithm.beta": 0.1, "algorithm.reference_sync.every": 1}
CONDITIONAL = {"sampling.image.guidance": "conditional"}  # sampled from another distribution than the scored one
GUIDED = {"sampling.image.guidance": "guided"}
FLOW_GUIDED = {"sampling.denoising.guidance": "guided", "sampling.denoising.guidance_scale": 2.0}
PER_STEP = {"name": "progressive", "steps_per_position": 1}
WINDOW = {"sampling.denoising.sde_window.size": 1, "sampling.denoising.sde_window.schedule": PER_STEP}
MEASURED = {
    "eval.suite": {"name": "shapes", "held_out_size": 1},
    "eval.size": 2,
    "eval.samples_per_item": 1,
    "run.steps": 1,
}
PLAYED = {"eval.suite": "rewards", "eval.size": 2, "eval.samples_per_item": 1, "run.steps": 1}
WORTH = {"rewards": [{"name": f"{REWARDS}worth"}]}
BRIEF = {"rewards": [{"name": f"{REWARDS}briefly"}]}
PARTIAL = {"rewards": [{"name": f"{REWARDS}partial", "on_failure": "drop"}]}
PARTIAL_AGAIN = {
    "rewards": [{"name": f"{REWARDS}partial", "on_failure": {"name": "retry", "retries": 1, "then": "drop"}}]
}
ELSEWHERE = {"rewards": [{"name": f"{REWARDS}elsewhere"}]}
BROKEN_TWICE = {  # counts its calls: no fixed prompts are scored
    "rewards": [{"name": f"{REWARDS}breaks_twice", "on_failure": "retry"}],
    "run.log_samples_every": 3,
}

LONG = {"sampling.text.max_tokens": 64, "algorithm.num_generations": 4}
THOUGHT = {"scenario": "think_then_generate", "rewards": [{"name": f"{REWARDS}flat"}]}
LORA = {"policy.lora.rank": 2, "policy.train": []}
DIFFUSION_LORA = {"policy.diffusion.lora.rank": 2, "policy.train": []}

TABLE: dict[str, Shows] = {
    "description": Shows("recipe", "what it does"),
    # policy
    "policy.path": Shows("samples", "@janus_2"),
    "policy.train": Shows("weights", ["lm_head"]),
    "policy.lora.rank": Shows("weights", 4, given=LORA),
    "policy.lora.alpha": Shows("weights", 64.0, given=LORA),
    "policy.lora.target_modules": Shows("weights", ["q_proj"], given=LORA),
    "policy.diffusion.path": Shows("samples", "@sd3", "experts"),
    "policy.diffusion.size": Shows("samples", [32, 32], "experts"),
    "policy.diffusion.embedded_guidance": Shows("samples", 1.0, "experts"),
    "policy.diffusion.lora.rank": Shows("weights", 4, "experts", DIFFUSION_LORA),
    "policy.diffusion.lora.alpha": Shows("weights", 64.0, "experts", DIFFUSION_LORA),
    "policy.diffusion.lora.target_modules": Shows("weights", ["to_q"], "experts", DIFFUSION_LORA),
    "policy.device": Shows("refused", "cuda:99"),
    "policy.dtype": Shows("weights", "bfloat16"),
    "policy.rollout_dtype": Shows("metrics/old_log_probs_recomputed", "bfloat16"),
    "policy.gradient_checkpointing": Shows("work/linear_rows", True),
    "policy.max_pixels": Shows("samples", 64, "reading"),
    "policy.generation_batch_size": Shows("work/linear_calls", 1),
    # scenario, data, rewards
    "scenario": Shows("samples", "answer", given={"rewards": [{"name": f"{REWARDS}spacious"}]}),
    "data.source": Shows("samples", "@riddles", "reading"),
    "data.split": Shows("samples", "test"),
    "data.columns": Shows("samples", {"prompt": "solution"}),
    "data.size": Shows("samples", 1),
    "data.options": Shows("samples", {"canvas": 16, "grid": 2, "max_objects": 1, "max_count": 2}),
    "data.rejected": Shows("weights", REJECTED, "sft", {"algorithm.loss": "dpo"}),
    "data.targets": Shows("weights", {"image": "target", "answer": "question"}, "sft"),
    "rewards.N.name": Shows("metrics/reward", f"{REWARDS}flat", at="rewards.0.name"),
    "rewards.N.weight": Shows("metrics/reward", 3.0, at="rewards.0.weight"),
    "rewards.N.acts": Shows("weights", ["image", "answer"], at="rewards.0.acts"),
    "rewards.N.options": Shows("metrics/reward", {"value": 1.0}, given=WORTH, at="rewards.0.options"),
    "rewards.N.on_failure": Shows("refused", "raise", given=PARTIAL, at="rewards.0.on_failure"),
    "rewards.N.on_failure.timeout": Shows("refused", 1e-3, given=BRIEF, at="rewards.0.on_failure.timeout"),
    "rewards.N.on_failure.process": Shows("metrics/reward", True, given=ELSEWHERE, at="rewards.0.on_failure.process"),
    "rewards.N.on_failure.retries": Shows("refused", 1, given=BROKEN_TWICE, at="rewards.0.on_failure.retries"),
    "rewards.N.on_failure.then": Shows("refused", "raise", given=PARTIAL_AGAIN, at="rewards.0.on_failure.then"),
    # algorithm
    "algorithm.num_generations": Shows("samples", 3),
    "algorithm.advantage": Shows("weights", "rloo", given={"algorithm.num_generations": 3}),
    "algorithm.scale_rewards": Shows("weights", "none"),
    "algorithm.advantage.population_std": Shows("metrics/grad_norm", True),
    "algorithm.advantage.clip": Shows("metrics/grad_norm", 0.1),
    "algorithm.advantage.normalize_separately": Shows("weights", True),
    "algorithm.advantage.threshold": Shows("weights", -1.0, given={"algorithm.advantage": "rejection"}),
    "algorithm.advantage_assignment": Shows("weights", "summed"),
    "algorithm.loss": Shows("weights", "bnpo", given=LONG),
    "algorithm.loss.importance_sampling_level": Shows("weights", "sequence", given=OFF_POLICY),
    "algorithm.loss.epsilon": Shows("metrics/text/clip_fraction", 1e-6, given=OFF_POLICY),
    "algorithm.loss.rollout_is": Shows("weights", "token", given=CONDITIONAL),
    "algorithm.loss.rollout_is_threshold": Shows(
        "metrics/image/rollout_is_truncated", 1.0, given={"algorithm.loss.rollout_is": "token", **CONDITIONAL}
    ),
    "algorithm.loss.epsilon_high": Shows("metrics/text/clip_fraction", 0.3, given=TIGHT),
    "algorithm.loss.delta": Shows("metrics/image/clip_fraction", 1.00001, given=TIGHT),
    "algorithm.loss.temperature_pos": Shows("weights", 5.0, given=SAPO),
    "algorithm.loss.temperature_neg": Shows("weights", 5.0, given=SAPO),
    "algorithm.loss.k_pos": Shows("weights", 5.0, given=VESPO),
    "algorithm.loss.lambda_pos": Shows("weights", 5.0, given=VESPO),
    "algorithm.loss.k_neg": Shows("weights", 5.0, given=VESPO),
    "algorithm.loss.lambda_neg": Shows("weights", 5.0, given=VESPO),
    "algorithm.loss.label_smoothing": Shows(
        "weights", 0.3, "sft", {"data.rejected": REJECTED, "algorithm.loss": "dpo"}
    ),
    "algorithm.loss.beta": Shows("weights", 0.5, "flow", {"algorithm.loss": "nft"}),
    "algorithm.loss.kl_estimator": Shows("metrics/text/kl", "k1", given=WITH_KL),
    "algorithm.loss.kl_bias_correction": Shows("weights", True, given=WITH_KL),
    "algorithm.loss.top_entropy_quantile": Shows("metrics/grad_norm", 0.2),
    "algorithm.loss.mask_truncated_completions": Shows("weights", True),
    "algorithm.loss.entropy_bonus": Shows("weights", 0.1),
    "algorithm.beta": Shows("metrics/text/kl", 0.1),
    "algorithm.reference_sync.every": Shows("metrics/text/kl", 2, given=SYNCED),
    "algorithm.reference_sync.alpha": Shows("metrics/text/kl", 0.1, given=SYNCED),
    "sft.prompt_dropout": Shows("weights", 0.9, "sft"),
    "sft.source_dropout": Shows("weights", 0.9, "edit_sft"),
    "sft.joint_dropout": Shows("weights", 0.9, "edit_sft"),
    "algorithm.dynamic_sampling": Shows("metrics/groups_discarded", 1, given=WORTH),
    "algorithm.num_iterations": Shows("weights", 2),
    "algorithm.num_minibatches": Shows("weights", 2),
    "algorithm.per_kind.KIND.loss": Shows("weights", "grpo_guard", "flow", at="algorithm.per_kind.denoising.loss"),
    "algorithm.per_kind.KIND.beta": Shows("metrics/image/kl", 0.1, at="algorithm.per_kind.image.beta"),
    "algorithm.per_kind.KIND.weight": Shows("metrics/image/loss", 3.0, at="algorithm.per_kind.image.weight"),
    # sampling
    "sampling.text.temperature": Shows("samples", 0.5),
    "sampling.text.top_k": Shows("samples", 2),
    "sampling.text.top_p": Shows("samples", 0.1),
    "sampling.text.min_p": Shows("samples", 0.9),
    "sampling.text.max_tokens": Shows("metrics/completion_length/max", 4),
    "sampling.image.temperature": Shows("samples", 0.5),
    "sampling.image.top_k": Shows("samples", 2),
    "sampling.image.top_p": Shows("samples", 0.1),
    "sampling.image.min_p": Shows("samples", 0.9),
    "sampling.image.guidance": Shows("samples", "guided"),
    "sampling.image.guidance_scale": Shows("samples", 2.0, given=GUIDED),
    "sampling.denoising.num_steps": Shows("samples", 3, "flow"),
    "sampling.denoising.noise_level": Shows("samples", 0.3, "flow"),
    "sampling.denoising.sde_type": Shows("samples", "cps", "flow"),
    "sampling.denoising.sde_window.size": Shows("samples", 2, "flow", WINDOW),
    "sampling.denoising.sde_window.schedule": Shows("samples", "fixed", "flow", WINDOW),
    "sampling.denoising.sde_window.stride": Shows("samples", 2, "flow", WINDOW),
    "sampling.denoising.sde_window.schedule.steps_per_position": Shows("samples", 2, "flow", WINDOW),
    "sampling.denoising.shift": Shows("samples", 3.0, "flow"),
    "sampling.denoising.guidance": Shows("samples", "guided", "flow"),
    "sampling.denoising.guidance_scale": Shows("samples", 3.0, "flow", FLOW_GUIDED),
    "sampling.denoising.image_guidance_scale": Shows("samples", 3.0, "edit", FLOW_GUIDED),
    # optimizer
    "optimizer.learning_rate": Shows("weights", 0.001),
    "optimizer.betas": Shows("weights", [0.5, 0.9]),
    "optimizer.weight_decay": Shows("weights", 0.1),
    "optimizer.warmup_steps": Shows("metrics/learning_rate", 3),
    "optimizer.schedule": Shows("metrics/learning_rate", "linear"),
    "optimizer.param_group_lrs": Shows("weights", {"lm_head": 0.1}),
    "optimizer.max_grad_norm": Shows("weights", 1e-6),
    "optimizer.max_tokens_per_microbatch": Shows("work/replay_calls", 1),
    # evaluation
    "eval.suite": Shows("before", {"name": "shapes", "held_out_size": 1}, given=PLAYED),
    "eval.size": Shows("before", 1, given=PLAYED),
    "eval.minutes": Shows("before", 1e-4, given={**PLAYED, "eval.size": 40}),
    "eval.samples_per_item": Shows("before", 2, given=PLAYED),
    "eval.suite.data": Shows(
        "before", "@riddles", "reading", {**PLAYED, "eval.suite": {"name": "rewards", "data": "@hints"}}
    ),
    "eval.suite.split": Shows("before", "held_out", given={**PLAYED, "eval.suite": {"name": "rewards"}}),
    "eval.suite.held_out_size": Shows("before", 2, given=MEASURED),
    "eval.suite.guidance_scale": Shows("pictures", 3.0, given=MEASURED),
    "eval.every": Shows("metrics/eval/draw", 1, "sft", MEASURED),
    "eval.seed": Shows("before", 5, given=PLAYED),
    # run
    "run.steps": Shows("metrics/loss", 3),
    "run.minutes": Shows("metrics/loss", 1e-4, given={"run.steps": 4}),
    "run.prompts_per_step": Shows("samples", 1),
    "run.steps_per_track": Shows("metrics/other/reward", 1, "turns"),
    "run.seed": Shows("samples", 1),
    "run.save_every": Shows("files", 1),
    "run.save_minutes": Shows("files", 1e-9),
    "run.keep_checkpoints": Shows("files", 1, given={"run.save_every": 1}),
    "run.log_samples_every": Shows("files", 2),
    "run.callbacks": Shows("files", [f"{CALLBACKS}FileWriter"]),
    "run.report_to": Shows("files", [f"{CALLBACKS}FileTracker"]),
    "run.threads": Shows("work/threads", 2),
}
