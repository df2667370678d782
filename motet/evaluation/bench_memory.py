"""Memory of the learner against the size of the vocabulary, for `motet bench learner`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from motet.evaluation.measuring import in_new_process, measure_seconds, peak_memory, reset_peak_memory
from motet.numerics.logprobs import LOGITS_BUDGET, hidden_log_probs

VOCABULARIES = (1024, 32768, 102400)
"""Of a tiny model, of Llama 2 and of Janus-Pro."""
ACTIONS, WIDTH = LOGITS_BUDGET // VOCABULARIES[0], 64
"""As many actions as fill the budget of logits at the smallest vocabulary already."""


def bench_memory(vocabularies: Sequence[int] = VOCABULARIES, num_actions: int = ACTIONS) -> list[dict[str, Any]]:
    """Peak memory of scoring `num_actions` actions and its backward pass, one row per vocabulary.

    `extra_gb` is what comes on top of the weights, their gradient and the hidden states; `all_logits_gb` what the
    logits of all actions would take in float32 alone. Each is measured in a process of its own.
    """
    return [in_new_process(_measure, vocabulary, num_actions) for vocabulary in vocabularies]


def _measure(vocabulary: int, num_actions: int) -> dict[str, Any]:
    device = torch.device("cpu")
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, vocabulary, bias=False)
    hidden = torch.randn(num_actions, WIDTH, requires_grad=True)
    actions = torch.randint(vocabulary, (num_actions,))
    head.weight.grad, hidden.grad = torch.zeros_like(head.weight), torch.zeros_like(hidden)

    def learn(rows: int) -> None:
        log_probs, _ = hidden_log_probs(hidden[:rows], head, actions[:rows])
        log_probs.sum().backward()

    learn(8)  # libraries allocate their own on first use
    reset_peak_memory(device)
    before = peak_memory(device)
    seconds = measure_seconds(lambda: learn(num_actions), device)
    return {
        "vocab": vocabulary,
        "num_actions": num_actions,
        "extra_gb": (peak_memory(device) - before) / 1e9,
        "all_logits_gb": 4 * vocabulary * num_actions / 1e9,
        "seconds": seconds,
    }
