"""Log-probs through a linear head in chunks, with one copy of its weight in the compute type and one gradient of it.

By autograd every chunk of a large head under autocast casts the weight again in the backward pass and adds a gradient
of the weight's size to the sum in float32. At 102,400 tokens of 2,048 features that moves 4.6 GB per chunk, 1.4 ms at
3.35 TB/s, as long as the products of 500 rows take at 600 TFLOP/s (8 x 2048 x 102400 operations a row). Here the weight
is cast once per pass, and a chunk adds its part of the gradient once (2.5 GB, 0.75 ms).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable  # pyright: ignore[reportUnknownVariableType]

Score = Callable[[Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor | None]]
"""Logits `[R, V]`, those of the unconditional branch and actions `[R]`, to log-probs and entropies `[R]`."""

BYTES_PER_LOGIT = 24
"""Of a chunk at the peak of its backward pass: the head's output and the gradient of it, 2 bytes each, and in float32
the logits, the scaled ones, the exponentials, and gradients of both."""
MEMORY_SHARE = 12
"""A chunk takes this part of a device's memory at most."""
SMALLEST_BUDGET = 1 << 25
"""Logits: also that of a CPU. 128 MiB in float32."""


def logits_budget(device: torch.device) -> int:
    """Most logits that exist at once on a device.

    On a GPU a twelfth of its memory: 8 % of an 80 GB card (85 x 10^9 bytes) are 295 million logits, 2,880 rows of
    102,400 tokens, whose products take 8.1 ms; the gradient of the weight adds 9 % to that. The budget does not depend
    on what is free, so that equal runs cut equal chunks.
    """
    if device.type != "cuda":
        return SMALLEST_BUDGET
    return budget_of_memory(cast(Any, torch.cuda).get_device_properties(device).total_memory)


def budget_of_memory(total_bytes: int) -> int:
    """The budget of a GPU with so much memory."""
    return max(SMALLEST_BUDGET, total_bytes // (MEMORY_SHARE * BYTES_PER_LOGIT))


def is_plain_linear(head: Any) -> bool:
    """Whether a head is a linear layer and no more: no adapter, no hooks, no sharded weight."""
    if type(head) is not nn.Linear or type(head.weight) is not nn.Parameter:
        return False
    return not any(vars(head).get(f"_{name}_hooks") for name in ("forward", "forward_pre", "backward", "backward_pre"))


def linear_head_log_probs(
    hidden: Float[Tensor, "A D"],
    unconditional: Float[Tensor, "A D"] | None,
    head: nn.Linear,
    actions: Int[Tensor, "A"],
    score: Score,
    rows_per_chunk: int,
) -> tuple[Float[Tensor, "A"], Float[Tensor, "A"] | None]:
    """What `score` makes of the head's logits, by chunks of rows; the backward pass computes their logits again."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    settings = (actions, score, rows_per_chunk, dtype)
    return cast(
        "tuple[Tensor, Tensor | None]",
        _LinearHead.apply(hidden, unconditional, head.weight, head.bias, settings),  # pyright: ignore[reportUnknownMemberType]
    )


class _LinearHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, unconditional: Tensor | None, weight: Tensor, bias: Tensor | None, settings: Any
    ) -> tuple[Tensor, Tensor | None]:
        actions, score, rows_per_chunk, dtype = settings
        ctx.save_for_backward(hidden, unconditional, weight, bias, actions)
        ctx.set_materialize_grads(False)  # entropies that no loss uses have none
        ctx.score, ctx.rows_per_chunk, ctx.dtype = score, rows_per_chunk, dtype
        log_probs: list[Tensor] = []
        entropies: list[Tensor] = []
        with torch.autocast(hidden.device.type, enabled=False):
            cast_weight, cast_bias = _to(dtype, weight), _to(dtype, bias)
            for rows in _chunks(len(hidden), rows_per_chunk):
                logits = [
                    nn.functional.linear(branch[rows].to(dtype), cast_weight, cast_bias).float()
                    for branch in (hidden, unconditional)
                    if branch is not None
                ]
                own, entropy = score(logits[0], logits[1] if len(logits) > 1 else None, actions[rows])
                log_probs.append(own)
                if entropy is not None:
                    entropies.append(entropy)
        return torch.cat(log_probs), torch.cat(entropies) if entropies else None

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        hidden, unconditional, weight, bias, actions = ctx.saved_tensors
        branches: list[Tensor] = [hidden] if unconditional is None else [hidden, unconditional]
        gradients = [torch.zeros_like(branch) for branch in branches]
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[2] else None
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[3] else None
        with torch.autocast(hidden.device.type, enabled=False):
            cast_weight, cast_bias = _to(ctx.dtype, weight), _to(ctx.dtype, bias)
            for rows in _chunks(len(hidden), ctx.rows_per_chunk):
                inputs = [branch[rows].to(ctx.dtype) for branch in branches]
                of_logits = _logits_gradients(ctx, inputs, (cast_weight, cast_bias), actions[rows], rows, grad_outputs)
                for place, (own, of_own) in enumerate(zip(inputs, of_logits, strict=True)):
                    gradients[place][rows] = (of_own @ cast_weight).to(gradients[place].dtype)
                    if grad_weight is not None:
                        grad_weight += of_own.T @ own
                    if grad_bias is not None:
                        grad_bias += of_own.sum(dim=0)
        return gradients[0], gradients[1] if unconditional is not None else None, grad_weight, grad_bias, None


def _logits_gradients(
    ctx: Any,
    inputs: list[Tensor],
    weights: tuple[Tensor, Tensor | None],
    actions: Tensor,
    rows: slice,
    grad_outputs: tuple[Tensor | None, ...],
) -> list[Tensor]:
    """The gradient of the head's output of each branch, in the compute type, for one chunk of rows."""
    outputs = [nn.functional.linear(own, *weights).requires_grad_() for own in inputs]
    with torch.enable_grad():
        logits = [output.float() for output in outputs]
        scored = ctx.score(logits[0], logits[1] if len(logits) > 1 else None, actions)
        pairs = [(own, grad[rows]) for own, grad in zip(scored, grad_outputs, strict=True) if grad is not None]
        values, grads = [own for own, _ in pairs], [grad for _, grad in pairs]
        return list(torch.autograd.grad(values, outputs, grads))


def _to(dtype: torch.dtype, tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().to(dtype)


def _chunks(num_rows: int, rows_per_chunk: int) -> Iterator[slice]:
    yield from (slice(start, start + rows_per_chunk) for start in range(0, num_rows, rows_per_chunk))
