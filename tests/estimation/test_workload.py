"""What a recipe's step generates, found by running its scenarios on a placeholder."""

import pytest

from motet.config import parse_recipe
from motet.core.errors import ConfigError
from motet.estimation.model_size import LanguageSize, ModelSize
from motet.estimation.workload import Lengths, workload
from motet.scenarios import built_in_scenarios

LANGUAGE = LanguageSize(
    24, 2048, 16, 16, 128, 5632, 102400, 0, image_actions=576, image_positions=576, shown_tokens=576
)
SIZE = ModelSize("janus", {}, LANGUAGE, None)


def loads(scenario="generate_and_answer", lengths=None, **sections):
    content = {"policy": {"path": "x"}, "run": {"steps": 1, "prompts_per_step": 4}}
    recipe = parse_recipe({**content, **({"scenario": scenario} if scenario else {}), **sections})
    return workload(recipe, SIZE, lengths or Lengths(prompt=10))


def test_independent_acts_and_guidance() -> None:
    image, answer = loads(sampling={"image": {"guidance": "guided"}, "text": {"max_tokens": 100}})
    assert (image.name, image.kind, image.branches, image.replayed, image.shown) == ("image", "image", 2, 2, 0)
    assert (image.count, image.context, image.positions, image.tokens) == (32, 10, 576, 2 * 586)
    assert (answer.kind, answer.branches, answer.shown, answer.context) == ("text", 1, 1, 586)
    assert (answer.positions, answer.mean_positions) == (100, 50.0)
    conditional, _ = loads(sampling={"image": {"guidance": "conditional"}})
    assert (conditional.branches, conditional.replayed) == (2, 1)


def test_contexts_hold_what_was_generated_before() -> None:
    draft, critique, revision = loads("reflect", sampling={"text": {"max_tokens": 100}})
    assert (draft.context, critique.context, revision.context) == (10, 586, 636)
    _, image = loads("think_then_generate", Lengths(prompt=10, text=30))
    assert image.context == 40


def test_tracks_are_separate_loads() -> None:
    tracks = {name: {"scenario": "answer", "prompts_per_step": count} for name, count in (("a", 2), ("b", 3))}
    found = loads(None, tracks=tracks, run={"steps": 1})
    assert [(load.track, load.groups) for load in found] == [("a", 2), ("b", 3)]


def test_every_scenario_of_token_policies_runs() -> None:
    flow = {"tokens_then_flow", "think_tokens_then_flow"}
    for name, scenario in built_in_scenarios().items():
        if name not in flow:
            assert [load.name for load in loads(name)] == list(scenario.acts)
    with pytest.raises(ConfigError, match="'image' of kind denoising, which a janus policy does not perform"):
        loads("tokens_then_flow")


def test_a_mean_above_the_limit_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"--text-tokens is 600.*max_tokens=512"):
        loads("answer", Lengths(text=600))
