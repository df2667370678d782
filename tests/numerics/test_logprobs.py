"""The scoring distribution, sampling from it, log-probs and entropy: float64 references and properties."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import MinPLogitsWarper

from motet.numerics.logprobs import action_log_probs, entropy, guide, hidden_log_probs, sample, scoring_logits

V, D = 11, 5

SCORINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"top_k": 4},
    {"top_p": 0.8},
    {"min_p": 0.3},
    {"guidance_scale": 3.0, "temperature": 0.9, "top_k": 8, "top_p": 0.95, "min_p": 0.1},
    {"temperature": 1.3, "top_k": 6, "top_p": 0.7},
    {"guidance_scale": 3.0},
    {"guidance_scale": 5.0, "temperature": 0.9, "top_k": 5, "top_p": 0.9},
]


def logits_of(*probs: float) -> Tensor:
    return torch.tensor(probs).log()


def allowed(logits: Tensor) -> list[bool]:
    return (logits > -torch.inf).tolist()


def naive_distribution(
    logits: list[float],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float = 0.0,
) -> list[float]:
    """The scoring distribution in Python floats: temperature, then top-k, then top-p of what is left, then min-p."""
    masses = [math.exp((x - max(logits)) / temperature) for x in logits]
    ranked = sorted(range(len(logits)), key=lambda v: -masses[v])[:top_k]
    total, kept, mass = sum(masses[v] for v in ranked), [], 0.0
    for v in ranked:
        if top_p is not None and mass >= top_p:
            break
        if masses[v] >= min_p * masses[ranked[0]]:
            kept.append(v)
        mass += masses[v] / total
    total = sum(masses[v] for v in kept)
    return [masses[v] / total if v in kept else 0.0 for v in range(len(logits))]


# --- guidance and the scoring distribution --------------------------------------------------------------------------


def test_guidance_by_hand() -> None:
    conditional, unconditional = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.0]])
    assert guide(conditional, unconditional, 5.0).tolist() == [[11.0, -3.0]]  # 1 + 5 * 2, 2 + 5 * -1
    assert torch.equal(guide(conditional, unconditional, 1.0), conditional)
    assert torch.equal(guide(conditional, unconditional, 0.0), unconditional)


def test_temperature_divides_the_logits() -> None:
    assert scoring_logits(torch.tensor([[2.0, -4.0]]), temperature=2.0).tolist() == [[1.0, -2.0]]


def test_low_precision_logits_are_scored_in_float32() -> None:
    assert scoring_logits(torch.zeros(1, 3, dtype=torch.bfloat16), top_k=2).dtype == torch.float32


def test_top_k_keeps_the_k_likeliest() -> None:
    logits = logits_of(0.1, 0.4, 0.3, 0.2)
    assert allowed(scoring_logits(logits, top_k=1)) == [False, True, False, False]
    assert allowed(scoring_logits(logits, top_k=3)) == [False, True, True, True]
    assert allowed(scoring_logits(logits, top_k=4)) == allowed(scoring_logits(logits, top_k=99)) == [True] * 4


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.01, [False, True, False, False]),  # the likeliest is always kept
        (0.45, [False, True, False, False]),
        (0.55, [False, True, True, False]),  # 0.5 is not enough
        (0.79, [False, True, True, False]),
        (0.85, [False, True, True, True]),
        (0.99, [True, True, True, True]),
    ],
)
def test_top_p_keeps_the_smallest_set_with_that_mass(top_p: float, expected: list[bool]) -> None:
    assert allowed(scoring_logits(logits_of(0.05, 0.5, 0.3, 0.15).unsqueeze(0), top_p=top_p)[0]) == expected


def test_top_p_is_applied_after_top_k() -> None:
    # top-2 of (0.4, 0.3, 0.2, 0.1) has masses (0.571, 0.429): top-p 0.5 then keeps one token; of the whole, two
    assert allowed(scoring_logits(logits_of(0.4, 0.3, 0.2, 0.1), top_k=2, top_p=0.5)) == [True, False, False, False]


def test_top_p_is_applied_after_the_temperature() -> None:
    logits = logits_of(0.6, 0.3, 0.1)  # squared (temperature 0.5): 0.783, 0.196, 0.022
    assert allowed(scoring_logits(logits, top_p=0.7)) == [True, True, False]
    assert allowed(scoring_logits(logits, temperature=0.5, top_p=0.7)) == [True, False, False]


def test_min_p_is_relative_to_the_likeliest_token() -> None:
    logits = logits_of(0.5, 0.26, 0.2, 0.04)
    assert allowed(scoring_logits(logits, min_p=0.5)) == [True, True, False, False]
    assert allowed(scoring_logits(logits, min_p=0.39)) == [True, True, True, False]
    assert allowed(scoring_logits(logits, min_p=0.5, temperature=2.0)) == [True, True, True, False]  # sqrt(0.2 / 0.5)
    assert allowed(scoring_logits(logits, min_p=0.01, top_k=2)) == [True, True, False, False]
    kept = scoring_logits(logits.unsqueeze(0), min_p=0.5, keep=torch.tensor([3]))
    assert allowed(kept[0]) == [True, True, False, True]


@pytest.mark.parametrize("min_p", [0.02, 0.2, 0.7])
def test_min_p_equals_transformers(min_p: float) -> None:
    logits = 3 * torch.randn(20, V, generator=torch.Generator().manual_seed(3))
    theirs = MinPLogitsWarper(min_p)(torch.zeros(20, 1, dtype=torch.long), logits.clone())  # type: ignore[arg-type]
    assert allowed(scoring_logits(logits, min_p=min_p)) == allowed(theirs)


def test_keep_never_excludes_the_action() -> None:
    logits = logits_of(0.4, 0.3, 0.2, 0.1).unsqueeze(0)
    either: list[dict[str, Any]] = [{"top_k": 2}, {"top_p": 0.6}]
    for limits in either:
        assert allowed(scoring_logits(logits, keep=torch.tensor([3]), **limits)[0]) == [True, True, False, True]
        assert torch.equal(scoring_logits(logits, keep=torch.tensor([1]), **limits), scoring_logits(logits, **limits))


@given(
    st.lists(st.floats(-6, 6), min_size=1, max_size=9, unique_by=lambda x: round(x, 2)),
    st.floats(0.3, 3.0),
    st.one_of(st.none(), st.integers(1, 10)),
    st.one_of(st.none(), st.floats(0.05, 0.95)),
)
@settings(deadline=None, max_examples=100)
def test_scoring_distribution_equals_the_naive_one(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    expected = torch.tensor(naive_distribution(logits, temperature, top_k, top_p), dtype=torch.float32)
    scored = scoring_logits(torch.tensor([logits]), temperature=temperature, top_k=top_k, top_p=top_p)
    probs = scored.softmax(-1)[0]
    if top_p is not None and (probs > 0).tolist() != (expected > 0).tolist():
        ordered = torch.tensor(naive_distribution(logits, temperature, top_k)).sort(descending=True).values
        assert (ordered.cumsum(0) - top_p).abs().min() < 1e-5  # only where rounding decides who is in the set
        return
    torch.testing.assert_close(probs, expected, rtol=1e-4, atol=1e-6)


# --- sampling -------------------------------------------------------------------------------------------------------


def test_sample_by_hand() -> None:
    logits = logits_of(0.2, 0.5, 0.3).expand(6, 3)  # cumulative 0.2, 0.7, 1
    assert sample(logits, torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 0.99])).tolist() == [0, 0, 1, 1, 2, 2]
    # intervals are half open: of four equal tokens, a uniform of exactly 1/4 is the second's
    assert sample(torch.zeros(4, 4), torch.tensor([0.0, 0.25, 0.5, 0.75])).tolist() == [0, 1, 2, 3]


def test_sample_follows_the_distribution() -> None:
    """Inverting the cumulative distribution on an even grid of n uniforms gives n p_v tokens v, to within one."""
    n = 4096
    logits = scoring_logits(torch.randn(V, generator=torch.Generator().manual_seed(0)), temperature=0.8, top_p=0.95)
    counts = torch.bincount(sample(logits.expand(n, V), (torch.arange(n) + 0.5) / n), minlength=V)
    assert (counts - n * logits.softmax(-1)).abs().max() <= 1.0


def test_sample_depends_on_its_own_row_only() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, uniforms = torch.randn(16, V, generator=generator), torch.rand(16, generator=generator)
    together = sample(logits, uniforms)
    alone = torch.cat([sample(logits[i : i + 1], uniforms[i : i + 1]) for i in range(16)])
    assert torch.equal(together, alone)
    assert torch.equal(together.flip(0), sample(logits.flip(0), uniforms.flip(0)))


EXTREMES = torch.tensor([0.0, 1e-38, 1e-8, 0.5, 1 - 2.0**-24, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("scoring", [{"top_k": 1}, {"top_k": 3}, {"top_p": 0.5}, {"top_k": 7, "top_p": 0.9}])
def test_sample_never_returns_an_excluded_token(scoring: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = scoring_logits(3 * torch.randn(500, V, generator=generator), **scoring)
    for uniforms in (torch.rand(500, generator=generator), *(u.expand(500) for u in EXTREMES)):
        tokens = sample(logits, uniforms)
        assert bool(action_log_probs(logits, tokens).isfinite().all())


@pytest.mark.parametrize("only", [0, 1, 2])
def test_sample_finds_the_only_token(only: int) -> None:
    logits = torch.full((len(EXTREMES), 3), -torch.inf)
    logits[:, only] = -7.0
    assert sample(logits, EXTREMES).tolist() == [only] * len(EXTREMES)


def test_sample_handles_a_rounded_cumulative_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parallel prefix sums may rise where an excluded token adds nothing, and may end below 1; here exaggerated."""
    monkeypatch.setattr(Tensor, "cumsum", lambda self, dim: torch.tensor([[0.5, 0.6, 1.0]]))
    assert sample(torch.tensor([[0.0, -torch.inf, 0.0]]), torch.tensor([0.55])).item() in (0, 2)
    monkeypatch.setattr(Tensor, "cumsum", lambda self, dim: torch.tensor([[0.5, 0.9]]))
    assert sample(logits_of(0.6, 0.4).unsqueeze(0), torch.tensor([0.95])).item() == 1  # 0.95 * 0.9, not past the end


@pytest.mark.parametrize("vocabulary", [1, 512, 513, 16_384, 102_400])
def test_sample_frequencies_equal_probabilities(vocabulary: int) -> None:
    """The uniforms that draw a token, found by halving, are an interval of the token's probability, whatever its size.

    A cumulative sum that is rounded to float32 is off by percents for one token of 16,384.
    """
    noise = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(vocabulary, generator=noise)
    probs = logits.double().softmax(-1)
    some = torch.cat([torch.tensor([0, vocabulary - 1]), torch.randint(vocabulary, (2,), generator=noise)])
    tokens = torch.cat([some, some + 1])
    low, high = torch.zeros(len(tokens), dtype=torch.float64), torch.ones(len(tokens), dtype=torch.float64)
    for _ in range(48):
        middle = (low + high) / 2
        reached = sample(logits.expand(len(tokens), -1), middle) >= tokens
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    widths = high[len(some) :] - high[: len(some)]
    torch.testing.assert_close(widths, probs[some], rtol=2e-5, atol=1e-13)


@pytest.mark.parametrize("vocabulary", [400, 5000])
def test_sample_never_returns_excluded_tokens_of_a_large_vocabulary(vocabulary: int) -> None:
    logits = torch.full((len(EXTREMES), vocabulary), -torch.inf)
    allowed = torch.tensor([3, 299, vocabulary - 2])
    logits[:, allowed] = torch.tensor([-1.0, -30.0, 0.0])  # the middle one less likely than float32 uniforms resolve
    assert bool(torch.isin(sample(logits, EXTREMES), allowed).all())
    first = float(torch.tensor([-1.0, -30.0, 0.0]).double().softmax(0)[0])
    rare = torch.tensor([first + 3e-14], dtype=torch.float64)
    assert sample(logits[:1].double(), rare).item() == 299


# --- log-probs and entropy ------------------------------------------------------------------------------------------


def test_action_log_probs_by_hand() -> None:
    logits = torch.stack([logits_of(0.2, 0.8), logits_of(0.5, 0.5) + 100.0])
    torch.testing.assert_close(action_log_probs(logits, torch.tensor([1, 0])), torch.tensor([0.8, 0.5]).log())


def test_action_log_probs_and_entropy_equal_float64() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, actions = 5 * torch.randn(4, 6, V, generator=generator), torch.randint(0, V, (4, 6), generator=generator)
    exact = logits.double().log_softmax(-1)
    torch.testing.assert_close(
        action_log_probs(logits, actions).double(), exact.gather(-1, actions[..., None])[..., 0], rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(entropy(logits).double(), -(exact.exp() * exact).sum(-1), rtol=1e-5, atol=1e-5)


def test_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [3.0, 3.0, -torch.inf, -torch.inf], [9.0] + [-torch.inf] * 3])
    torch.testing.assert_close(entropy(logits), torch.tensor([math.log(4), math.log(2), 0.0]))


def test_gradients_by_finite_differences() -> None:
    logits = torch.randn(3, V, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    actions = torch.tensor([0, 5, 10])
    assert torch.autograd.gradcheck(lambda x: action_log_probs(x, actions), logits)
    assert torch.autograd.gradcheck(entropy, logits)


def test_gradients_are_finite_and_zero_for_excluded_tokens() -> None:
    logits = logits_of(0.4, 0.3, 0.2, 0.1).unsqueeze(0).requires_grad_()
    scored = scoring_logits(logits, top_k=2)
    (action_log_probs(scored, torch.tensor([1])) + entropy(scored)).sum().backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all())
    assert logits.grad[0, 2:].tolist() == [0.0, 0.0]
    assert bool((logits.grad[0, :2] != 0).all())


# --- from hidden states ---------------------------------------------------------------------------------------------


def states(rows: int, dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    """A head, hidden states and unconditional ones `[rows, D]`, and actions that the head finds likely or not."""
    generator = torch.Generator().manual_seed(5)
    head = nn.Linear(D, V)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    hidden, null = torch.randn(2, rows, D, generator=generator)
    actions = torch.randint(0, V, (rows,), generator=generator)
    return head.to(dtype), hidden.to(dtype).requires_grad_(), null.to(dtype).requires_grad_(), actions


def split(scoring: dict[str, Any], null: Tensor) -> dict[str, Any]:
    return scoring | ({"unconditional": null} if "guidance_scale" in scoring else {})


@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
def test_hidden_log_probs_equal_the_naive_distribution(scoring: dict[str, Any]) -> None:
    head, hidden, null, _ = states(6)
    options = {key: value for key, value in scoring.items() if key != "guidance_scale"}
    logits = head(hidden)
    if "guidance_scale" in scoring:
        null_logits = head(null)
        logits = null_logits + scoring["guidance_scale"] * (logits - null_logits)
    exact = torch.tensor([naive_distribution(row, **options) for row in logits.tolist()])
    actions = exact.argmax(-1)
    log_probs, entropies = hidden_log_probs(hidden, head, actions, with_entropy=True, **split(scoring, null))
    torch.testing.assert_close(log_probs, exact.max(-1).values.log(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entropies, torch.special.entr(exact).sum(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows_per_chunk", [1, 3, 4, 10])
@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
def test_chunked_equals_unchunked(scoring: dict[str, Any], rows_per_chunk: int) -> None:
    """Values and gradients, for the hidden states of both branches and for the head; 10 rows in chunks."""
    head, hidden, null, actions = states(10)
    options, leaves = split(scoring, null), [hidden, *head.parameters()]
    leaves += [null] if "unconditional" in options else []
    slopes = torch.randn(2, 10, generator=torch.Generator().manual_seed(6))
    results = []
    for budget in (10 * V, rows_per_chunk * V + V - 1):
        log_probs, entropies = hidden_log_probs(hidden, head, actions, with_entropy=True, budget=budget, **options)
        assert entropies is not None
        gradients = torch.autograd.grad((slopes[0] * log_probs + slopes[1] * entropies).sum(), leaves)
        results.append([log_probs, entropies, *gradients])
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=5e-5)


def test_logits_stay_within_the_budget() -> None:
    head, hidden, _, actions = states(10)
    seen: list[int] = []

    def counting_head(rows: Tensor) -> Tensor:
        seen.append(len(rows))
        return head(rows)

    saved: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        log_probs, entropies = hidden_log_probs(hidden, counting_head, actions, budget=3 * V)
    assert entropies is None
    assert seen == [1, 3, 3, 3, 1]  # one row to learn V, then chunks of three
    assert all(V not in shape for shape in saved)  # nothing of the size of logits is saved for the backward pass
    log_probs.sum().backward()
    assert max(seen) == 3


@pytest.mark.parametrize("limits", [{"top_k": 1}, {"top_p": 0.01}], ids=str)
def test_an_action_excluded_by_rounding_has_a_log_prob(limits: dict[str, Any]) -> None:
    """Only the likeliest token is left, and another one was taken: both share the mass."""
    head, hidden, _, _ = states(10)
    logits = head(hidden)
    second = logits.topk(2).indices[:, 1]
    exact = logits.topk(2).values.log_softmax(-1)[:, 1]
    for budget in (V, 10 * V):
        log_probs, _ = hidden_log_probs(hidden, head, second, budget=budget, **limits)
        torch.testing.assert_close(log_probs, exact)


def test_a_budget_below_one_row_still_takes_one_row() -> None:
    head, hidden, _, actions = states(3)
    tiny, _ = hidden_log_probs(hidden, head, actions, budget=1)
    torch.testing.assert_close(tiny, hidden_log_probs(hidden, head, actions)[0])


def test_no_actions() -> None:
    head, hidden, _, actions = states(3)
    log_probs, entropies = hidden_log_probs(hidden[:0], head, actions[:0], with_entropy=True)
    assert entropies is not None
    assert log_probs.shape == entropies.shape == (0,)


def test_a_low_precision_head_is_scored_in_float32() -> None:
    head, hidden, null, actions = states(4, torch.bfloat16)
    log_probs, _ = hidden_log_probs(hidden, head, actions, unconditional=null, guidance_scale=3.0)
    conditional, unconditional = head(hidden).double(), head(null).double()
    exact = (unconditional + 3.0 * (conditional - unconditional)).log_softmax(-1)
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.double(), exact.gather(-1, actions[:, None])[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
def test_replayed_log_probs_equal_sampled_ones(scoring: dict[str, Any]) -> None:
    """Invariant 1: sample from the scoring logits, replay from hidden states, and the ratio is 1."""
    head, hidden, null, _ = states(64)
    options = {key: value for key, value in scoring.items() if key != "guidance_scale"}
    logits = head(hidden)
    if "guidance_scale" in scoring:
        logits = guide(logits, head(null), scoring["guidance_scale"])
    scored = scoring_logits(logits, **options)
    actions = sample(scored, torch.rand(64, generator=torch.Generator().manual_seed(8)))
    replayed, _ = hidden_log_probs(hidden, head, actions, budget=7 * V, **split(scoring, null))
    torch.testing.assert_close(replayed, action_log_probs(scored, actions), rtol=1e-5, atol=1e-5)
    mistakes: list[dict[str, Any]] = [
        {"temperature": 0.5},
        {"top_k": 2},
        {"unconditional": null, "guidance_scale": 2.0},
    ]
    for wrong in mistakes:
        other, _ = hidden_log_probs(hidden, head, actions, **(split(scoring, null) | wrong))
        assert (other - replayed).abs().max() > 0.1  # and a replay with other settings would be noticed
