"""KL estimators: hand arithmetic, exact expectations over a small distribution, and what their gradients estimate."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from motet.numerics.kl import KLEstimator, kl

ESTIMATORS: tuple[KLEstimator, ...] = ("k1", "k2", "k3")

POLICY_LOGITS = torch.tensor([0.3, -0.2, 1.1, -0.9], dtype=torch.float64)
REFERENCE_LOGITS = torch.tensor([0.1, 0.4, 0.6, -0.5], dtype=torch.float64)


def divergence(a: Tensor, b: Tensor) -> Tensor:
    """KL(a || b) from log-probs of all outcomes."""
    return (a.exp() * (a - b)).sum()


def test_by_hand() -> None:
    log_probs, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-2.0, -1.5])
    # log policy - log reference = 1 and -0.5
    torch.testing.assert_close(kl(log_probs, reference, "k1"), torch.tensor([1.0, -0.5]))
    torch.testing.assert_close(kl(log_probs, reference, "k2"), torch.tensor([0.5, 0.125]))
    # e^-1 - 1 + 1 and e^0.5 - 1 - 0.5
    torch.testing.assert_close(kl(log_probs, reference, "k3"), torch.tensor([math.exp(-1), math.exp(0.5) - 1.5]))


def test_k3_is_the_default_and_never_negative() -> None:
    log_probs, reference = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kl(log_probs, reference), kl(log_probs, reference, "k3"))
    assert bool((kl(log_probs, reference) >= 0).all())


def test_k3_is_precise_for_similar_policies() -> None:
    reference = torch.tensor([-1.0])
    log_probs = reference + 2.0**-13
    # d = -2^-13: d^2 / 2 + d^3 / 6 = 7.4506e-9 - 3e-13; e^d - 1 - d in float32 is 0 or 6e-8
    torch.testing.assert_close(kl(log_probs, reference), torch.tensor([2.0**-27]), rtol=1e-3, atol=0.0)


def test_k1_and_k3_are_unbiased() -> None:
    policy, reference = POLICY_LOGITS.log_softmax(0), REFERENCE_LOGITS.log_softmax(0)
    truth = divergence(policy, reference)
    for estimator in ("k1", "k3"):
        torch.testing.assert_close((policy.exp() * kl(policy, reference, estimator)).sum(), truth)
    assert abs((policy.exp() * kl(policy, reference, "k2")).sum() - truth) < 0.2 * truth  # biased, but near


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (lambda policy, reference: kl(policy, reference, "k1"), lambda policy, reference: policy.sum() * 0),
        (lambda policy, reference: kl(policy, reference, "k2"), divergence),
        (
            lambda policy, reference: kl(policy, reference, "k3"),
            lambda policy, reference: divergence(reference, policy),
        ),
        (lambda policy, reference: (policy - policy.detach()).exp() * kl(policy, reference, "k3"), divergence),
    ],
    ids=["k1: zero", "k2: KL(policy || reference)", "k3: KL(reference || policy)", "ratio k3: KL(policy || reference)"],
)
def test_expected_gradient_on_policy(
    loss: Callable[[Tensor, Tensor], Tensor], target: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """The expectation over samples, enumerated: sum_x policy(x) grad loss(x), with the sampling weights held fixed."""
    reference = REFERENCE_LOGITS.log_softmax(0)
    logits = POLICY_LOGITS.clone().requires_grad_()
    policy = logits.log_softmax(0)
    (estimated,) = torch.autograd.grad((policy.exp().detach() * loss(policy, reference)).sum(), logits)
    (exact,) = torch.autograd.grad(target(logits.log_softmax(0), reference), logits)
    torch.testing.assert_close(estimated, exact)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradient(estimator: KLEstimator) -> None:
    log_probs = torch.tensor([-1.0, -2.5, -0.1], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.5, -2.0, -0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: kl(x, reference.detach(), estimator), log_probs)
    kl(log_probs, reference, estimator).sum().backward()
    assert reference.grad is None
