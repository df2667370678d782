"""Tensor names of DeepSeek's Janus code and of transformers' `JanusForConditionalGeneration`, in one table.

The table is used in both directions. The differences (github.com/deepseek-ai/Janus, janus/models): the vision tower is
a timm-like ViT with fused q, k, v and a position embedding with a leading axis; the image tokenizer keeps its blocks in
lists; aligners are `nn.Sequential`s in which every other entry is an activation. The original also has tensors that
neither code uses: SigLIP's attention pool (the tower ignores its head), a usage counter of the codebook, and in old
files the rotary frequencies. In this module "ours" are the names of transformers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_GROUPS = {"n": r"\d+", "m": r"\d+", "leaf": "weight|bias", "side": "encoder|decoder", "rest": ".+"}
_TOWER, _LAYER = "vision_model.vision_tower", "model.vision_model.encoder.layers.{n}"
_VQ, _OUR_VQ = "gen_vision_model.{side}", "model.vqmodel.{side}"


@dataclass(frozen=True)
class Rule:
    """Patterns of an original name and of ours; several of ours if the original stacks them along the first axis.

    `leading`: the original has an additional first axis of size 1.
    """

    original: str
    ours: tuple[str, ...]
    leading: bool = False


def _same(original: str, ours: str) -> Rule:
    return Rule(original, (ours,))


def _aligner(original: str, ours: str) -> list[Rule]:
    """Linear layers 0, 2, 4, ... of a Sequential are fc1, hidden_layers.0, hidden_layers.1, ..."""
    deeper = [(f"{original}.layers.{2 * k}", f"{ours}.hidden_layers.{k - 1}") for k in range(1, 5)]
    pairs = [(f"{original}.layers.0", f"{ours}.fc1"), *deeper]
    return [_same(f"{a}.{{leaf}}", f"{b}.{{leaf}}") for a, b in pairs]


RULES: tuple[Rule, ...] = (
    # understanding: SigLIP and its aligner
    Rule(f"{_TOWER}.pos_embed", ("model.vision_model.embeddings.position_embedding.weight",), leading=True),
    _same(f"{_TOWER}.patch_embed.proj.{{leaf}}", "model.vision_model.embeddings.patch_embedding.{leaf}"),
    _same(f"{_TOWER}.norm.{{leaf}}", "model.vision_model.post_layernorm.{leaf}"),
    _same(f"{_TOWER}.blocks.{{n}}.norm1.{{leaf}}", f"{_LAYER}.layer_norm1.{{leaf}}"),
    _same(f"{_TOWER}.blocks.{{n}}.norm2.{{leaf}}", f"{_LAYER}.layer_norm2.{{leaf}}"),
    Rule(
        f"{_TOWER}.blocks.{{n}}.attn.qkv.{{leaf}}",
        tuple(f"{_LAYER}.self_attn.{letter}_proj.{{leaf}}" for letter in "qkv"),
    ),
    _same(f"{_TOWER}.blocks.{{n}}.attn.proj.{{leaf}}", f"{_LAYER}.self_attn.projection_layer.{{leaf}}"),
    _same(f"{_TOWER}.blocks.{{n}}.mlp.fc1.{{leaf}}", f"{_LAYER}.mlp.fc1.{{leaf}}"),
    _same(f"{_TOWER}.blocks.{{n}}.mlp.fc2.{{leaf}}", f"{_LAYER}.mlp.fc2.{{leaf}}"),
    *_aligner("aligner", "model.aligner"),
    # generation: the image tokenizer, embeddings of its codes, the head
    *(_same(f"{_VQ}.{part}.{{leaf}}", f"{_OUR_VQ}.{part}.{{leaf}}") for part in ("conv_in", "conv_out", "norm_out")),
    _same(f"{_VQ}.mid.0.{{rest}}", f"{_OUR_VQ}.mid.block_1.{{rest}}"),
    _same(f"{_VQ}.mid.1.{{rest}}", f"{_OUR_VQ}.mid.attn_1.{{rest}}"),
    _same(f"{_VQ}.mid.2.{{rest}}", f"{_OUR_VQ}.mid.block_2.{{rest}}"),
    *(
        _same(
            f"gen_vision_model.{side}.conv_blocks.{{n}}.{a}.{{rest}}", f"model.vqmodel.{side}.{way}.{{n}}.{b}.{{rest}}"
        )
        for side, way, sampling in (("encoder", "down", "downsample"), ("decoder", "up", "upsample"))
        for a, b in (("res", "block"), ("attn", "attn"), (sampling, sampling))
    ),
    _same("gen_vision_model.quant_conv.{leaf}", "model.vqmodel.quant_conv.{leaf}"),
    _same("gen_vision_model.post_quant_conv.{leaf}", "model.vqmodel.post_quant_conv.{leaf}"),
    _same("gen_vision_model.quantize.embedding.weight", "model.vqmodel.quantize.embedding.weight"),
    _same("gen_embed.weight", "model.generation_embeddings.weight"),
    *_aligner("gen_aligner", "model.generation_aligner"),
    _same("gen_head.output_mlp_projector.{leaf}", "model.generation_head.proj_out.{leaf}"),
    _same("gen_head.vision_head.{leaf}", "model.generation_head.vision_head.{leaf}"),
    # the language model
    _same("language_model.lm_head.weight", "lm_head.weight"),
    _same("language_model.model.{rest}", "model.language_model.{rest}"),
)

_UNREAD = re.compile(
    r"vision_model\.vision_tower\.attn_pool\..+"
    r"|gen_vision_model\.quantize\.codebook_used"
    r"|language_model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
)


@dataclass(frozen=True)
class TensorMapping:
    """One original tensor and the tensors of ours with the same values."""

    original: str
    ours: tuple[str, ...]
    leading: bool

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """Original -> ours, as views of the given tensor."""
        parts = tensor.chunk(len(self.ours))
        return {name: part.squeeze(0) if self.leading else part for name, part in zip(self.ours, parts, strict=True)}

    def fuse(self, tensors: Sequence[Tensor]) -> Tensor:
        """Ours, in the order of `ours` -> original."""
        fused = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
        return fused.unsqueeze(0) if self.leading else fused

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an original tensor of this shape can be split."""
        return len(shape) > 0 and shape[0] % len(self.ours) == 0 and (shape[0] == 1 or not self.leading)

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The shapes of ours for an original of this shape."""
        part = shape[1:] if self.leading else (shape[0] // len(self.ours), *shape[1:])
        return dict.fromkeys(self.ours, part)


@dataclass(frozen=True)
class LayoutMapping:
    """The mapping between the tensors of the two layouts.

    `unread` are original tensors that the model does not use, `unknown` names without a rule, `incomplete` original
    tensors of which only some parts exist.
    """

    entries: tuple[TensorMapping, ...]
    unread: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = field(default=())


def from_original(names: Iterable[str]) -> LayoutMapping:
    """The mapping of original tensors; every name is in exactly one field of the result."""
    entries: list[TensorMapping] = []
    unread: list[str] = []
    unknown: list[str] = []
    for name in names:
        match = _find_rule(name, _BY_ORIGINAL)
        if _UNREAD.fullmatch(name):
            unread.append(name)
        elif match is None:
            unknown.append(name)
        else:
            rule, groups = match
            entries.append(TensorMapping(name, tuple(ours.format(**groups) for ours in rule.ours), rule.leading))
    twice = {name for name, count in Counter(n for entry in entries for n in entry.ours).items() if count > 1}
    assert not twice, f"two originals became {twice}: the rules overlap"
    return LayoutMapping(tuple(entries), tuple(unread), tuple(unknown))


def from_transformers(names: Iterable[str]) -> LayoutMapping:
    """The mapping of tensors of `JanusForConditionalGeneration`; the parts of a fused tensor share one entry."""
    present = list(names)
    entries: dict[str, TensorMapping] = {}
    unknown: list[str] = []
    for name in present:
        match = _find_rule(name, _BY_OURS)
        if match is None:
            unknown.append(name)
            continue
        rule, groups = match
        original = rule.original.format(**groups)
        entries[original] = TensorMapping(original, tuple(ours.format(**groups) for ours in rule.ours), rule.leading)
    known = set(present)
    incomplete = tuple(entry.original for entry in entries.values() if not known.issuperset(entry.ours))
    return LayoutMapping(tuple(entries.values()), unknown=tuple(unknown), incomplete=incomplete)


def original_name(ours: str) -> str:
    """The original tensor that contains one of ours; the name itself if no rule applies."""
    entries = from_transformers([ours]).entries
    return entries[0].original if entries else ours


def _pattern(template: str) -> re.Pattern[str]:
    literal = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(literal.format(**{name: f"(?P<{name}>{what})" for name, what in _GROUPS.items()}))


_BY_ORIGINAL = [(_pattern(rule.original), rule) for rule in RULES]
_BY_OURS = [(_pattern(ours), rule) for rule in RULES for ours in rule.ours]


def _find_rule(name: str, table: Sequence[tuple[re.Pattern[str], Rule]]) -> tuple[Rule, Mapping[str, str]] | None:
    for pattern, rule in table:
        match = pattern.fullmatch(name)
        if match is not None:
            return rule, match.groupdict()
    return None
