"""A CLIP checkpoint of open_clip under the names of transformers' CLIPModel."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from motet.core.errors import ConfigError

RENAMED = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
}
"""Weights outside of layers and norms: open_clip's name -> transformers'."""
PROJECTIONS = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
"""Matrices that open_clip applies from the right and transformers as a linear layer: transposed."""
NORMS = {
    "ln_final": "text_model.final_layer_norm",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
}
BLOCKS = {"transformer.resblocks": "text_model", "visual.transformer.resblocks": "vision_model"}
PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""The parts of one transformer block."""


def convert_open_clip(weights: Mapping[str, Tensor], *, key: str, path: str) -> dict[str, Tensor]:
    """The weights of open_clip's CLIP (vision transformer) by the names of transformers' CLIPModel.

    Attention weights that open_clip stores as one matrix (query, key, value) are split. Raises ConfigError for a name
    that open_clip's vision transformers do not have.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        found = _rename(name, value)
        if found is None:
            raise ConfigError(
                f"{key}={path!r} holds a weight {name!r}, which a vision transformer of open_clip does not have.",
                fix="give the file of a CLIP model with a vision transformer in open_clip's layout.",
            )
        renamed |= found
    return renamed


def _rename(name: str, value: Tensor) -> dict[str, Tensor] | None:
    if name in RENAMED:
        return {RENAMED[name]: value}
    if name in PROJECTIONS:
        return {PROJECTIONS[name]: value.T.contiguous()}
    module, _, kind = name.rpartition(".")
    if module in NORMS:
        return {f"{NORMS[module]}.{kind}": value}
    for prefix, tower in BLOCKS.items():
        if name.startswith(prefix + "."):
            layer, _, part = name.removeprefix(prefix + ".").partition(".")
            return _rename_part(f"{tower}.encoder.layers.{layer}", part, value)
    return None


def _rename_part(layer: str, part: str, value: Tensor) -> dict[str, Tensor] | None:
    if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = part.rpartition("_")[2]
        split = zip("qkv", value.chunk(3), strict=True)
        return {f"{layer}.self_attn.{letter}_proj.{kind}": third.contiguous() for letter, third in split}
    module, _, kind = part.rpartition(".")
    return {f"{layer}.{PARTS[module]}.{kind}": value} if module in PARTS else None
