"""Auditing rewards: numbers that follow from what the rewards say, on a tiny policy that is really sampled."""

import json

import pytest

from motet.config import parse_recipe
from motet.core.errors import ConfigError
from motet.evaluation.bench_rewards import audit_rewards
from tests.runs import WORLD, mapping, motet_command, write_recipe


def darkness(completions, **columns):
    """How dark the first pixel is: differs between the generations of an untrained policy."""
    return [1 - sum(c[0]["content"][0]["image"].getpixel((0, 0))) / 765 for c in completions]


def brightness(completions, **columns):
    return [1 - score for score in darkness(completions)]


def of_the_prompt(completions, prompt, **columns):
    """Depends on the prompt only."""
    return [float(len(str(text))) for text in prompt]


REWARDS = [{"name": f"{__file__}:{name}"} for name in ("darkness", "brightness", "of_the_prompt")]
CHANGES = {"scenario": "text_to_image", "rewards": REWARDS, "algorithm": {"num_generations": 4}}
SMALL = {"run": {"steps": 1, "prompts_per_step": 3}}


def test_agreement_follows_from_the_rewards(tiny_checkpoint):
    recipe = parse_recipe(mapping(tiny_checkpoint, **CHANGES, **SMALL))
    told = []
    opposite, blind = audit_rewards(recipe, 2, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    assert (opposite.track, opposite.reward, opposite.trusted) == ("", "brightness", "darkness")
    assert opposite.num_rollouts == 2 * 3 * 4 and opposite.std > 0
    assert opposite.pooled_correlation[0] == pytest.approx(-1) and opposite.within_group_correlation[
        0
    ] == pytest.approx(-1)
    assert opposite.pairwise_accuracy == (0.0, 0.0, 0.0)
    assert (
        blind.reward == "of_the_prompt" and blind.within_group_correlation[0] != blind.within_group_correlation[0]
    )  # NaN: constant within groups
    assert blind.pairwise_accuracy == (0.5, 0.5, 0.5)
    (again, _) = audit_rewards(recipe, 2, "brightness")
    assert (again.reward, again.trusted, again.mean) == ("darkness", "brightness", pytest.approx(1 - opposite.mean))


def test_tracks_share_samples(tiny_checkpoint):
    track = {"scenario": "text_to_image", "data": {"source": "shapes", "options": dict(WORLD)}, "prompts_per_step": 3}
    tracks = {
        "one": {**track, "rewards": REWARDS[:2]},
        "other": {**track, "rewards": [REWARDS[0], REWARDS[2]]},
        "last": {**track, "rewards": REWARDS[:2]},
    }
    bare = {**dict.fromkeys(("scenario", "data", "rewards", "run")), "tracks": tracks}
    recipe = parse_recipe(mapping(tiny_checkpoint, **bare) | {"run": {"steps": 1}})
    first, other, last = audit_rewards(recipe, 1)
    assert (first.track, other.track, last.track) == ("one", "other", "last")
    assert (first.mean, first.std, first.pooled_correlation) == (last.mean, last.std, last.pooled_correlation)


def test_recipes_without_comparable_rewards_are_rejected(tiny_checkpoint):
    recipe = parse_recipe(mapping(tiny_checkpoint, **CHANGES, **SMALL))
    with pytest.raises(
        ConfigError, match=r"has no reward 'darknes'; it has: darkness, brightness, of_the_prompt.*'darkness'"
    ):
        audit_rewards(recipe, 1, "darknes")
    alone = parse_recipe(mapping(tiny_checkpoint, **{**CHANGES, "rewards": REWARDS[:1]}, **SMALL))
    with pytest.raises(ConfigError, match="a comparison needs at least two"):
        audit_rewards(alone, 1)


def test_the_command(tiny_checkpoint, tmp_path, capsys):
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, **CHANGES, **SMALL)
    answer = motet_command(capsys, "bench", "rewards", recipe, "--rollouts", 1, "--json", tmp_path / "out.json")
    assert (
        answer.code == 0
        and "brightness" in answer.out
        and "pairwise" in answer.out
        and "-1.00 [-1.00, -1.00]" in answer.out
    )
    rows = json.loads((tmp_path / "out.json").read_text())
    assert (
        rows[1]["within_group_correlation"] == [None, None, None] and "NaN" not in (tmp_path / "out.json").read_text()
    )
    assert [row["reward"] for row in rows] == ["brightness", "of_the_prompt"] and rows[0]["num_rollouts"] == 12
    refused = motet_command(capsys, "bench", "rewards", recipe, "--trusted", "nobody")
    assert refused.code == 2 and "has no reward 'nobody'" in refused.err
