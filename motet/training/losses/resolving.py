"""From a recipe to the loss of each kind of act."""

from __future__ import annotations

from typing import Any

from motet.config import AlgorithmConfig, KindConfig
from motet.core.trajectory import ActKind
from motet.training.losses.base import Loss
from motet.training.losses.registry import LOSSES

_OLD: dict[str, str] = {
    "kl_bias_correction": "use_bias_correction_kl", "temperature_pos": "sapo_temperature_pos",
    "temperature_neg": "sapo_temperature_neg", "k_pos": "vespo_k_pos", "lambda_pos": "vespo_lambda_pos",
    "k_neg": "vespo_k_neg", "lambda_neg": "vespo_lambda_neg",
}  # fmt: skip


def resolve_loss(algorithm: AlgorithmConfig, kind: ActKind) -> Loss[Any]:
    """The loss of acts of this kind."""
    own = algorithm.per_kind.get(kind) or KindConfig()
    beta = algorithm.beta if own.beta is None else own.beta
    flow, name = algorithm.flow, algorithm.loss_type
    given: dict[str, Any] = {}
    if kind == "denoising":
        given["kl_estimator"] = "velocity_mse" if flow.penalty == "velocity_mse" else "gaussian"
        if flow.guard:
            name = "grpo_guard"
        if flow.objective == "nft":
            return LOSSES.find("nft")(LOSSES.find("nft").Settings(beta=flow.nft_beta), kind, beta, own.weight)
    loss = LOSSES.find(name)
    options: dict[str, Any] = {}
    fields: list[str] = list(loss.Settings.model_fields)
    for field in fields:
        value = getattr(own, field, None)
        options[field] = getattr(algorithm, str(_OLD.get(field, field)), None) if value is None else value
    if name in ("luspo", "vespo"):
        del options["importance_sampling_level"]
    return loss(loss.Settings(**{**options, **given}), kind, beta, own.weight)
