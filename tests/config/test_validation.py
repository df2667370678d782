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
        (
            ["algorithm.ref_model_sync_steps=2"],
            "algorithm.ref_model_sync_steps: has no effect while algorithm.sync_ref",
        ),
        (["algorithm.ref_model_mixup_alpha=1"], "algorithm.ref_model_mixup_alpha: has no effect while algorithm.sync_"),
        (
            ["algorithm.population_std=true", "algorithm.scale_rewards=none"],
            "algorithm.population_std: has no effect while algorithm.scale_rewards is none",
        ),
        (["algorithm.sapo_temperature_pos=2"], "algorithm.sapo_temperature_pos: has no effect under loss_type grpo"),
        (["algorithm.loss_type=sapo", "algorithm.vespo_k_neg=2"], "algorithm.vespo_k_neg: has no effect under loss_t"),
        (
            ["algorithm.loss_type=sapo", "algorithm.epsilon=0.1"],
            "algorithm.epsilon: has no effect under loss_type sapo",
        ),
        (["algorithm.loss_type=vespo", "algorithm.epsilon_high=0.1"], "algorithm.epsilon_high: has no effect under"),
        (
            ["algorithm={loss_type: cispo, epsilon_high: 5.0, delta: 4.0}"],
            "algorithm.delta: has no effect under loss_t",
        ),
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
    "_flow_algorithm": [
        (
            ["algorithm.flow.guard=true", "sampling.denoising.sde_type=cps"],
            "algorithm.flow.guard: weights the steps of flow_sde",
        ),
        (["algorithm.flow.objective=nft"], "algorithm.flow.penalty: is kl, but nft replays no stochastic step"),
        (
            ["algorithm.flow={objective: nft, penalty: velocity_mse, guard: true}"],
            "algorithm.flow.guard: normalises ratios, which nft has none of",
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
    "_advantages": [
        (["algorithm.loss_type=dr_grpo"], "algorithm.scale_rewards: is group, but loss_type dr_grpo"),
        (["algorithm.normalize_each=true", "algorithm.scale_rewards=none"], "algorithm.normalize_each: divides every"),
    ],
    "_clip_range": [
        (["algorithm.epsilon_high=0.1"], "algorithm.epsilon_high: 0.1 is below epsilon 0.2"),
        (
            ["algorithm.epsilon=null", "algorithm.epsilon_high=0.3"],
            "algorithm.epsilon_high: is 0.3, but algorithm.epsilon n",
        ),
        (["algorithm.epsilon=0"], "algorithm.epsilon: 0 clips every change away"),
        (["algorithm.epsilon=20"], "algorithm.epsilon: 20 is a ratio below 0; expected at most 1"),
        (["algorithm.per_kind.image.epsilon=0"], "algorithm.per_kind.image.epsilon: 0 clips every change away"),
        (
            ["algorithm.per_kind.image.epsilon_high=0.1"],
            "algorithm.per_kind.image.epsilon_high: 0.1 is below epsilon 0.2",
        ),
        (
            ["algorithm.epsilon=null", "algorithm.per_kind.image.epsilon_high=0.1"],
            "algorithm.per_kind.image.epsilon_high: is 0.1, but algorithm.epsilon null means never to clip",
        ),
        (
            ["algorithm.epsilon_high=0.28", "algorithm.per_kind.denoising.epsilon=1e-4"],
            "algorithm.per_kind.denoising.epsilon: is 0.0001, but its upper range is still algorithm.epsilon_high 0.28",
        ),
    ],
    "_reference": [
        (
            ["algorithm.sync_ref_model=true"],
            "algorithm.sync_ref_model: moves the reference of the KL, but algorithm.bet",
        ),
        (
            ["algorithm={sync_ref_model: true, beta: 0.1}", "policy.lora={}", "policy.train=[]"],
            "algorithm.sync_ref_model: mixes weights, but adapters train",
        ),
        (
            ["algorithm={sync_ref_model: true, beta: 0.1}", "policy.diffusion.lora={}", "policy.train=[]"],
            "algorithm.sync_ref_model: mixes weights, but adapters train",
        ),
    ],
    "_loss_type": [
        (["algorithm.loss_type=luspo"], "algorithm.importance_sampling_level: is token, but luspo is a loss of whole"),
        (
            ["algorithm.loss_type=vespo", "algorithm.importance_sampling_level=sequence"],
            "algorithm.importance_sampling_level: is sequence, but vespo makes the ratio of the sequence itself",
        ),
        (
            ["algorithm.loss_type=vespo", "algorithm.flow.guard=true"],
            "algorithm.flow.guard: normalises ratios, through",
        ),
        (["algorithm.loss_type=cispo"], "algorithm.epsilon_high: is null, but loss_type cispo caps the ratio itself"),
        (
            ["algorithm.loss_type=cispo", "algorithm.epsilon_high=0.28"],
            "algorithm.epsilon_high: is 0.28, but loss_type",
        ),
        (
            ["algorithm={loss_type: cispo, epsilon_high: 5.0}", "algorithm.per_kind.image.epsilon_high=0.2"],
            "algorithm.per_kind.image.epsilon_high: is 0.2, but loss_type cispo",
        ),
        (
            ["algorithm={loss_type: cispo, epsilon_high: 5.0}", "algorithm.per_kind.denoising.epsilon=1e-4"],
            "algorithm.per_kind.denoising.epsilon: has no effect under loss_type cispo",
        ),
        (
            ["algorithm.loss_type=sapo", "algorithm.per_kind.denoising.epsilon_high=1e-4"],
            "algorithm.per_kind.denoising.epsilon_high: has no effect under loss_type sapo",
        ),
    ],
    "_delta": [
        (["algorithm.delta=1.2"], "algorithm.delta: 1.2 lies inside the clip range, which ends at 1.2"),
        (["algorithm.delta=1.25", "algorithm.epsilon_high=0.28"], "algorithm.delta: 1.25 lies inside the clip range"),
        (["algorithm.epsilon=null", "algorithm.delta=4"], "algorithm.delta: is 4, but algorithm.epsilon null means"),
        (
            ["algorithm.per_kind.denoising={epsilon: 1e-4, epsilon_high: 1e-4, delta: 1.00005}"],
            "algorithm.per_kind.denoising.delta: 1.00005 lies inside the clip range, which ends at 1.0001",
        ),
    ],
    "_kl": [
        (
            ["algorithm.use_bias_correction_kl=true", "algorithm.kl_estimator=k2"],
            "algorithm.use_bias_correction_kl: weights the KL by the ratio, but k2",
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
    ["algorithm.loss_type=dr_grpo", "algorithm.scale_rewards=none"],
    ["algorithm.normalize_each=true"],
    ["algorithm.epsilon_high=0.2"],
    ["algorithm.epsilon_high=0.28"],
    ["algorithm.epsilon=1", "algorithm.epsilon_high=5"],
    ["algorithm.epsilon=null"],
    ["algorithm.epsilon=null", "algorithm.per_kind.image.epsilon=0.1"],
    ["algorithm.epsilon=null", "algorithm.per_kind.image={epsilon: 0.1, epsilon_high: 0.3}"],
    ["algorithm.epsilon_high=0.28", "algorithm.per_kind.denoising={epsilon: 1e-4, epsilon_high: 1e-4}"],
    ["algorithm.importance_sampling_level=sequence", "algorithm.epsilon=0.2"],
    ["algorithm={loss_type: luspo, importance_sampling_level: sequence, delta: 4.0}"],
    ["algorithm={loss_type: cispo, epsilon_high: 5.0}", "algorithm.per_kind.denoising.epsilon_high=1.001"],
    ["algorithm={loss_type: sapo, sapo_temperature_pos: 2.0, sapo_temperature_neg: 3.0}", "algorithm.flow.guard=true"],
    ["algorithm={loss_type: vespo, vespo_k_pos: 0.0, vespo_lambda_neg: 1.0}"],
    ["algorithm.delta=1.21"],
    ["algorithm={sync_ref_model: true, ref_model_sync_steps: 8, ref_model_mixup_alpha: 1.0, beta: 0.1}"],
    ["algorithm={sync_ref_model: true, per_kind: {image: {beta: 0.1}}}"],
    ["algorithm={scale_rewards: batch, population_std: true, advantage_clip: 5.0}"],
    ["algorithm.delta=4", "algorithm.per_kind.denoising={epsilon: 1e-4, delta: 1.001}"],
    ["algorithm.epsilon=null", "algorithm.per_kind.text={epsilon: 0.2, delta: 4.0}"],
    ["algorithm.use_bias_correction_kl=true", "algorithm.beta=0.1"],
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
        parse_recipe(MINIMAL, ["algorithm.num_minibatches=9", "policy.device=gpu", "algorithm.loss_type=dr_grpo"])
    assert str(caught.value).startswith("the recipe has 3 problems:\n")
