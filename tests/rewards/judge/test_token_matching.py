"""Token matching on a tiny Janus: the formula, the spans, the weights, and that the batch changes nothing."""

import math

import pytest
import torch

from motet.config import RewardConfig, parse_recipe
from motet.core.conversation import user
from motet.core.errors import ConfigError
from motet.core.protocols import Features
from motet.rewards import bind_policy, resolve
from motet.rewards.judge.token_matching import TokenMatching, match
from motet.testing import FakePolicy
from tests.rewards.judges import image, shows
from tests.runs import REWARDS, mapping, run_loop

PROMPTS = ["two red circles", "a blue square above a cross and a circle", "a cross"]
IMAGES = [image("red"), image("blue"), image("green")]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def by_hand(found, shift=0):
    """The formula in loops over single tokens, with the text's span shifted."""
    image = [found.hidden[n].tolist() for n in found.spans[0]]
    text = [found.hidden[n + shift].tolist() for n in found.spans[1]]
    of_image = sum(max(cosine(i, t) for t in text) for i in image) / len(image)
    of_text = sum(max(cosine(t, i) for i in image) for t in text) / len(text)
    return 0.5 * (of_image + of_text)


def bound(policy, **options):
    config = RewardConfig(name="token_matching", options=options)
    (reward,) = bind_policy([resolve(config, {"image": "image"}, ("prompt",))], policy)
    return reward


def test_it_is_the_formula_with_the_spans_of_the_encoding(janus):
    found = janus.features([user(p, t) for p, t in zip(IMAGES, PROMPTS, strict=True)])
    scores = bound(janus, weights="current")(prompts=[], completions=shows(*IMAGES), prompt=PROMPTS)
    assert scores == pytest.approx([by_hand(f) for f in found], abs=1e-5)
    for shift in (-1, 1):  # a span that is off by one is seen
        assert all(abs(by_hand(f, shift) - score) > 1e-4 for f, score in zip(found, scores, strict=True))
    assert len({round(score, 4) for score in scores}) == 3


def test_the_batch_changes_nothing(janus):
    together = bound(janus, weights="current")(prompts=[], completions=shows(*IMAGES), prompt=PROMPTS)
    alone = bound(janus, weights="current", batch_size=1)(
        prompts=[], completions=shows(*IMAGES[::-1]), prompt=PROMPTS[::-1]
    )
    assert alone[::-1] == pytest.approx(together, abs=1e-5)


def test_the_reference_does_not_drift_and_the_current_weights_do(janus):
    janus.freeze_reference()
    frozen, current = bound(janus), bound(janus, weights="current")
    assert frozen.uses_reference and not current.uses_reference
    ask = {"prompts": [], "completions": shows(*IMAGES), "prompt": PROMPTS}
    start = frozen(**ask)
    assert current(**ask) == pytest.approx(start, abs=1e-6)
    with torch.no_grad():
        for parameter in janus.trainable().values():
            parameter.add_(torch.full_like(parameter, 0.05))
    assert frozen(**ask) == start
    assert max(abs(a - b) for a, b in zip(current(**ask), start, strict=True)) > 1e-3


def test_rows_without_a_prompt_or_an_image_get_none(janus):
    scores = bound(janus, weights="current")(
        prompts=[], completions=[*shows(*IMAGES[:2]), []], prompt=[None, "a cross", "a cross"]
    )
    assert scores[0] is None and scores[2] is None and isinstance(scores[1], float)


def test_an_empty_span_matches_nothing():
    empty = Features(torch.randn(4, 3), (range(0, 3), range(0)))
    full = Features(torch.ones(5, 3), (range(0, 3), range(3, 5)))
    torch.testing.assert_close(match([empty, full]), torch.tensor([0.0, 1.0]))


def test_a_policy_without_features_raises():
    with pytest.raises(ConfigError, match=r"FakePolicy has no reference\(\)"):
        bound(FakePolicy())
    with pytest.raises(ConfigError, match="FakePolicy has no method"):
        bound(FakePolicy(), weights="current")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "frozen"}, "weights='frozen' of 'token_matching' must be one of"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ConfigError, match=message):
        TokenMatching(**options)


def test_a_run_binds_the_policy_and_keeps_the_start(tiny_checkpoint, tmp_path):
    """No KL asks for a reference here: the reward does, and two steps are scored with it."""
    rewards = [
        {"name": "token_matching", "acts": ["image"]},
        {"name": "cycle", "acts": ["image"], "options": {"visual": "none", "max_tokens": 4}},
        {"name": f"{REWARDS}spacious", "acts": ["answer"]},
    ]
    recipe = parse_recipe(mapping(tiny_checkpoint, rewards=rewards, run={"steps": 2}))
    steps = run_loop(recipe, tmp_path / "run")
    assert len(steps) == 2
    for numbers in steps:
        assert -1 <= numbers["rewards/token_matching/mean"] <= 1
        assert 0 <= numbers["rewards/cycle/mean"] <= 1
