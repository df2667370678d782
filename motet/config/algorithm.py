"""The keys of `algorithm`: advantages, loss, KL and credit. Names are TRL's where TRL has one. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from motet.config.section import Section

ActKind = Literal["text", "image", "denoising"]
LossType = Literal["grpo", "bnpo", "dapo", "dr_grpo", "luspo", "cispo", "sapo", "vespo"]
CLIPPED: tuple[LossType, ...] = ("grpo", "bnpo", "dapo", "dr_grpo", "luspo")
"""Loss types that clip ratios, and so read epsilon, epsilon_high and delta."""


class KindConfig(Section):
    """Loss settings of one kind of act; None takes the algorithm's own."""

    epsilon: NonNegativeFloat | None = None
    """Clip range below 1."""
    epsilon_high: NonNegativeFloat | None = None
    """Clip range above 1; of cispo the cap."""
    delta: PositiveFloat | None = None
    """Upper bound of the ratio where the advantage is negative."""
    beta: NonNegativeFloat | None = None
    """KL coefficient."""
    weight: NonNegativeFloat = 1.0
    """Weight of this kind's loss in the sum."""


class FlowAlgorithmConfig(Section):
    """What the loss of denoising acts can do beside the ratio, clip and KL that all kinds share."""

    objective: Literal["grpo", "nft"] = "grpo"
    """Ratios of the stochastic steps (Flow-GRPO), or DiffusionNFT's loss on re-noised pictures, without any ratio."""
    guard: bool = False
    """GRPO-Guard: ratios normalised per step and steps weighted alike (arXiv 2510.22319); for flow_sde."""
    penalty: Literal["kl", "velocity_mse"] = "kl"
    """What beta weighs: the exact KL of the steps, or the velocities' squared distance (UniGRPO, arXiv 2603.23500)."""
    nft_beta: PositiveFloat = 1.0
    """How near DiffusionNFT's implicit policies are to the old one: smaller goes further."""


class AlgorithmConfig(Section):
    """Advantage estimator x loss x KL, and credit. Paper names: docs/algorithms.md maps each to these settings."""

    num_generations: int = Field(default=8, ge=2)
    """G: siblings per prompt, the group of group-relative advantages."""
    advantage: Literal["grpo", "rloo"] = "grpo"
    """Baseline: the group's mean, or the mean of the other siblings (RLOO)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide by the standard deviation over the group, over the batch, or not at all (Dr. GRPO)."""
    population_std: bool = False
    """Divide by the standard deviation of the population (n), as Flow-GRPO's code does, not by the unbiased (n - 1)."""
    advantage_clip: PositiveFloat | None = None
    """Bound of an act's advantage, to both sides (Flow-GRPO's code: 5); None: no bound."""
    normalize_each: bool = False
    """Normalise every single reward over its group before the weighted sum (GDPO)."""
    credit: Literal["joint", "summed", "factorized"] = "joint"
    """Which advantage an act gets; see `motet.training.advantages`."""
    loss_type: LossType = "grpo"
    """What is summed over the tokens, and divided by what: a table in docs/algorithms.md. TRL's default is dapo."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """`sequence` is GSPO's length-normalised sequence ratio."""
    epsilon: NonNegativeFloat | None = 0.2
    """Clip range below 1; null never clips (CoRL)."""
    epsilon_high: NonNegativeFloat | None = None
    """Clip range above 1; None: the same as epsilon (DAPO: 0.28). Of cispo the cap of the ratio itself (5 is usual)."""
    delta: PositiveFloat | None = None
    """Upper bound of the ratio where the advantage is negative (two-sided clipping, INTELLECT-2); None: no bound."""
    sapo_temperature_pos: PositiveFloat = 1.0
    """sapo: how fast the gradient fades away from ratio 1 where the advantage is positive."""
    sapo_temperature_neg: PositiveFloat = 1.05
    """sapo: the same where the advantage is not positive."""
    vespo_k_pos: NonNegativeFloat = 2.0
    """vespo: power of the sequence's ratio where the advantage is not negative; lowers the weight of ratios below 1."""
    vespo_lambda_pos: PositiveFloat = 3.0
    """vespo: decay in the sequence's ratio where the advantage is not negative; lowers the weight of ratios above 1."""
    vespo_k_neg: NonNegativeFloat = 3.0
    """vespo: the power where the advantage is negative."""
    vespo_lambda_neg: PositiveFloat = 2.0
    """vespo: the decay where the advantage is negative."""
    beta: NonNegativeFloat = 0.0
    """Coefficient of the KL to the frozen starting weights."""
    sync_ref_model: bool = False
    """Move the reference towards the present weights every ref_model_sync_steps (TR-DPO), for rewards too."""
    ref_model_mixup_alpha: float = Field(default=0.6, gt=0.0, le=1.0)
    """The reference becomes alpha x present weights + (1 - alpha) x reference."""
    ref_model_sync_steps: PositiveInt = 512
    """Optimizer steps between two of these."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Per-action estimator of KL(policy || reference) (Schulman 2020)."""
    use_bias_correction_kl: bool = False
    """Multiply the KL of tokens by the ratio (DeepSeek-V3.2), on policy too. TRL's default is true; GRPO's is false."""
    top_entropy_quantile: float = Field(default=1.0, ge=0.0, le=1.0)
    """Share of the tokens, those of the highest entropy in the step, that keep their policy loss (80/20 rule: 0.2)."""
    mask_truncated_completions: bool = False
    """Leave texts cut off at sampling.text.max_tokens out of the loss (DAPO); their rewards stay in the advantages."""
    entropy_bonus: NonNegativeFloat = 0.0
    """Coefficient of the mean entropy of all tokens, whatever the loss_type (TRL's entropy_coef)."""
    num_iterations: PositiveInt = 1
    """Passes over each rollout (mu in the GRPO paper)."""
    num_minibatches: PositiveInt = 1
    """Optimizer steps per pass; clipping acts only when num_iterations x num_minibatches > 1."""
    flow: FlowAlgorithmConfig = FlowAlgorithmConfig()
    """What concerns denoising acts alone."""
    per_kind: dict[ActKind, KindConfig] = Field(default_factory=dict[ActKind, KindConfig])
    """Settings that differ for one kind of act, e.g. {image: {beta: 0.01}}."""
