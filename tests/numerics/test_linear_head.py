"""Chunks through a linear head with one cast of its weight: the values and gradients of plain autograd."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from motet.evaluation.live_memory import LiveMemory
from motet.numerics import linear_head, logprobs
from motet.numerics.linear_head import budget_of_memory, is_plain_linear, linear_head_log_probs, logits_budget
from motet.numerics.logprobs import hidden_log_probs

ROWS, D, V = 11, 8, 40
SCORINGS: list[dict[str, Any]] = [
    {}, {"temperature": 0.7}, {"top_k": 5}, {"top_p": 0.8, "temperature": 1.3}, {"min_p": 0.05},
    {"guidance_scale": 5.0}, {"guidance_scale": 3.0, "top_p": 0.9},
]  # fmt: skip


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`hidden_log_probs` takes the code path of a GPU; a list of the rows per chunk that it asks for."""
    asked: list[int] = []

    def through_linear_head(*args: Any) -> Any:
        asked.append(args[-1])
        return linear_head_log_probs(*args)

    monkeypatch.setattr(Tensor, "is_cuda", property(lambda self: True))
    monkeypatch.setattr(logprobs, "linear_head_log_probs", through_linear_head)
    return asked


def states(bias: bool = True) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    head = nn.Linear(D, V, bias=bias)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    hidden, null = torch.randn(2, ROWS, D, generator=generator)
    return head, hidden.requires_grad_(), null.requires_grad_(), torch.randint(0, V, (ROWS,), generator=generator)


def run(scoring: dict[str, Any], budget: int, *, bias: bool = True, with_entropy: bool = True) -> list[Tensor]:
    """Log-probs and entropies, and the gradients of hidden states, unconditional ones and the head."""
    head, hidden, null, actions = states(bias)
    options = scoring | ({"unconditional": null} if "guidance_scale" in scoring else {})
    log_probs, entropies = hidden_log_probs(hidden, head, actions, with_entropy=with_entropy, budget=budget, **options)
    slopes = torch.randn(2, ROWS, generator=torch.Generator().manual_seed(6))
    total = (slopes[0] * log_probs).sum() + (0 if entropies is None else (slopes[1] * entropies).sum())
    leaves = [hidden, *head.parameters(), *([null] if "unconditional" in options else [])]
    return [log_probs, *([] if entropies is None else [entropies]), *torch.autograd.grad(total, leaves)]


@pytest.mark.parametrize("with_entropy", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
def test_values_and_gradients_are_those_of_autograd(
    on_gpu: list[int], scoring: dict[str, Any], bias: bool, with_entropy: bool
) -> None:
    whole = run(scoring, ROWS * V, bias=bias, with_entropy=with_entropy)
    assert not on_gpu
    chunked = run(scoring, 3 * V, bias=bias, with_entropy=with_entropy)
    assert on_gpu == [3]
    for ours, plain in zip(chunked, whole, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("scoring", [{}, {"guidance_scale": 5.0}], ids=str)
def test_under_autocast_it_is_as_near_as_chunks_of_autograd(
    on_gpu: list[int], monkeypatch: pytest.MonkeyPatch, scoring: dict[str, Any]
) -> None:
    exact = run(scoring, ROWS * V)
    with torch.autocast("cpu", torch.bfloat16):
        ours = run(scoring, 3 * V)
        monkeypatch.setattr(logprobs, "is_plain_linear", lambda head: False)
        plain = run(scoring, 3 * V)
    assert on_gpu == [3]
    assert torch.equal(ours[0], plain[0]) and torch.equal(ours[1], plain[1])
    for one, other, reference in zip(ours[2:], plain[2:], exact[2:], strict=True):
        assert one.dtype == torch.float32
        assert float((one - reference).norm()) < 1.05 * float((other - reference).norm()) + 1e-6


@pytest.mark.parametrize("budget", [3 * V, ROWS * V])
def test_a_head_that_is_no_linear_layer_trains_under_autocast(budget: int) -> None:
    """torch 2.6 caches the casts of a forward pass without gradient, and would use them for the scores."""
    linear, hidden, _, actions = states()
    head = nn.Sequential(linear)
    with torch.autocast("cpu", torch.bfloat16):
        hidden_log_probs(hidden, head, actions, budget=budget)[0].sum().backward()
    assert linear.weight.grad is not None and bool(linear.weight.grad.abs().sum() > 0)


def test_the_weight_is_cast_once_per_pass(on_gpu: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    casts: list[torch.Size] = []
    own = linear_head._to
    monkeypatch.setattr(linear_head, "_to", lambda dtype, tensor: casts.append(tensor.shape) or own(dtype, tensor))
    run({}, V)
    assert casts.count(torch.Size([V, D])) == 2


def test_what_does_not_train_has_no_gradient(on_gpu: list[int]) -> None:
    head, hidden, _, actions = states()
    head.requires_grad_(False)
    log_probs, _ = hidden_log_probs(hidden, head, actions, budget=2 * V)
    log_probs.sum().backward()
    assert hidden.grad is not None and head.weight.grad is None and head.bias.grad is None
    with torch.no_grad():
        frozen, _ = hidden_log_probs(hidden, head, actions, budget=2 * V)
    assert not frozen.requires_grad and torch.equal(frozen, log_probs)


def test_only_plain_linear_layers_are_taken(on_gpu: list[int]) -> None:
    class Own(nn.Linear):
        pass

    hooked, (head, hidden, _, actions) = nn.Linear(D, V), states()
    hooked.register_forward_hook(lambda *_: None)
    assert is_plain_linear(head)
    for other in (hooked, Own(D, V), nn.Sequential(head), head.forward):
        assert not is_plain_linear(other)
        hidden_log_probs(hidden, other, actions, budget=2 * V)
    assert not on_gpu


def test_budgets() -> None:
    assert logits_budget(torch.device("cpu")) == 1 << 25  # as before: chunks on a CPU are cut as they were
    assert budget_of_memory(85_000_000_000) // 102_400 == 2882
    assert budget_of_memory(24 * 2**30) // 102_400 == 873
    assert budget_of_memory(4 * 2**30) == 1 << 25


def test_memory_does_not_grow_with_the_rows(on_gpu: list[int]) -> None:
    def peak(rows: int) -> int:
        head = nn.Linear(4, 512)
        hidden, actions = torch.randn(rows, 4, requires_grad=True), torch.zeros(rows, dtype=torch.long)
        with LiveMemory() as memory:
            hidden_log_probs(hidden, head, actions, budget=64 * 512)[0].sum().backward()
        return memory.peak

    small, large = peak(128), peak(1024)
    assert large - small < 900 * 4 * 24  # hidden states and log-probs, no logits
    assert small < 64 * 512 * linear_head.BYTES_PER_LOGIT * 1.5
