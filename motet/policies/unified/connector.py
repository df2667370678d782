"""The connector from hidden states of the language model to conditions of the diffusion transformer.

It takes learned queries after the context (MetaQuery, arXiv 2504.06256; BLIP3o; UniRL-Zero, arXiv
2510.17937), or the tokens of an image that the language model generated (BLIP3o-NEXT).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class ConnectorConfig:
    """Sizes. `input_width` is the language model's, `output_width` the denoiser's `condition_width`.

    `pooled_width` is the denoiser's, None where it takes no pooled vector. UniRL-Zero's: 256 queries, 12 blocks of
    width 2048 (the language model's own), 8 heads, feed-forward 4096. `reads` is its input: hidden states at
    learned queries or at image tokens, of which `num_queries` is the number.
    """

    input_width: int
    output_width: int
    pooled_width: int | None = None
    num_queries: int = 256
    num_blocks: int = 12
    num_heads: int = 8
    feed_forward: int = 4096
    reads: Literal["queries", "tokens"] = "queries"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


class Connector(nn.Module):
    """Bidirectional pre-norm blocks over hidden states, then a projection: `[B, Q, D] -> [B, Q, E]`.

    Queries have no positions here: the language model has encoded them already. Image tokens get a learned
    vector for their `place` in the raster, from zero: cross-attention has no positions.
    """

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        self.config = config
        zeros = torch.zeros(config.num_queries, config.input_width)
        self.place = nn.Parameter(zeros) if config.reads == "tokens" else None
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_blocks))
        self.norm = nn.RMSNorm(config.input_width)
        self.project = nn.Linear(config.input_width, config.output_width)
        self.pool = None if config.pooled_width is None else nn.Linear(config.input_width, config.pooled_width)

    def forward(self, hidden: Float[Tensor, "B Q D"]) -> tuple[Float[Tensor, "B Q E"], Float[Tensor, "B P"] | None]:
        """Embeddings for the denoiser and, if it takes one, the pooled vector: of the mean over queries."""
        if self.place is not None:
            hidden = hidden + self.place
        for block in self.blocks:
            hidden = block(hidden)
        hidden = self.norm(hidden)
        return self.project(hidden), None if self.pool is None else self.pool(hidden.mean(dim=1))


class _Block(nn.Module):
    """Self-attention with normalised queries and keys, and a gated feed-forward layer (SwiGLU)."""

    def __init__(self, config: ConnectorConfig) -> None:
        super().__init__()
        width, inner = config.input_width, config.feed_forward
        if width % config.num_heads:
            raise ValueError(f"num_heads={config.num_heads} does not divide the width {width}.")
        self.heads = config.num_heads
        self.before_attention, self.before_feed_forward = nn.RMSNorm(width), nn.RMSNorm(width)
        self.query_norm, self.key_norm = nn.RMSNorm(width // self.heads), nn.RMSNorm(width // self.heads)
        self.attend = nn.Linear(width, 3 * width, bias=False)
        self.attended = nn.Linear(width, width, bias=False)
        self.gate_and_value = nn.Linear(width, 2 * inner, bias=False)
        self.fed = nn.Linear(inner, width, bias=False)

    def forward(self, x: Float[Tensor, "B Q D"]) -> Float[Tensor, "B Q D"]:
        """Residual attention, then residual feed-forward."""
        batch, count, width = x.shape
        heads = self.attend(self.before_attention(x)).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(self.query_norm(query), self.key_norm(key), value)
        x = x + self.attended(mixed.transpose(1, 2).reshape(batch, count, width))
        gate, kept = self.gate_and_value(self.before_feed_forward(x)).chunk(2, dim=-1)
        return x + self.fed(functional.silu(gate) * kept)


def new_queries(num_queries: int, width: int, scale: float, generator: torch.Generator) -> nn.Parameter:
    """A bank of learned queries at random, of the embeddings' own scale: root mean square `scale`."""
    return nn.Parameter(scale * torch.randn(num_queries, width, generator=generator))


class QueryConnector(nn.Module):
    """The new weights between two pretrained models: a connector, and learned queries unless it takes image tokens."""

    def __init__(self, config: ConnectorConfig, *, scale: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        tasks = ("draw", "edit") if config.reads == "queries" else ()
        banks = {task: new_queries(config.num_queries, config.input_width, scale, generator) for task in tasks}
        self.queries = nn.ParameterDict(banks)
        self.connector = Connector(config)

    @property
    def config(self) -> ConnectorConfig:
        """The connector's sizes."""
        return self.connector.config

    def forward(self, hidden: Float[Tensor, "B Q D"]) -> tuple[Float[Tensor, "B Q E"], Float[Tensor, "B P"] | None]:
        """As `Connector`, in the type of its weights."""
        return self.connector(hidden.to(self.connector.project.weight))

    @property
    def trains(self) -> bool:
        """Whether any of it does."""
        return any(parameter.requires_grad for parameter in self.parameters())

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What may train, by name."""
        return {"queries": self.queries, "connector": self.connector} if self.queries else {"connector": self.connector}
