"""A named choice: a name alone, or a mapping of the name and its options."""

import pytest
from pydantic import PositiveFloat

from motet.config import renamed
from motet.config.choice import Choice, merge_choice
from motet.config.options import option_problems, read_options
from motet.config.section import Section
from motet.core.errors import ConfigError


class Clipped(Section):
    epsilon: PositiveFloat = 0.2
    levels: tuple[int, ...] = ()


def test_a_plain_name_and_a_mapping_say_the_same():
    assert Choice.model_validate("grpo") == Choice.model_validate({"name": "grpo"}) == Choice.of("grpo")
    assert Choice.of("grpo", epsilon=0.1) != Choice.of("grpo", epsilon=0.3)


def test_a_choice_is_written_as_short_as_it_can_be():
    assert Choice.of("grpo").model_dump() == "grpo"
    assert Choice.of("grpo", epsilon=0.1).model_dump() == {"name": "grpo", "epsilon": 0.1}


def test_options_are_read_into_the_settings_of_what_is_named():
    settings = read_options(Choice.of("grpo", epsilon=0.3, levels=[1, 2]), Clipped, "algorithm.loss")
    assert settings == Clipped(epsilon=0.3, levels=(1, 2))


@pytest.mark.parametrize(
    ("options", "key", "expected"),
    [
        ({"epsilom": 0.3}, "algorithm.loss.epsilom", "did you mean 'algorithm.loss.epsilon'?"),
        ({"zeta": 1}, "algorithm.loss.zeta", "'grpo' expects epsilon, levels."),
        ({"epsilon": -1.0}, "algorithm.loss.epsilon", "expected a number > 0"),
        ({"levels": [1, "2"]}, "algorithm.loss.levels.1", "expected a whole number"),
    ],
)
def test_wrong_options_are_named_by_their_key(options, key, expected):
    (problem,) = option_problems(Choice.of("grpo", **options), Clipped, "algorithm.loss")
    assert problem.key == key and expected in problem.text
    with pytest.raises(ConfigError, match=key):
        read_options(Choice.of("grpo", **options), Clipped, "algorithm.loss")


@pytest.mark.parametrize(
    ("under", "over", "merged"),
    [
        ("grpo", {"epsilon": 0.3}, {"name": "grpo", "epsilon": 0.3}),
        ({"name": "grpo", "epsilon": 0.1}, {"delta": 4}, {"name": "grpo", "epsilon": 0.1, "delta": 4}),
        ({"name": "grpo", "epsilon": 0.1}, "dapo", "dapo"),
        ({"name": "grpo", "epsilon": 0.1}, {"name": "cispo", "cap": 5}, {"name": "cispo", "cap": 5}),
    ],
)
def test_options_of_another_name_are_dropped_in_a_merge(under, over, merged):
    assert merge_choice(under, over) == merged


def test_renamed_keys_and_values_are_found_in_tracks_and_lists(monkeypatch):
    monkeypatch.setattr(renamed, "KEYS", {"run.turn": "run.steps_per_track", "per_kind.*.eps": "per_kind.*.epsilon"})
    monkeypatch.setattr(renamed, "VALUES", {"scenario": {"draw": "text_to_image"}, "rewards.*.name": {"qa": "vqa"}})
    content = {
        "run": {"turn": 3},
        "per_kind": {"image": {"eps": 0.1}},
        "tracks": {"a": {"scenario": {"name": "draw", "keep": 2}, "rewards": [{"name": "qa"}]}},
    }
    assert [str(problem) for problem in renamed.renamed_problems(content, "shared.")] == [
        "shared.run.turn: was renamed to shared.run.steps_per_track. Fix: write shared.run.steps_per_track.",
        "shared.per_kind.image.eps: was renamed to shared.per_kind.image.epsilon. "
        "Fix: write shared.per_kind.image.epsilon.",
        "shared.tracks.a.scenario: 'draw' was renamed to 'text_to_image'. Fix: write text_to_image.",
        "shared.tracks.a.rewards.0.name: 'qa' was renamed to 'vqa'. Fix: write vqa.",
    ]
