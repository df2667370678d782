"""The policy loss: hand arithmetic, gradients, a per-sequence loop as reference, and independence of micro-batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from motet.numerics.aggregation import StepCounts
from motet.numerics.kl import kl
from motet.numerics.ratios import ImportanceSamplingLevel, importance_ratios
from motet.training.losses import LOSSES
from motet.training.losses.grpo import is_clipped, policy_loss
from motet.training.losses.policy_gradient import Actions, PolicyGradientLoss

LOSS_TYPES = ("grpo", "bnpo", "dapo", "dr_grpo", "luspo", "cispo", "sapo", "vespo")
LEVELS: tuple[ImportanceSamplingLevel, ...] = ("token", "sequence")
MAX_TOKENS = 7
EPSILON, EPSILON_HIGH, BETA, CAP = 0.2, 0.28, 0.04, 1.1
OWN: dict[str, dict[str, float]] = {"cispo": {"epsilon_high": CAP}, "sapo": {}, "vespo": {}}


def made(name: str, **options: Any) -> PolicyGradientLoss[Any]:
    """A loss of text by its name, with these options or those of this file."""
    loss = LOSSES.find(name)
    clip = {"epsilon": EPSILON, "epsilon_high": EPSILON_HIGH}
    return loss(loss.Settings(**(options or OWN.get(name, clip))), "text")


def action_weights(
    owner: Tensor, lengths: Tensor, name: str, *, num_acts: int, num_actions: int, max_actions: int | None = None
) -> Tensor:
    """The weights of a loss."""
    return LOSSES.find(name).aggregation(owner, lengths, StepCounts(num_acts, num_actions, max_actions))


# --- ratios ---------------------------------------------------------------------------------------------------------


def test_token_ratios_by_hand() -> None:
    log_probs, old = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    ratios = importance_ratios(log_probs, old, torch.tensor([0, 0]), 1, "token")
    torch.testing.assert_close(ratios, torch.tensor([math.exp(0.5), math.exp(-1.0)]))


def test_sequence_ratios_by_hand() -> None:
    log_ratios = torch.tensor([0.3, 0.6, -0.5, 0.0])  # act 0: mean (0.3 - 0.5) / 2 = -0.1; act 2: mean 0.3
    owner = torch.tensor([0, 2, 0, 2])
    ratios = importance_ratios(log_ratios - 3.0, torch.full((4,), -3.0), owner, 3, "sequence")
    torch.testing.assert_close(ratios, torch.tensor([-0.1, 0.3, -0.1, 0.3]).exp())


def test_sequence_gradient_by_hand() -> None:
    """d s_b / d log_prob_a = s_b / N_b for every a in b, summed over the weights of all actions of b."""
    log_probs = torch.tensor([0.3, -0.5, 0.2], requires_grad=True)
    ratios = importance_ratios(log_probs, torch.zeros(3), torch.tensor([0, 0, 1]), 2, "sequence")
    (ratios * torch.tensor([1.0, 2.0, 5.0])).sum().backward()
    assert log_probs.grad is not None
    first = math.exp(-0.1) * (1.0 + 2.0) / 2
    torch.testing.assert_close(log_probs.grad, torch.tensor([first, first, 5.0 * math.exp(0.2)]))


@pytest.mark.parametrize("level", LEVELS)
def test_no_gradient_into_the_old_log_probs(level: ImportanceSamplingLevel) -> None:
    log_probs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    owner = torch.tensor([0, 0, 1])
    ratios = importance_ratios(log_probs, log_probs, owner, 2, level)  # on-policy, and the caller forgot to detach
    assert ratios.tolist() == [1.0, 1.0, 1.0]
    ratios.sum().backward()
    assert log_probs.grad is not None
    torch.testing.assert_close(log_probs.grad, torch.ones(3))


@pytest.mark.parametrize("level", LEVELS)
def test_ratio_gradient_by_finite_differences(level: ImportanceSamplingLevel) -> None:
    generator = torch.Generator().manual_seed(0)
    log_probs, old = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    owner = torch.tensor([0, 0, 2, 2, 2])
    assert torch.autograd.gradcheck(
        lambda x: importance_ratios(x, old, owner, 3, level), log_probs.clone().requires_grad_()
    )


# --- clipping -------------------------------------------------------------------------------------------------------

CLIP_CASES = [
    # ratio, advantage, loss, clipped: with the range [0.8, 1.28]
    (1.0, 2.0, -2.0, False),
    (1.2, 2.0, -2.4, False),
    (1.5, 2.0, -2.56, True),  # too likely already: -1.28 * 2
    (1.5, -2.0, 3.0, False),  # too likely and bad: pushed down in full, -1.5 * -2
    (0.5, 2.0, -1.0, False),  # unlikely and good: pulled up in full, -0.5 * 2
    (0.5, -2.0, 1.6, True),  # unlikely already: -0.8 * -2
    (1.5, 0.0, 0.0, False),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "clipped"), CLIP_CASES)
def test_clip_by_hand(ratio: float, advantage: float, loss: float, clipped: bool) -> None:
    ratios, advantages = torch.tensor([ratio], requires_grad=True), torch.tensor([advantage])
    value = policy_loss(ratios, advantages, 0.2, 0.28)
    torch.testing.assert_close(value, torch.tensor([loss]))
    assert is_clipped(ratios, advantages, 0.2, 0.28).tolist() == [clipped]
    value.sum().backward()
    assert ratios.grad is not None
    assert ratios.grad.item() == (0.0 if clipped else -advantage)


def test_epsilon_high_defaults_to_epsilon() -> None:
    ratios, advantages = torch.tensor([1.25, 1.25, 0.5]), torch.tensor([1.0, -1.0, -1.0])
    torch.testing.assert_close(policy_loss(ratios, advantages, 0.2), policy_loss(ratios, advantages, 0.2, 0.2))
    assert is_clipped(ratios, advantages, 0.2).tolist() == [True, False, True]
    assert is_clipped(ratios, advantages, 0.2, 0.28).tolist() == [False, False, True]


def test_epsilon_none_never_clips() -> None:
    ratios, advantages = torch.tensor([9.0, 0.01], requires_grad=True), torch.tensor([2.0, -3.0])
    loss = policy_loss(ratios, advantages, None)
    torch.testing.assert_close(loss, torch.tensor([-18.0, 0.03]))
    assert not bool(is_clipped(ratios, advantages, None).any())
    loss.sum().backward()
    assert ratios.grad is not None
    assert ratios.grad.tolist() == [-2.0, 3.0]


def test_epsilon_high_without_epsilon_is_refused() -> None:
    ratios = torch.ones(1)
    for function in (policy_loss, is_clipped):
        with pytest.raises(ValueError, match=r"epsilon_high=0\.28"):
            function(ratios, ratios, None, 0.28)


@pytest.mark.parametrize("epsilon", [None, 0.0, 1e-4, 0.2])
@pytest.mark.parametrize("level", LEVELS)
def test_on_policy_gradient_is_reinforce(level: ImportanceSamplingLevel, epsilon: float | None) -> None:
    """At ratio 1 nothing is clipped and the gradient is -A grad log_prob, even with a clip range of zero width."""
    log_probs = torch.tensor([-1.0, -0.3, -2.0], requires_grad=True)
    owner, advantages = torch.tensor([0, 0, 1]), torch.tensor([1.5, 1.5, -2.0])
    ratios = importance_ratios(log_probs, log_probs.detach(), owner, 2, level)
    policy_loss(ratios, advantages, epsilon).sum().backward()
    assert log_probs.grad is not None
    torch.testing.assert_close(log_probs.grad, -advantages)


def test_policy_loss_gradient_by_finite_differences() -> None:
    ratios = torch.tensor([case[0] for case in CLIP_CASES[1:]], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([case[1] for case in CLIP_CASES[1:]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: policy_loss(r, advantages, 0.2, 0.28), ratios)


# --- two-sided clipping, CISPO, SAPO, VESPO -------------------------------------------------------------------------


def test_two_sided_clipping_by_hand() -> None:
    """Only a high ratio at a negative advantage is new: 9 * 2 becomes 4 * 2, without a gradient."""
    ratios, advantages = torch.tensor([9.0, 3.0, 9.0, 0.5], requires_grad=True), torch.tensor([-2.0, -2.0, 2.0, 2.0])
    loss = policy_loss(ratios, advantages, 0.2, 0.28, 4.0)
    torch.testing.assert_close(loss, torch.tensor([8.0, 6.0, -2.56, -1.0]))
    assert is_clipped(ratios, advantages, 0.2, 0.28, 4.0).tolist() == [True, False, True, False]
    loss.sum().backward()
    assert ratios.grad is not None
    assert ratios.grad.tolist() == [0.0, 2.0, 0.0, -2.0]
    with pytest.raises(ValueError, match=r"delta=4\.0 without epsilon"):
        policy_loss(ratios, advantages, None, None, 4.0)


def one_act(log_ratios: Sequence[float], advantage: float, log_probs: Sequence[float]) -> tuple[Tensor, Actions]:
    """The log-probs of one act's actions, which require a gradient, and the actions."""
    now = torch.tensor(log_probs, requires_grad=True)
    old, owner = now.detach() - torch.tensor(log_ratios), torch.zeros(len(log_ratios), dtype=torch.long)
    ratios = importance_ratios(now, old, owner, 1)
    return now, Actions(now, old, ratios, torch.full((len(log_ratios),), advantage), owner, 1)


def test_cispo_by_hand() -> None:
    """Ratios 1/2, 2 and 8 with the cap 5: every action keeps a gradient, of the capped ratio times the advantage."""
    log_probs, actions = one_act([math.log(0.5), math.log(2.0), math.log(8.0)], -1.5, [-1.0, -2.0, -3.0])
    loss, capped = made("cispo", epsilon_high=5.0).per_action(actions)
    torch.testing.assert_close(loss, torch.tensor([-0.5 * 1.5 * 1.0, -2 * 1.5 * 2.0, -5 * 1.5 * 3.0]))
    assert capped is not None and capped.tolist() == [False, False, True]
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
    torch.testing.assert_close(gradient, torch.tensor([0.75, 3.0, 7.5]))
    with pytest.raises(ValueError, match="epsilon_high"):
        LOSSES.find("cispo").Settings()


@pytest.mark.parametrize(("advantage", "tau"), [(2.0, 1.0), (-2.0, 1.05), (0.0, 1.05)])
def test_sapo_by_hand(advantage: float, tau: float) -> None:
    """d loss / d r = -4 p (1 - p) A with p = sigmoid(tau (r - 1)): -A at ratio 1, less on both sides."""
    ratios = (0.5, 1.0, 3.0)
    log_probs, actions = one_act([math.log(r) for r in ratios], advantage, [-1.0, -2.0, -3.0])
    loss, clipped = made("sapo").per_action(actions)
    gates = [1 / (1 + math.exp(-tau * (r - 1))) for r in ratios]
    torch.testing.assert_close(loss, torch.tensor([-4 / tau * p * advantage for p in gates]))
    assert clipped is None
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
    expected = [-4 * p * (1 - p) * advantage * r for p, r in zip(gates, ratios, strict=True)]  # d r / d log_prob = r
    torch.testing.assert_close(gradient, torch.tensor(expected))


@pytest.mark.parametrize(("advantage", "k", "rate"), [(2.0, 2.0, 3.0), (-2.0, 3.0, 2.0)])
def test_vespo_by_hand(advantage: float, k: float, rate: float) -> None:
    """One act of ratios 2 and 0.6: w = 1.2, shared by both actions."""
    log_probs, actions = one_act([math.log(2.0), math.log(0.6)], advantage, [-1.0, -3.0])
    loss, clipped = made("vespo").per_action(actions)
    phi = 1.2**k * math.exp(rate * (1 - 1.2))
    torch.testing.assert_close(loss, torch.tensor([phi * advantage * 1.0, phi * advantage * 3.0]))
    assert clipped is None
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
    torch.testing.assert_close(gradient, torch.full((2,), -phi * advantage))


@pytest.mark.parametrize("log_ratio", [-1e3, 1e3, math.inf])
def test_vespo_of_ratios_without_bounds_is_finite(log_ratio: float) -> None:
    log_probs, actions = one_act([log_ratio, 0.0], -1.0, [-1.0, -1.0])
    loss, _ = made("vespo").per_action(actions)
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
    assert gradient.abs().max() < 1e-6  # far from what sampled it, an act says nothing


# --- weights --------------------------------------------------------------------------------------------------------


def test_weights_by_hand() -> None:
    owner, lengths = torch.tensor([0, 0, 0, 1]), torch.tensor([3, 1])
    counts = {"num_acts": 2, "num_actions": 4}
    for loss_type in ("grpo", "sapo"):
        torch.testing.assert_close(
            action_weights(owner, lengths, loss_type, **counts), torch.tensor([1 / 6, 1 / 6, 1 / 6, 1 / 2])
        )
    torch.testing.assert_close(action_weights(owner, lengths, "luspo", **counts), torch.full((4,), 1 / 2))
    for loss_type in ("dapo", "bnpo", "cispo", "vespo"):
        torch.testing.assert_close(action_weights(owner, lengths, loss_type, **counts), torch.full((4,), 1 / 4))
    torch.testing.assert_close(
        action_weights(owner, lengths, "dr_grpo", max_actions=10, **counts), torch.full((4,), 1 / 20)
    )


def test_weights_of_a_microbatch_know_the_global_counts() -> None:
    owner, lengths = torch.tensor([0, 0]), torch.tensor([2])  # one act of two actions, out of 5 acts with 11 actions
    counts = {"num_acts": 5, "num_actions": 11}
    torch.testing.assert_close(action_weights(owner, lengths, "grpo", **counts), torch.full((2,), 1 / 10))
    torch.testing.assert_close(action_weights(owner, lengths, "dapo", **counts), torch.full((2,), 1 / 11))
    torch.testing.assert_close(
        action_weights(owner, lengths, "dr_grpo", max_actions=8, **counts), torch.full((2,), 1 / 40)
    )


def test_dr_grpo_needs_its_constant() -> None:
    with pytest.raises(ValueError, match="max_actions"):
        action_weights(torch.tensor([0]), torch.tensor([1]), "dr_grpo", num_acts=1, num_actions=1)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_weights_are_float32_and_bear_empty_batches(loss_type: str) -> None:
    nothing = torch.zeros(0, dtype=torch.long)
    weights = action_weights(nothing, nothing, loss_type, num_acts=0, num_actions=0, max_actions=5)
    assert weights.shape == (0,)
    assert weights.dtype == torch.float32


# --- the whole loss -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Play:
    """One act of a toy policy: features of its actions, the actions, what was scored before, and its advantage."""

    features: Tensor  # [N, D]
    actions: Tensor  # [N]
    old: Tensor  # [N]
    reference: Tensor  # [N]
    advantage: float


def plays(lengths: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Play]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for length in lengths:
        features = torch.randn(length, 3, generator=generator, dtype=torch.float64).to(dtype)
        actions = torch.randint(0, 4, (length,), generator=generator)
        base = -1.4 + 0.3 * torch.randn(2, length, generator=generator, dtype=torch.float64).to(dtype)
        advantage = float(torch.randn((), generator=generator, dtype=torch.float64))
        made.append(Play(features, actions, base[0], base[1], advantage))
    return made


def log_probs_of(weights: Tensor, features: Tensor, actions: Tensor) -> Tensor:
    return (features @ weights).log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def packed_loss(
    weights: Tensor,
    part: Sequence[Play],
    whole: Sequence[Play],
    loss_type: str,
    level: ImportanceSamplingLevel,
) -> Tensor:
    """The loss that a micro-batch `part` contributes to the optimizer step over `whole`, by the code under test."""
    lengths = torch.tensor([len(play.actions) for play in part])
    owner = torch.repeat_interleave(torch.arange(len(part)), lengths)
    log_probs = log_probs_of(weights, torch.cat([p.features for p in part]), torch.cat([p.actions for p in part]))
    ratios = importance_ratios(log_probs, torch.cat([p.old for p in part]), owner, len(part), level)
    advantages = torch.tensor([p.advantage for p in part], dtype=weights.dtype)[owner]
    actions = Actions(log_probs, torch.cat([p.old for p in part]), ratios, advantages, owner, len(part))
    per_action = made(loss_type).per_action(actions).loss
    per_action = per_action + BETA * kl(log_probs, torch.cat([p.reference for p in part]))
    per_action_weights = action_weights(
        owner,
        lengths,
        loss_type,
        num_acts=len(whole),
        num_actions=sum(len(play.actions) for play in whole),
        max_actions=MAX_TOKENS,
    )
    return (per_action_weights * per_action).sum()


def looped_term(log_probs: Tensor, log_ratios: Tensor, ratios: Tensor, a: float, loss_type: str) -> Tensor:
    """The loss of one sequence's actions, from the papers' formulas."""
    own = made(loss_type).settings
    if loss_type == "cispo":
        return -ratios.detach().clamp(max=CAP) * a * log_probs
    if loss_type == "sapo":
        tau = own.temperature_pos if a > 0 else own.temperature_neg
        return -4 / tau / (1 + (-tau * (ratios - 1)).exp()) * a
    if loss_type == "vespo":
        k, rate = (own.k_pos, own.lambda_pos) if a >= 0 else (own.k_neg, own.lambda_neg)
        w = float(log_ratios.detach().sum().exp())
        return -(w**k) * math.exp(rate * (1 - w)) * a * log_probs
    return -torch.min(ratios * a, ratios.clamp(1 - EPSILON, 1 + EPSILON_HIGH) * a)


def looped_loss(weights: Tensor, whole: Sequence[Play], loss_type: str, level: ImportanceSamplingLevel) -> Tensor:
    """The same from the papers' formulas, one sequence after the other, without packing or weights."""
    sums = []
    for play in whole:
        log_probs = log_probs_of(weights, play.features, play.actions)
        log_ratios = log_probs - play.old
        ratios = log_ratios.exp() if level == "token" else log_ratios.mean().exp().expand(len(log_ratios))
        term = looped_term(log_probs, log_ratios, ratios, play.advantage, loss_type)
        difference = play.reference - log_probs
        sums.append((term + BETA * (difference.exp() - difference - 1)).sum())
    lengths = [len(play.actions) for play in whole]
    if loss_type == "luspo":
        return torch.stack(sums).mean()
    if loss_type in ("grpo", "sapo"):
        return torch.stack([total / n for total, n in zip(sums, lengths, strict=True)]).mean()
    if loss_type == "dr_grpo":
        return torch.stack(sums).sum() / (len(whole) * MAX_TOKENS)
    return torch.stack(sums).sum() / sum(lengths)


def parameters(dtype: torch.dtype = torch.float32) -> Tensor:
    start = torch.randn(3, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return start.to(dtype).requires_grad_()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_equals_the_papers_formulas(loss_type: str, level: ImportanceSamplingLevel) -> None:
    whole, weights = plays([5, 1, 7, 3], dtype=torch.float64), parameters(torch.float64)
    ours, theirs = packed_loss(weights, whole, whole, loss_type, level), looped_loss(weights, whole, loss_type, level)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0.0)  # the weights are float32
    (ours_gradient,), (theirs_gradient,) = torch.autograd.grad(ours, weights), torch.autograd.grad(theirs, weights)
    torch.testing.assert_close(ours_gradient, theirs_gradient, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("level", LEVELS)
def test_whole_loss_gradient_by_finite_differences(level: ImportanceSamplingLevel) -> None:
    whole = plays([3, 2], seed=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda w: packed_loss(w, whole, whole, "grpo", level), parameters(torch.float64))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    cuts=st.lists(st.booleans(), min_size=6, max_size=6),
    order=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=15)
def test_any_split_into_microbatches_gives_the_same_gradient(
    lengths: list[int], cuts: list[bool], order: object, loss_type: str, level: ImportanceSamplingLevel
) -> None:
    """Invariant 4: shuffle the acts, cut the batch anywhere, add the parts' losses and gradients."""
    whole, weights = plays(lengths), parameters()
    together = packed_loss(weights, whole, whole, loss_type, level)
    (expected,) = torch.autograd.grad(together, weights)
    shuffled = list(whole)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    starts = [0, *(i for i in range(1, len(whole)) if cuts[i]), len(whole)]
    loss, gradient = torch.zeros(()), torch.zeros_like(expected)
    for start, end in itertools.pairwise(starts):
        part = packed_loss(weights, shuffled[start:end], whole, loss_type, level)
        loss += part.detach()
        gradient += torch.autograd.grad(part, weights)[0]
    torch.testing.assert_close(loss, together.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
