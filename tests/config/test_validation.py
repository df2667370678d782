"""Settings that each are legal and together are not are refused, with key and fix; their legal neighbours are not."""

import pytest

from motet.config import parse_recipe
from motet.config.validation import CHECKS
from motet.core.errors import ConfigError

MINIMAL = {"policy": {"path": "model"}, "run": {"steps": 3}}

REFUSED = {
    "_unused_but_given": [
        (
            ["sampling.image.guidance_scale=5.0"],
            "sampling.image.guidance_scale: has no effect while sampling.image.guidance is none",
        ),
        (
            ["sampling.image.guidance=none", "sampling.image.guidance_scale=3"],
            "sampling.image.guidance_scale: has no effect",
        ),
        (
            ["sampling.denoising.guidance_scale=3"],
            "sampling.denoising.guidance_scale: has no effect while sampling.denoising.guidance is none",
        ),
        (["sampling.denoising.image_guidance_scale=3"], "sampling.denoising.image_guidance_scale: has no effect"),
        (
            ["policy.lora={}", "policy.train=[lm_head]"],
            "policy.train: lists lm_head, which policy.lora adapts",
        ),
        (["policy.lora={}", "policy.train=[queries, language_model]"], "policy.train: lists language_model, which"),
        (["policy.diffusion.lora={}", "policy.train=[transformer]"], "policy.train: lists transformer, which"),
        (["tracks={}"], "tracks: is empty"),
        (["tracks.a.scenario=edit", "scenario=generate_and_answer"], "scenario: has no effect beside tracks"),
        (["tracks.a.scenario=edit", "data.size=3"], "data: has no effect beside tracks"),
        (["tracks.a.scenario=edit", "rewards=[{name: a}]"], "rewards: has no effect beside tracks"),
        (
            ["tracks.a.scenario=edit", "run.prompts_per_step=3"],
            "run.prompts_per_step: has no effect beside tracks",
        ),
        (["tracks.a.scenario=edit", "run.steps_per_track=3"], "run.steps_per_track: has no effect without two tracks"),
    ],
    "_sampling": [
        (
            ["sampling.image.guidance=guided", "sampling.image.guidance_scale=1"],
            "sampling.image.guidance_scale: 1 is the conditional distribution",
        ),
        (
            ["sampling.denoising.guidance=guided", "sampling.denoising.guidance_scale=1"],
            "sampling.denoising.guidance_scale: 1 is the conditional",
        ),
        (
            ["sampling.denoising.sde_type=cps", "sampling.denoising.noise_level=1.5"],
            "sampling.denoising.noise_level: is 1.5, but cps takes",
        ),
        (
            ["sampling.denoising.sde_window.size=10"],
            "sampling.denoising.sde_window.size: is 10, but of 10 steps only 9 can be",
        ),
        (
            ["sampling.denoising.num_steps=1"],
            "sampling.denoising.num_steps: is 1, and the last step is never stochastic",
        ),
    ],
    "_track_names": [(["tracks={a b: {scenario: text_to_image}}"], "tracks.a b: 'a b' does not fit")],
    "_finite": [
        (
            ["optimizer.weight_decay=.inf"],
            "the recipe: optimizer.weight_decay: inf does not fit; expected a finite number",
        ),
        (["rewards=[{name: a, weight: .nan}]"], "rewards.0.weight: nan does not fit"),
        (["algorithm.per_kind.text.beta=.inf"], "algorithm.per_kind.text.beta: inf"),
    ],
    "_policy": [
        (["policy.path=''"], "policy.path: is empty"),
        (["policy.train=[]"], "policy.train: is empty, so nothing would train"),
        (["policy.lora.target_modules=[]"], "policy.lora.target_modules: is empty"),
        (["policy.diffusion.lora.target_modules=[]"], "policy.diffusion.lora.target_modules: is empty"),
        (["policy.diffusion={}", "policy.train=[]"], "policy.train: is empty, so nothing would train"),
        (["policy.device=gpu"], "policy.device: 'gpu' is not a torch device"),
    ],
    "_shapes_data": [
        (["data.source=rows.jsonl", "data.options.size=3"], "data.options: are options of the shapes world"),
        (["data.split=validation"], "data.split: the shapes world has no split 'validation'"),
        (["data.split=test", "eval.suite=shapes"], "training would see the test"),
        (["data.split=held_out", "eval.suite=shapes"], "training would see the test"),
        (["tracks.a.data.split=test", "eval.suite=shapes"], "tracks.a.data.split: is 'test', on which eval.suite"),
    ],
    "_names": [
        (["scenario=my.module.play"], "scenario: 'my.module.play' lacks the colon of package.module:name (override"),
        (["scenario=''"], "scenario: is empty"),
        (["rewards=[{name: a.b}]"], "rewards.0.name: 'a.b' lacks the colon of package.module:name. Fix: write a:b."),
    ],
    "_rewards": [
        (["tracks.a.rewards=[{name: a, acts: []}]"], "tracks.a.rewards.0.acts: is empty, so the reward would apply to"),
        (["rewards=[{name: a, acts: []}]"], "rewards.0.acts: is empty, so the reward would apply to no act"),
        (["rewards=[{name: a, acts: [x, x]}]"], "rewards.0.acts: names an act twice: x, x"),
        (["rewards=[{name: a}, {name: a, weight: 2}]"], "rewards.1: 'a' is already rewards.0, for the same acts"),
        (
            ["rewards=[{name: a, acts: [x, y]}, {name: b}, {name: a, acts: [y, x]}]"],
            "rewards.2: 'a' is already rewards.0",
        ),
        (
            ["rewards=[{name: a, options: {x: 1}}, {name: a}, {name: a, options: {x: 1}, weight: 2}]"],
            "rewards.2: 'a' is already rewards.0",
        ),
        (["rewards=[{name: a, weight: 0}, {name: b, weight: 0.0}]"], "rewards: all weights are 0"),
    ],
    "_reference": [
        (
            ["algorithm={reference_sync: {}, beta: 0.1}", "policy.lora={}", "policy.train=[]"],
            "algorithm.reference_sync: mixes weights, but adapters train",
        ),
        (
            ["algorithm={reference_sync: {}, beta: 0.1}", "policy.diffusion.lora={}", "policy.train=[]"],
            "algorithm.reference_sync: mixes weights, but adapters train",
        ),
    ],
    "_minibatches": [
        (["algorithm.num_minibatches=9"], "algorithm.num_minibatches: 9 minibatches cannot be cut from 8 prompts"),
    ],
    "_sft": [
        (
            ["sft={prompt_dropout: 0.5, source_dropout: 0.3, joint_dropout: 0.3}"],
            "sft.prompt_dropout: 0.5 + 0.3 + 0.3 of the edits are more than all",
        ),
    ],
    "_optimizer": [
        (["optimizer.betas=[0.9, 1.0]"], "optimizer.betas.1: 1 does not fit; expected >= 0 and < 1"),
        (["optimizer.betas=[-0.1, 0.9]"], "optimizer.betas.0: -0.1 does not fit"),
        (["optimizer.learning_rate=2e4"], "optimizer.learning_rate: 20000 is almost certainly a typo"),
    ],
    "_eval": [
        (["eval.size=8", "eval.seed=1"], "eval.suite: missing beside eval.seed, eval.size; nothing would be evaluated"),
        (["eval.suite=none", "eval.every=5"], "eval.every: is 5, which has no effect while eval.suite is none"),
        (["eval.suite=shape"], "eval.suite: 'shape' is not a suite; expected one of shapes, rewards, none"),
        (["eval.suite=shapes", "eval.suite.split=test"], "'shapes' expects held_out_size, guidance_scale"),
        (["eval.suite=rewards", "eval.suite.held_out_size=8"], "eval.suite.held_out_size: the key is unknown"),
        (["eval.suite=shapes", "eval.suite.guidance_scale=0.5"], "eval.suite.guidance_scale: 0.5 does not fit"),
    ],
}

LEGAL = [
    ["sampling.image.guidance=guided"],
    ["sampling.image.guidance=guided", "sampling.image.guidance_scale=3"],
    ["sampling.image.guidance=conditional", "sampling.image.guidance_scale=1.5"],
    ["policy.lora={}"],
    ["policy.lora={}", "policy.train=[queries, connector, transformer]"],
    ["policy.lora={}", "policy.train=[]"],
    ["policy.diffusion.lora={}", "policy.train=[]"],
    ["policy.diffusion.lora={}", "policy.train=[language_model, lm_head]"],
    ["policy.diffusion.lora={}", "policy.lora={}"],
    ["policy.train=[language_model]"],
    ["policy.device=cuda:1"],
    ["data.source=rows.jsonl", "data.columns.question=problem", "data.split=validation"],
    ["data.source=rows.jsonl", "data.split=test", "eval.suite=shapes"],
    ["data.options.size=3", "data.split=test"],
    ["data.source=somebody/something", "data.options.revision=main", "data.options.name=en"],
    ["scenario=folder/my.py:play", "rewards=[{name: my_module:score}]"],
    ["rewards=[{name: a, acts: [x]}, {name: a, acts: [y]}, {name: a}]"],
    ["rewards=[{name: a, weight: 0}, {name: b, weight: -1}]"],
    ["data.options.threshold=.inf"],
    ["algorithm={reference_sync: {every: 8, alpha: 1.0}, beta: 0.1}"],
    ["algorithm.num_minibatches=8"],
    ["sft={prompt_dropout: 0.5, source_dropout: 0.25, joint_dropout: 0.25}"],
    ["algorithm.num_minibatches=3", "run.prompts_per_step=8"],
    ["optimizer.betas=[0.0, 0.95]"],
    ["eval.suite=none", "eval.size=8"],
    ["eval.suite=shapes", "eval.suite.held_out_size=8"],
    ["eval.suite={name: rewards, data: x.jsonl}", "eval.suite.split=dev"],
]


@pytest.mark.parametrize(
    ("overrides", "words"), [case for cases in REFUSED.values() for case in cases], ids=lambda value: str(value)[:60]
)
def test_a_contradiction_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(MINIMAL, overrides)
    assert words in str(caught.value) and " Fix: " in str(caught.value)
    assert "problems" not in str(caught.value), "one slip should not make two complaints"


@pytest.mark.parametrize("overrides", LEGAL, ids=lambda value: str(value)[:60])
def test_its_legal_neighbours_are_not(overrides: list[str]) -> None:
    parse_recipe(MINIMAL, overrides)


def test_every_check_has_a_case() -> None:
    assert {check.__name__ for check in CHECKS} == set(REFUSED)


def test_all_contradictions_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(MINIMAL, ["algorithm.num_minibatches=9", "policy.device=gpu", "policy.train=[]"])
    assert str(caught.value).startswith("the recipe has 3 problems:\n")
