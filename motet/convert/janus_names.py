"""The tensors of DeepSeek's own Janus code beside those of transformers' `JanusForConditionalGeneration`.

One table, read in both directions. The differences (github.com/deepseek-ai/Janus, janus/models): the vision tower is a
timm-like ViT with fused q, k, v and a position embedding with a leading axis; the image tokenizer keeps its blocks in
lists; aligners are `nn.Sequential`s whose every other entry is an activation. The originals also hold tensors that
neither code reads when it runs: SigLIP's attention pool (the tower is built to ignore its head), a usage counter of the
codebook, and in old files the rotary frequencies.
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
    """A kind of tensor: its original name and ours, of which there are several where the original is them stacked along
    the first axis. `leading`: the original has a first axis of size 1 that ours lacks."""

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
class Move:
    """One original tensor and the tensors of ours that hold its numbers."""

    original: str
    ours: tuple[str, ...]
    leading: bool

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        """Original -> ours. Views of the given tensor."""
        parts = tensor.chunk(len(self.ours))
        return {name: part.squeeze(0) if self.leading else part for name, part in zip(self.ours, parts, strict=True)}

    def fuse(self, tensors: Sequence[Tensor]) -> Tensor:
        """Ours, in the order of `ours` -> original."""
        fused = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
        return fused.unsqueeze(0) if self.leading else fused

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an original tensor of that shape can be split so."""
        return len(shape) > 0 and shape[0] % len(self.ours) == 0 and (shape[0] == 1 or not self.leading)

    def shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The shapes of ours, for an original of a shape that fits."""
        part = shape[1:] if self.leading else (shape[0] // len(self.ours), *shape[1:])
        return dict.fromkeys(self.ours, part)


@dataclass(frozen=True)
class Moves:
    """How one layout's tensors become the other's. `unread` are originals that the model does not use, `unknown` names
    that no rule knows, `halved` originals of which only some parts are there."""

    moves: tuple[Move, ...]
    unread: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    halved: tuple[str, ...] = field(default=())


def from_original(names: Iterable[str]) -> Moves:
    """The moves of original tensors; every name is in exactly one field of the result."""
    moves: list[Move] = []
    unread: list[str] = []
    unknown: list[str] = []
    for name in names:
        found = _find(name, _BY_ORIGINAL)
        if _UNREAD.fullmatch(name):
            unread.append(name)
        elif found is None:
            unknown.append(name)
        else:
            rule, groups = found
            moves.append(Move(name, tuple(ours.format(**groups) for ours in rule.ours), rule.leading))
    twice = {name for name, count in Counter(n for move in moves for n in move.ours).items() if count > 1}
    assert not twice, f"two originals became {twice}: the rules overlap"
    return Moves(tuple(moves), tuple(unread), tuple(unknown))


def from_transformers(names: Iterable[str]) -> Moves:
    """The moves of tensors of `JanusForConditionalGeneration`; those of a fused tensor make one move together."""
    present = list(names)
    moves: dict[str, Move] = {}
    unknown: list[str] = []
    for name in present:
        found = _find(name, _BY_OURS)
        if found is None:
            unknown.append(name)
            continue
        rule, groups = found
        original = rule.original.format(**groups)
        moves[original] = Move(original, tuple(ours.format(**groups) for ours in rule.ours), rule.leading)
    known = set(present)
    halved = tuple(move.original for move in moves.values() if not known.issuperset(move.ours))
    return Moves(tuple(moves.values()), unknown=tuple(unknown), halved=halved)


def original_name(ours: str) -> str:
    """The original tensor that one of ours is in; the name itself where no rule knows it."""
    moves = from_transformers([ours]).moves
    return moves[0].original if moves else ours


def _pattern(template: str) -> re.Pattern[str]:
    literal = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(literal.format(**{name: f"(?P<{name}>{what})" for name, what in _GROUPS.items()}))


_BY_ORIGINAL = [(_pattern(rule.original), rule) for rule in RULES]
_BY_OURS = [(_pattern(ours), rule) for rule in RULES for ours in rule.ours]


def _find(name: str, table: Sequence[tuple[re.Pattern[str], Rule]]) -> tuple[Rule, Mapping[str, str]] | None:
    for pattern, rule in table:
        match = pattern.fullmatch(name)
        if match is not None:
            return rule, match.groupdict()
    return None
