"""Which parameters train: parts by name, LoRA adapters, and the frozen reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from motet.errors import ConfigError


def choose_parts(parts: Mapping[str, nn.Module], chosen: Sequence[str]) -> None:
    """Let the parameters of the chosen parts train, in float32, and freeze all others."""
    for name in chosen:
        if name not in parts:
            close = get_close_matches(name, parts, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose among {', '.join(parts)}."
            raise ConfigError(f"policy.train names a part {name!r} that this model does not have.", fix=hint)
    for name, part in parts.items():
        for parameter in part.parameters():
            parameter.requires_grad_(name in chosen)
            if name in chosen:
                parameter.data = parameter.data.float()


class Reference:
    """The weights a run started from, for the KL: a copy of the trainable parameters, swapped in while it is asked.

    Under LoRA no copy is needed: give no parameters and switch the adapter off instead.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.start = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, the policy has its starting weights; no gradients."""
        current = {name: parameter.data for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = self.start[name]
            with torch.no_grad():
                yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = current[name]

    def state(self) -> dict[str, Tensor]:
        """The starting weights, for a checkpoint: a resumed run keeps its reference."""
        return self.start
