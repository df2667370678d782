"""Token matching and BERTScore's F1 against loops over single vectors."""

import math

import torch

from motet.rewards.judge.similarity import greedy_f1, greedy_matches, token_matching


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def best(some, others):
    return sum(max(cosine(a, b) for b in others) for a in some) / len(some)


def ragged():
    """Three pairs of 4, 1, 3 and 2, 5, 3 vectors, padded on either side with vectors that would win if they counted."""
    torch.manual_seed(0)
    sizes, width = [(4, 2), (1, 5), (3, 3)], 6
    first, second = torch.full((3, 5, width), 9.0), torch.full((3, 6, width), 9.0)
    masks = torch.zeros(3, 5, dtype=torch.bool), torch.zeros(3, 6, dtype=torch.bool)
    lists = []
    for row, (n, t) in enumerate(sizes):
        a, b = torch.randn(n, width), torch.randn(t, width)
        first[row, 5 - n :], masks[0][row, 5 - n :] = a, True  # padded on the left
        second[row, :t], masks[1][row, :t] = b, True  # and on the right
        lists.append((a.tolist(), b.tolist()))
    return first, second, *masks, lists


def test_matches_equal_a_double_loop():
    *tensors, lists = ragged()
    forward, backward = greedy_matches(*tensors)
    torch.testing.assert_close(forward, torch.tensor([best(a, b) for a, b in lists]))
    torch.testing.assert_close(backward, torch.tensor([best(b, a) for a, b in lists]))
    torch.testing.assert_close(
        token_matching(*tensors), torch.tensor([(best(a, b) + best(b, a)) / 2 for a, b in lists])
    )


def test_f1_equals_a_double_loop():
    *tensors, lists = ragged()
    pairs = [(best(a, b), best(b, a)) for a, b in lists]
    wanted = [2 * p * r / (p + r) if p + r > 0 else 0.0 for p, r in pairs]
    assert any(wanted)
    torch.testing.assert_close(greedy_f1(*tensors), torch.tensor(wanted))


def test_f1_by_hand():
    candidate = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    reference = torch.tensor([[[3.0, 0.0]]])
    full = torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)
    torch.testing.assert_close(greedy_f1(candidate, reference, *full), torch.tensor([2 * 0.5 * 1.0 / 1.5]))
    assert greedy_f1(-reference, reference, full[1], full[1]).item() == 0.0  # P = R = -1: no F1


def test_an_empty_set_matches_nothing():
    x = torch.ones(1, 2, 3)
    some, none = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.bool)
    assert [v.item() for v in greedy_matches(x, x, some, none)] == [0.0, 0.0]
    assert [v.item() for v in greedy_matches(x, x, none, none)] == [0.0, 0.0]
    torch.testing.assert_close(torch.cat(greedy_matches(x, x, some, some)), torch.ones(2))
    assert [v.item() for v in greedy_matches(x, x[:, :0], some, some[:, :0])] == [0.0, 0.0]  # a prompt of no token
