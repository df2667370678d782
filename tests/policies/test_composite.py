"""Two experts side by side, pipelines alone, and what `load_policy` makes of folders and settings."""

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from transformers import Qwen2_5_VLForConditionalGeneration

import motet
from motet.config import AlgorithmConfig, DiffusionConfig, LoraConfig, OptimizerConfig, PolicyConfig, parse_recipe
from motet.core.conversation import user
from motet.core.errors import ConfigError
from motet.core.protocols import Request, TrainablePolicy
from motet.core.task import Task
from motet.core.trajectory import ActWithAdvantage, Sampling
from motet.policies.composite import LanguageModelPlusPipeline
from motet.policies.diffusion.pipeline.policy import PipelinePolicy
from motet.scenarios import resolve_scenario
from motet.training.batches import StepBatch
from motet.training.optimizer_step import PolicyOptimizer
from motet.training.policy_update import update
from motet.training.rollout import rollout
from tests.losses import losses
from tests.policies.tiny_pipelines import SIZES, build, write
from tests.policies.vlms import save_tiny

STEPS = Sampling(num_steps=3)
HEIGHT, WIDTH = SIZES["sd3"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("experts")
    return save_tiny(base / "writer", "qwen2_5_vl"), write("sd3", base / "pipeline")


def opened(folders, train=("language_model", "transformer"), lora=None, **diffusion):
    writer, pipeline = folders
    settings = DiffusionConfig(path=str(pipeline), size=(HEIGHT, WIDTH), **diffusion)
    return motet.load_policy(writer, PolicyConfig(path=str(writer), diffusion=settings, train=train, lora=lora))


def asked(kind, count=2):
    context = user("a blue star")
    return [Request(kind, "act", context, (1, n)) for n in range(count)]


def test_a_writer_beside_a_pipeline(folders):
    policy = opened(folders)
    assert isinstance(policy, LanguageModelPlusPipeline) and isinstance(policy, TrainablePolicy)
    assert policy.kinds == {"text", "denoising"} and {"language_model", "transformer"} <= set(policy.parts)
    acts = [*policy.act(asked("denoising"), STEPS), *policy.act(asked("text"), Sampling(max_tokens=4))]
    assert acts[0].image.size == (WIDTH, HEIGHT)
    for act, replay in zip(acts, policy.replay(acts), strict=True):
        torch.testing.assert_close(replay.log_probs, act.log_probs, rtol=0, atol=2e-5)


def test_partial_refinement_in_one_rollout_and_one_step(folders):
    """PromptRL: the first `keep` siblings draw the prompt as it is; the others rewrite it first."""
    policy = opened(folders)
    policy.freeze_reference()
    refine = resolve_scenario("refine_prompt").with_options({"keep": 1})
    samplings = {"text": Sampling(max_tokens=4), "denoising": STEPS}
    (group,) = rollout(policy, refine, [Task(0, {"prompt": "a blue star"})], 3, samplings=samplings, seed=0, step=0)
    assert [[act.kind for act in t.acts] for t in group.trajectories] == [["denoising"], *[["text", "denoising"]] * 2]
    acts = [act for trajectory in group.trajectories for act in trajectory.acts]
    config = AlgorithmConfig(scale_rewards="none", beta=0.01)
    with policy.reference():
        reference = policy.replay(acts, ("mean", "std"))
    batch = StepBatch(acts, [1.0, -1.0, 0.5, 1.0, -0.5], None, reference)
    rates = OptimizerConfig(learning_rate=1e-3, param_group_lrs={"transformer": 1e-4})
    before = {name: p.detach().clone() for name, p in policy.trainable().items()}
    stats = PolicyOptimizer(policy, rates, 1).step(batch, losses(config))
    assert stats["text/kl"] == pytest.approx(0, abs=1e-6) and stats["denoising/kl"] == pytest.approx(0, abs=1e-6)
    moved = {name.split(".")[0] for name, p in policy.trainable().items() if bool((p != before[name]).any())}
    assert moved == {"model", "transformer"}


@pytest.mark.parametrize(
    ("train", "keep", "paid"),
    [(("transformer",), 0, ()), (("transformer",), 0, "text"), (("lm_head",), 2, "denoising")],
)
def test_steps_in_which_the_training_expert_has_no_advantage(folders, train, keep, paid):
    """Without variance, or where an act of the frozen expert alone varies, a run goes on."""
    policy = opened(folders, train)
    refine = resolve_scenario("refine_prompt").with_options({"keep": keep})
    samplings = {"text": Sampling(max_tokens=4), "denoising": STEPS}
    groups = rollout(policy, refine, [Task(0, {"prompt": "a blue star"})], 3, samplings=samplings, seed=0, step=0)
    acts = [act for group in groups for trajectory in group.trajectories for act in trajectory.acts]
    credited = [ActWithAdvantage(act, (-1.0) ** n if act.kind == paid else 0.0) for n, act in enumerate(acts)]
    recipe = parse_recipe({"policy": {"path": "x"}, "run": {"steps": 1}})
    learner = PolicyOptimizer(policy, recipe.optimizer, 1)
    assert update(policy, learner, groups, credited, recipe, 0)["grad_norm"] == 0
    assert learner.num_steps == 1 and all(learner.adamw.state[p] for p in learner.parameters)  # momentum moved on


@pytest.mark.parametrize(("train", "kinds"), [(("language_model",), {"model"}), (("transformer",), {"transformer"})])
def test_one_expert_trains_alone(folders, train, kinds):
    assert {name.split(".")[0] for name in opened(folders, train).trainable()} == kinds


def test_adapters_on_either_expert(folders, tmp_path):
    pytest.importorskip("peft")
    small = LoraConfig(rank=2, alpha=4.0)
    by_default = PolicyConfig.model_fields["train"].default
    for train, on_writer, on_drawer, expected in [
        (by_default, small, None, {"writer lora"}),
        (by_default, small, small, {"writer lora", "drawer lora"}),
        (by_default, None, small, {"writer", "drawer lora"}),
        (("lm_head",), None, small, {"writer", "drawer lora"}),
        (("transformer",), small, None, {"writer lora", "drawer"}),
        ((), None, small, {"drawer lora"}),
    ]:
        policy = motet.load_policy(
            folders[0],
            PolicyConfig(
                path=str(folders[0]),
                train=train,
                lora=on_writer,
                diffusion=DiffusionConfig(path=str(folders[1]), size=(HEIGHT, WIDTH), lora=on_drawer),
            ),
        )
        found = {
            ("drawer" if name.startswith("transformer") else "writer") + (" lora" if ".lora_" in name else "")
            for name in policy.trainable()
        }
        assert found == expected
    with pytest.raises(ConfigError, match=r"names 'transformer', which cannot train beside .* policy.diffusion.lora"):
        settings = DiffusionConfig(path=str(folders[1]), lora=small)
        motet.load_policy(folders[0], PolicyConfig(path=str(folders[0]), train=("transformer",), diffusion=settings))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
def test_under_autocast_what_is_frozen_stays_as_stored(folders, tmp_path, stored):
    """Adapters alone train: a 12 B transformer and its text encoders are never held in float32."""
    pytest.importorskip("peft")
    pipeline = build("sd3").to(stored)
    pipeline.save_pretrained(tmp_path / "pipeline")
    settings = DiffusionConfig(path=str(tmp_path / "pipeline"), size=(HEIGHT, WIDTH), lora=LoraConfig(rank=2))
    config = PolicyConfig(path=str(folders[0]), diffusion=settings, dtype="bfloat16")
    policy = motet.load_policy(folders[0], config)
    frozen = {p.dtype for part in policy.image_policy.pipeline.components.values() if isinstance(part, torch.nn.Module)
              for p in part.parameters() if not p.requires_grad}  # fmt: skip
    assert frozen == {stored} and {p.dtype for p in policy.trainable().values()} == {torch.float32}
    with torch.no_grad():
        for name, parameter in policy.trainable().items():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    acts = policy.act(asked("denoising"), STEPS)
    replays = policy.replay(acts)
    for act, replay in zip(acts, replays, strict=True):
        torch.testing.assert_close(replay.log_probs, act.log_probs, rtol=0, atol=1e-3)
    sum(replay.log_probs.sum() for replay in replays).backward()
    assert any(
        p.grad is not None and bool(p.grad.any()) for name, p in policy.trainable().items() if ".lora_B." in name
    )
    saved = tmp_path / "pair"
    policy.save(saved)
    again = motet.load_policy(saved, PolicyConfig(path=str(saved), dtype="bfloat16"))
    assert {p.dtype for p in again.image_policy.denoiser.transformer.parameters()} == {stored}


def test_a_saved_pair_loads_as_one_and_in_both_libraries(folders, tmp_path):
    policy = opened(folders)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.01)
    policy.save(tmp_path / "pair")
    again = motet.load_policy(
        tmp_path / "pair",
        PolicyConfig(
            path=str(tmp_path / "pair"),
            train=("transformer",),
            diffusion=DiffusionConfig(size=(HEIGHT, WIDTH)),
        ),
    )
    assert isinstance(again, LanguageModelPlusPipeline)
    for one, other in zip(*(p.act(asked("denoising"), STEPS) for p in (policy, again)), strict=True):
        torch.testing.assert_close(one.states, other.states, rtol=0, atol=1e-5)
    theirs = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "pair" / "language_model")
    assert torch.equal(theirs.lm_head.weight, policy.text_policy.model.lm_head.weight)
    StableDiffusion3Pipeline.from_pretrained(tmp_path / "pair" / "pipeline")


def test_a_saved_pair_with_an_adapted_writer_loads(folders, tmp_path):
    pytest.importorskip("peft")
    policy = opened(folders, train=(), lora=LoraConfig(rank=2, alpha=4.0))
    assert policy.trainable() and all(".lora_" in name for name in policy.trainable())
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.05)
    policy.save(tmp_path / "pair")
    again = motet.load_policy(tmp_path / "pair", PolicyConfig(path=str(tmp_path / "pair"), lora=LoraConfig(rank=2)))
    assert set(again.trainable()) == set(policy.trainable())
    for one, other in zip(*(p.act(asked("text"), Sampling(max_tokens=4)) for p in (policy, again)), strict=True):
        torch.testing.assert_close(one.log_probs, other.log_probs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("expert", "words"),
    [
        ({"path": "somewhere"}, r"policy.diffusion.path='somewhere': a 'diffusers' model takes no pipeline beside it"),
        ({"size": (16, 16)}, r"policy.diffusion: a 'qwen2_5_vl' model alone has no diffusion transformer"),
    ],
)
def test_settings_of_a_pipeline_without_a_place_are_refused(folders, expert, words):
    path = str(folders["path" in expert])
    with pytest.raises(ConfigError, match=words):
        motet.load_policy(path, PolicyConfig(path=path, train=(), diffusion=DiffusionConfig(**expert)))


def test_a_pipeline_alone_has_its_own_adapter(folders):
    pytest.importorskip("peft")
    path, expert = str(folders[1]), DiffusionConfig(size=(HEIGHT, WIDTH), lora=LoraConfig(rank=2))
    policy = motet.load_policy(path, PolicyConfig(path=path, diffusion=expert))
    assert policy.trainable() and all(".lora_" in name for name in policy.trainable())
    with pytest.raises(ConfigError, match=r"policy.lora: a 'diffusers' model has no language model"):
        motet.load_policy(path, PolicyConfig(path=path, lora=LoraConfig(rank=2)))


def test_a_pipeline_alone(folders):
    pipeline = folders[1]
    settings = PolicyConfig(path=str(pipeline), train=("transformer",), diffusion=DiffusionConfig(size=(HEIGHT, WIDTH)))
    policy = motet.load_policy(pipeline, settings)
    assert isinstance(policy, PipelinePolicy) and policy.kinds == {"denoising"}
    assert {name.split(".")[0] for name in policy.trainable()} == {"transformer"}
    drawn = policy.generate_images(["a blue star", "three"], num_steps=2)  # the notebook's door
    assert [act.image.size for act in drawn] == [(WIDTH, HEIGHT)] * 2
    assert [len(found) for found in policy.log_probs(drawn)] == [0, 0]


def test_a_language_model_alone(folders):
    policy = motet.load_policy(folders[0])
    assert policy.kinds == {"text"} and policy.generate_text("what colour is it?", max_tokens=3)[0].kind == "text"
