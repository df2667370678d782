"""A bidirectional transformer over the tokens of an image, and a palette in place of an image tokenizer."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (0, 0, 0), (255,) * 3)
"""The colour of each token."""
MASK = len(PALETTE)
"""The id of a masked token."""
SIDE, CELL = 4, 4
"""Tokens, and pixels of a token, along one side of an image."""
NUM_TOKENS = SIDE * SIDE


class MaskedTransformer(nn.Module):
    """Logits of every token of an image, given its un-masked tokens and a prompt."""

    def __init__(self, width: int = 32, layers: int = 1, heads: int = 2) -> None:
        super().__init__()
        self.tokens = nn.Embedding(MASK + 1, width)
        self.positions = nn.Parameter(torch.randn(NUM_TOKENS, width) / width**0.5)
        self.prompt = nn.Embedding(256, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, len(PALETTE))

    def forward(self, ids: Int[Tensor, "B N"], prompts: list[str]) -> Float[Tensor, "B N K"]:
        texts = [torch.tensor(list(prompt.encode()) or [0]) for prompt in prompts]
        context = torch.stack([self.prompt(text).mean(dim=0) for text in texts])
        return self.head(self.layers(self.tokens(ids) + self.positions + context[:, None]))


def decode(ids: Int[Tensor, "N"]) -> Image.Image:
    """The image of some tokens: a cell of one colour for each."""
    pixels = np.array(PALETTE, np.uint8)[ids.numpy()].reshape(SIDE, SIDE, 3)
    return Image.fromarray(pixels).resize((SIDE * CELL, SIDE * CELL), Image.Resampling.NEAREST)


def encode(image: Image.Image) -> Int[Tensor, "N"]:
    """The tokens of an image: of each cell the colour of the palette that is nearest to its mean."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    colours = torch.from_numpy(np.asarray(small, np.float32).reshape(NUM_TOKENS, 3))
    return torch.cdist(colours, torch.tensor(PALETTE, dtype=torch.float32)).argmin(dim=1)
