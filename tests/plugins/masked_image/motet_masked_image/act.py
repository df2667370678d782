"""The act: which token each position got, and at which step it was un-masked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Int
from torch import Tensor

from motet.core.trajectory import ImageAct


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskedImage(ImageAct):
    """An image whose tokens are un-masked in sets (MaskGIT, arXiv 2202.04200; Show-o, arXiv 2408.12528).

    Every position is an action: `ids` are the tokens in raster order, `steps` the step that un-masked each. An action's
    log-prob is that of its token given the tokens of all earlier steps. Which positions a step un-masks is given, not
    scored, as in published policy gradients of masked models (MMaDA, arXiv 2505.15809).
    """

    kind: ClassVar[str] = "masked_image"
    ids: Int[Tensor, "N"]
    steps: Int[Tensor, "N"]

    @property
    def num_actions(self) -> int:
        return len(self.ids)

    @property
    def token_ids(self) -> Int[Tensor, "N"]:
        return self.ids
