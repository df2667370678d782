"""An inference copy of a Llama-like language model: fused projections, LoRA merged where that is exact, one dtype.

A training module pays for its generality at every token: one call per projection, hooks, adapters beside the weights. A
snapshot holds the same function as flat tensors, so that a decode step is little more than its matrix products.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.models.emu3.modeling_emu3 import Emu3TextModel
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from motet.core.errors import CheckpointError
from motet.policies.generation.fused_linear import Adapter, FusedLinear

LLAMAS = (LlamaModel, Emu3TextModel, Qwen2_5_VLTextModel, Qwen3VLTextModel)
"""Decoders that compute what Llama's does, under the same names; Qwen3 also norms each query and key."""

PRECOMPUTABLE_ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings whose angles depend on the position alone: `dynamic` and `longrope` also look at the length."""


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One decoder layer. H heads, K key/value heads, E width of a head, D features, I width of the MLP.

    `qk_norm` are the weights of the norms of each query and each key (J = H + K), None where there are none.
    """

    attention_norm: Float[Tensor, "D"]
    qkv: FusedLinear  # D -> (H + 2 K) E
    qk_norm: Float[Tensor, "J E"] | None
    out: FusedLinear  # H E -> D
    mlp_norm: Float[Tensor, "D"]
    gate_up: FusedLinear  # D -> 2 I
    down: FusedLinear  # I -> D


@dataclass(frozen=True, eq=False)
class FusedLlama:
    """A Llama decoder as flat tensors, without its token embedding and its heads.

    Projections, keys and values are of `dtype`. Norms, rotary angles and the residual stream are of at least float32,
    as they are under autocast when the acts are replayed.

    Weights that need neither a cast nor fusing are shared with the model, so a snapshot is good until the model's next
    update: `stale` says so, and `decode` rejects a stale one. Take a snapshot per rollout, not per model.
    """

    dtype: torch.dtype
    layers: tuple[LayerWeights, ...]
    norm: Float[Tensor, "D"]
    eps: float
    heads: int
    kv_heads: int
    head_dim: int
    max_positions: int
    rotary: nn.Module
    watched: tuple[tuple[Tensor, int], ...]

    @classmethod
    def from_model(
        cls, language_model: nn.Module, dtype: torch.dtype | None = None, *, clone: bool = False
    ) -> FusedLlama:
        """Snapshot a Llama decoder (`LLAMAS`), bare or wrapped by peft with LoRA; `dtype` None keeps the model's own.

        `clone` shares no weight with the model. Weights that FSDP2 has gathered (`is_sharded`) are always cloned:
        resharding frees their storage and leaves their version as it was, so `stale` could not tell.

        Raises `CheckpointError` for a model whose output it could not reproduce.
        """
        model = _unwrap(language_model)
        _require_reproducible(model)
        attention = model.layers[0].self_attn
        with torch.no_grad():
            target: torch.dtype = dtype or model.norm.weight.dtype
            cast = Cast(target, clone or is_sharded(language_model))
            layers = tuple(_layer_weights(layer, f"layers.{i}", cast) for i, layer in enumerate(model.layers))
            return cls(
                dtype=target,
                layers=layers,
                norm=_norm_weight(model.norm, "norm", cast),
                eps=model.config.rms_norm_eps,
                heads=model.config.num_attention_heads,
                kv_heads=model.config.num_key_value_heads,
                head_dim=attention.head_dim,
                max_positions=model.config.max_position_embeddings,
                rotary=model.rotary_emb,
                watched=tuple((parameter, parameter._version) for parameter in language_model.parameters()),
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.norm.device

    @property
    def stale(self) -> bool:
        """Whether the model's weights were updated in place since `from_model` (writes through `.data` go unseen)."""
        return any(parameter._version != version for parameter, version in self.watched)

    def rotary_tables(self, length: int) -> tuple[Float[Tensor, "T 1 E"], Float[Tensor, "T 1 E"]]:
        """Cosines and signed sines of positions 0 .. length - 1 from the rotary embedding, float32 or wider.

        `rotate_half(x)` is `roll(x, E / 2)` with its first half negated; the sign is kept in the sine table.
        """
        cos, sin = self.angles(torch.arange(length, device=self.device)[None])
        return cos[0], sin[0]

    def angles(self, positions: Int[Tensor, "*A U T"]) -> tuple[Float[Tensor, "U T 1 E"], Float[Tensor, "U T 1 E"]]:
        """Cosines and signed sines of positions; of M-RoPE's on three axes A, or of the same on all of them."""
        cos, sin = self.rotary(self.norm, positions)
        half = self.head_dim // 2
        return cos.unsqueeze(2), torch.cat((-sin[..., :half], sin[..., half:]), dim=-1).unsqueeze(2)


def _refuse(what: str, fix: str) -> NoReturn:
    raise CheckpointError(f"The fast sampler cannot reproduce this language model: {what}.", fix=fix)


def _unwrap(language_model: nn.Module) -> Any:
    """The Llama model inside peft's wrapper, if there is one."""
    model: Any = language_model
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        if getattr(model.active_peft_config, "is_prompt_learning", False):
            _refuse("its adapter prepends learned prompts", "use a LoRA adapter.")
        model = model.get_base_model()
    if not isinstance(model, LLAMAS):
        _refuse(
            f"it is a {type(model).__name__}, not a {' or '.join(kind.__name__ for kind in LLAMAS)}",
            "pass the decoder of such a checkpoint (of Janus: model.model.language_model).",
        )
    return model


def _require_reproducible(model: Any) -> None:
    config = model.config
    if config.hidden_act != "silu":
        _refuse(f"hidden_act is {config.hidden_act!r}", "use a checkpoint with hidden_act='silu'.")
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds or getattr(config, "sliding_window", None):
        named = ", ".join(sorted(kinds)) or f"sliding_window={config.sliding_window}"
        _refuse(f"its attention is {named}", "use a checkpoint with full attention in every layer.")
    rope = model.rotary_emb.rope_type
    if rope not in PRECOMPUTABLE_ROPE_TYPES:
        _refuse(
            f"its rope_type is {rope!r}, whose angles cannot be tabulated by position",
            f"use a checkpoint with rope_type {', '.join(sorted(PRECOMPUTABLE_ROPE_TYPES))}.",
        )
    width, head_dim = 2 * model.rotary_emb.inv_freq.shape[0], model.layers[0].self_attn.head_dim
    if width != head_dim:
        _refuse(f"its rotary embedding turns {width} of {head_dim} dimensions", "use a full rotary embedding.")


@dataclass(frozen=True)
class Cast:
    """How the model's weights become a snapshot's: in which type, and whether none may share the model's storage."""

    dtype: torch.dtype
    clone: bool = False

    def __call__(self, weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The weight in a type, None: that of the projections."""
        return weight.detach().to(dtype or self.dtype, copy=self.clone)


def is_sharded(module: nn.Module) -> bool:
    """Whether FSDP2 manages the weights of a module, or of one within it."""
    if not torch.distributed.is_available():
        return False
    from torch.distributed.fsdp import FSDPModule  # only here: it takes a moment to import

    return any(isinstance(part, FSDPModule) for part in module.modules())


def _layer_weights(layer: Any, name: str, cast: Cast) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    return LayerWeights(
        attention_norm=_norm_weight(layer.input_layernorm, f"{name}.input_layernorm", cast),
        qkv=_fused(attention, ("q_proj", "k_proj", "v_proj"), f"{name}.self_attn", cast),
        qk_norm=_qk_norm(attention, f"{name}.self_attn", cast),
        out=_fused(attention, ("o_proj",), f"{name}.self_attn", cast),
        mlp_norm=_norm_weight(layer.post_attention_layernorm, f"{name}.post_attention_layernorm", cast),
        gate_up=_fused(mlp, ("gate_proj", "up_proj"), f"{name}.mlp", cast),
        down=_fused(mlp, ("down_proj",), f"{name}.mlp", cast),
    )


def _qk_norm(attention: Any, name: str, cast: Cast) -> Tensor | None:
    """One row of weights per query head, then one per key head."""
    if not hasattr(attention, "q_norm"):
        return None
    config = attention.config
    counts = {"q_norm": config.num_attention_heads, "k_norm": config.num_key_value_heads}
    each = [_norm_weight(getattr(attention, n), f"{name}.{n}", cast).expand(count, -1) for n, count in counts.items()]
    return torch.cat(each)


def _norm_weight(norm: Any, name: str, cast: Cast) -> Tensor:
    if not type(norm).__name__.endswith("RMSNorm"):
        _refuse(f"{name} is a {type(norm).__name__}", "leave the norms out of the adapter (target linear layers).")
    return cast(norm.weight, torch.promote_types(cast.dtype, torch.float32))


def _fused(parent: nn.Module, names: Iterable[str], where: str, cast: Cast) -> FusedLinear:
    """The named linear layers stacked into one; a single one that needs no cast is shared, not copied.

    Adapters are merged in float32. A coarser type would swallow them: there they stay beside the weight.
    """
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    adapters: list[Adapter] = []
    first = 0
    for name in names:
        linear = getattr(parent, name)
        base, scaled = _parts(linear, f"{where}.{name}")
        weight, rows = base.weight.detach(), slice(first, first + len(base.weight))
        if cast.dtype == torch.float32:
            for down, up in scaled:
                weight = weight.float() + up @ down
        else:
            adapters += [Adapter(rows, cast(down).t(), cast(up).t()) for down, up in scaled]
        weights.append(cast(weight))
        biases += [] if base.bias is None else [cast(base.bias)]
        first = rows.stop
    if len(weights) == 1:
        return FusedLinear.of(weights[0], biases[0] if biases else None, adapters)
    return FusedLinear.of(torch.cat(weights), torch.cat(biases) if biases else None, adapters)


def _parts(linear: Any, name: str) -> tuple[nn.Linear, list[tuple[Tensor, Tensor]]]:
    """A linear layer without its adapters, and A `[R, I]` and scaled B `[O, R]` of each that is active."""
    base = getattr(linear, "base_layer", linear)
    if not isinstance(base, nn.Linear) or not base.weight.is_floating_point():
        _refuse(f"{name} is a {type(base).__name__}", "load the model unquantised, with plain linear layers.")
    if base is linear:
        return base, []
    from peft.tuners.lora import Linear as LoraLinear  # peft wraps it, so peft is installed

    if not isinstance(linear, LoraLinear):
        _refuse(f"{name} has an adapter of type {type(linear).__name__}", "use plain LoRA, or merge the adapter.")
    if linear.disable_adapters or linear.merged:
        if linear.disable_adapters and linear.merged:
            _refuse(f"the adapter of {name} is both merged and disabled", "unmerge it before disabling it.")
        return base, []
    factors: list[tuple[Tensor, Tensor]] = []
    for adapter in linear.active_adapters:
        if adapter not in linear.lora_A:
            continue
        if adapter in getattr(linear, "lora_variant", {}) or getattr(linear, "lora_bias", {}).get(adapter):
            _refuse(f"{name} has a LoRA variant (DoRA, lora_bias, ...)", "use plain LoRA, or merge the adapter.")
        down, up = (typing.cast("Tensor", part[adapter].weight) for part in (linear.lora_A, linear.lora_B))
        factors.append((down.detach().float(), up.detach().float() * linear.scaling[adapter]))
    return base, factors


def in_dtype(module: nn.Module, dtype: torch.dtype, clone: bool = False) -> Any:
    """The module itself if its weights are of this type and `clone` does not ask for a copy, else a copy that is."""
    if not clone and all(parameter.dtype == dtype for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).to(dtype).requires_grad_(False)
