"""The heads that reward models put on their encoders, under the published names; computed in float32."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

WIDTHS = (1024, 128, 64, 16, 1)
DROPOUT_AFTER = 3
"""After each of the first three layers there is a dropout, which scoring leaves out."""


class LinearHead(nn.Module):
    """The head of the aesthetic predictor and of ImageReward: five linear layers without activations, in float32.

    Named as published (`layers.0`, `layers.2`, ...); the gaps are dropouts.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, (wide, narrow) in enumerate(zip((features, *WIDTHS), WIDTHS, strict=False)):
            layers += [nn.Linear(wide, narrow)] + ([nn.Identity()] if number < DROPOUT_AFTER else [])
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B"]:
        return self.layers(features.float()).squeeze(-1)


class RankHead(nn.Module):
    """The head of HPS v3 and EditReward: three linear layers with ReLU, to a mean and a log deviation.

    Named as published (`0`, `3`, `5`); the gaps are the activations and a dropout, which scoring leaves out.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        layers = (nn.Linear(features, 1024), nn.ReLU(), nn.Identity(), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2))
        for number, layer in enumerate(layers):
            self.add_module(str(number), layer)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B 2"]:
        found = features.float()
        for layer in self.children():
            found = layer(found)
        return found
