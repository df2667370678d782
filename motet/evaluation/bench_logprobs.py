"""Memory and time of the learner's log-probs against the size of the vocabulary."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from motet.evaluation.live_memory import LiveMemory
from motet.numerics.logprobs import hidden_log_probs


@dataclass(frozen=True)
class LogProbMemory:
    """One vocabulary: seconds of a forward and backward pass, and megabytes (10^6 bytes) of tensors.

    `peak_mb` is what the pass allocates at most; `head_mb` the part of it that is the gradient of the head, which
    grows with the vocabulary as the head's own weight does; `rest_mb` the remainder: logits and what is made of them.
    `all_logits_mb` is what the logits of all actions would take in float32, once.
    """

    vocabulary: int
    seconds: float
    peak_mb: float
    head_mb: float
    rest_mb: float
    all_logits_mb: float


def bench_logprob_memory(
    vocabularies: Sequence[int] = (1000, 32000, 102400),
    *,
    num_actions: int = 4096,
    width: int = 64,
    budget: int | None = 1 << 22,
    device: str = "cpu",
) -> list[LogProbMemory]:
    """Log-probs of `num_actions` actions and their gradients, for each vocabulary, from hidden states of `width`.

    `budget` is the most logits at once (None: that of the device). The default is an eighth of a CPU's, so that
    the smallest vocabulary fills it with 4096 actions.
    """
    return [_measure(vocabulary, num_actions, width, budget, torch.device(device)) for vocabulary in vocabularies]


def _measure(vocabulary: int, num_actions: int, width: int, budget: int | None, device: torch.device) -> LogProbMemory:
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(width, vocabulary, bias=False).to(device)
    hidden = torch.randn(num_actions, width, generator=generator).to(device).requires_grad_()
    actions = torch.randint(0, vocabulary, (num_actions,), generator=generator).to(device)
    with LiveMemory() as memory:
        start = _now(device)
        log_probs, _ = hidden_log_probs(hidden, head, actions, budget=budget)
        log_probs.sum().backward()
        seconds = _now(device) - start
    of_head = 4 * head.weight.numel()
    sizes = [size / 1e6 for size in (memory.peak, of_head, memory.peak - of_head, 4 * num_actions * vocabulary)]
    return LogProbMemory(vocabulary, seconds, *sizes)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
