"""The root of a sharded policy: one module that holds all that is sharded, and runs whatever the policy runs.

FSDP2 gathers a module's own parameters when its `forward` begins and reduces their gradients after the backward pass.
A policy has no `forward`: it calls embeddings, layers and heads one by one. Here it does so inside the root's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet.core.protocols import Replay

Output = list[tuple[Tensor, dict[str, Tensor]]]
"""Replays as torch's hooks find the tensors in them: log-probs and extras."""


class RootModule(nn.Module):
    """Holds the components that are sharded; `units` of them gather their own parameters."""

    def __init__(self, components: Iterable[nn.Module], units: Collection[nn.Module]) -> None:
        super().__init__()
        self.components = nn.ModuleList(components)
        of_units = {parameter for unit in units for parameter in unit.parameters()}
        self.places = [
            (module, name)
            for module in self.modules()
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad and parameter not in of_units
        ]
        """Where the root's own trainable parameters are: FSDP2 puts others there when it gathers them."""

    def forward(self, call: Callable[[], Any]) -> Any:
        """`call()`."""
        return call()

    def own_parameters(self) -> dict[int, nn.Parameter]:
        """The root's own trainable parameters as they are now, by a number that stays; a shared one once."""
        found = {getattr(module, name): number for number, (module, name) in reversed([*enumerate(self.places)])}
        return {number: parameter for parameter, number in found.items()}


def to_output(replays: Sequence[Replay]) -> Output:
    """Copies of the tensors of replays: torch warns of views, to which it cannot bind the hook of the backward pass."""
    return [
        (replay.log_probs.clone(), {name: extra.clone() for name, extra in replay.extras.items()}) for replay in replays
    ]


def to_replays(output: Output) -> list[Replay]:
    """The inverse of `to_output`."""
    return [Replay(log_probs, extras) for log_probs, extras in output]


def tensors_of(output: Output) -> list[Tensor]:
    """All tensors of an output."""
    return [tensor for log_probs, extras in output for tensor in (log_probs, *extras.values())]


def leaves(outputs: Iterable[Tensor]) -> set[Tensor]:
    """The parameters that a backward pass from these tensors reaches."""
    found: set[Tensor] = set()
    seen: set[Any] = set()
    open_nodes = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
    while open_nodes:
        node = open_nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # a leaf's AccumulateGrad
            found.add(node.variable)  # type: ignore[attr-defined]
        open_nodes += [following for following, _ in node.next_functions if following is not None]
    return found


def with_zero_gradients(output: Output, parameters: Sequence[nn.Parameter]) -> Output:
    """The same numbers, whose backward pass also gives these parameters a gradient, which is zero."""
    tensors = tensors_of(output)
    tied = iter(_ZeroGradients.apply(len(tensors), *tensors, *parameters))  # type: ignore[misc]
    return [(next(tied), {name: next(tied) for name in extras}) for _, extras in output]


class _ZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.count, ctx.parameters = count, tensors[count:]
        return tuple(tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *gradients, *(torch.zeros_like(parameter) for parameter in ctx.parameters)
