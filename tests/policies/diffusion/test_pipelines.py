"""Whole pipelines as policies: they draw what diffusers draws, replay what they sampled, and learn."""

import json
from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
import torch
from PIL import Image

from motet.config import AlgorithmConfig, LoraConfig, OptimizerConfig
from motet.core.conversation import Conversation, assistant, user
from motet.core.errors import CheckpointError, ConfigError, ContextError
from motet.core.protocols import Replay, Request, TrainablePolicy
from motet.core.trajectory import Sampling
from motet.policies.diffusion.models.packing import pack, unpack
from motet.policies.diffusion.pipeline import PipelinePolicy, open_pipeline
from motet.policies.diffusion.pipeline.prompts import encode_prompt, prompt_of, source_size
from motet.policies.generation.noise import KeyedNormal
from motet.training.batches import StepBatch
from motet.training.frozen_replays import replay_frozen
from motet.training.optimizer_step import PolicyOptimizer
from tests.losses import losses, supervised
from tests.policies.tiny_pipelines import FAMILIES, SIZES, build, write

diffusers = pytest.importorskip("diffusers")
STEPS = Sampling(num_steps=4, noise_level=0.7)
GUIDED = Sampling(num_steps=4, noise_level=0.7, guidance="guided", guidance_scale=3.0)
EDITORS = ("kontext", "klein")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


def opened(folder, family, **settings):
    height, width = SIZES[family]
    return open_pipeline(folder, height=height, width=width, **settings)


@pytest.fixture
def policy(family, folders):
    return opened(folders[family], family)


def image(seed, width, height):
    levels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def requests(*contexts, siblings=1, **fields):
    made = [user(c) if isinstance(c, str) else c for c in contexts]
    return [
        Request("denoising", "image", context, (7, n, g), **fields)
        for n, context in enumerate(made)
        for g in range(siblings)
    ]


def moved_away(policy, amount=0.02):
    """Give the transformer other weights than the checkpoint's."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return policy


# --- drawing


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_draws_what_the_pipeline_draws(family, folders, policy, scale):
    """From text on: the same prompt, negative prompt and noise through diffusers' own call."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folders[family])
    pipeline.set_progress_bar_config(disable=True)
    if family == "sana":  # the flow schedule of its flow_shift, for both
        pipeline.scheduler = policy.denoiser.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    height, width = SIZES[family]
    guidance = {"guidance": "guided", "guidance_scale": scale} if scale > 1 else {}
    (act,) = policy.act(requests("a red cube on a mat"), Sampling(num_steps=4, noise_level=0.0, **guidance))
    noise = KeyedNormal([(7, 0, 0)], policy.shape).next()
    assert torch.equal(act.states[0], noise[0]) and act.stochastic == (False,) * 4 and act.num_actions == 0
    asked = {"prompt": "a red cube on a mat", "height": height, "width": width, "num_inference_steps": 4}
    asked["latents"] = pack(noise) if family in ("flux", "kontext", "qwen") else noise
    if family in ("flux", "kontext", "qwen"):
        asked |= {"true_cfg_scale": scale, "negative_prompt": "" if scale > 1 else None}
    else:
        asked["guidance_scale"] = scale
    asked |= {"sana": {"use_resolution_binning": False}, "kontext": {"max_area": height * width}}.get(family, {})
    wanted = pipeline(**asked).images[0]
    assert act.image.size == wanted.size == (width, height)
    assert np.abs(np.asarray(act.image, int) - np.asarray(wanted, int)).max() <= 1
    if family not in ("klein", "sd3", "sana"):
        latents = pipeline(**asked | {"output_type": "latent"}).images
        torch.testing.assert_close(act.states[-1:], unpack(latents, noise.shape), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", EDITORS)
def test_it_edits_what_the_pipeline_edits(folders, family):
    size = (16, 24) if family == "kontext" else (64, 96)
    policy = open_pipeline(folders[family], height=size[0], width=size[1])
    source = image(3, size[1], size[0])
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folders[family])
    pipeline.set_progress_bar_config(disable=True)
    sampling = Sampling(num_steps=4, noise_level=0.0, guidance="guided", guidance_scale=2.0)
    (act,) = policy.act(requests(user(source, "make it blue")), sampling)
    noise = KeyedNormal([(7, 0, 0)], policy.shape).next()
    asked = {"image": source, "prompt": "make it blue", "height": size[0], "width": size[1], "num_inference_steps": 4}
    if family == "kontext":
        asked |= {"true_cfg_scale": 2.0, "negative_prompt": "", "max_area": size[0] * size[1], "_auto_resize": False}
        asked["latents"] = pack(noise)
    else:
        asked |= {"guidance_scale": 2.0, "latents": noise}
    wanted = pipeline(**asked).images[0]
    assert np.abs(np.asarray(act.image, int) - np.asarray(wanted, int)).max() <= 1
    assert len(act.encoding.image_cond.sources) == 1 and act.encoding.null.sources == ()


def test_prompts_are_encoded_once(family, policy, monkeypatch):
    seen = []
    original = type(policy.pipeline).encode_prompt

    @wraps(original)
    def counted(self, *given, **options):
        seen.append(options["prompt"])
        return original(self, *given, **options)

    monkeypatch.setattr(type(policy.pipeline), "encode_prompt", counted)
    acts = policy.act(requests("a cube", "a cone", user("a cube"), siblings=3), GUIDED)
    assert sorted(seen) == ["", "a cone", "a cube"]
    assert len({id(act.encoding) for act in acts}) == 3 and acts[0].encoding.null is acts[8].encoding.null
    policy.replay(acts)
    assert len(seen) == 3  # replay runs no text encoder
    policy.act(requests("a cube"), STEPS)
    assert len(seen) == 4  # without guidance, no null prompt


def test_the_prompt_is_the_last_user_turn():
    shown = image(1, 8, 8)
    context = user("first") + assistant(shown) + user(shown, "then", "second") + assistant("a thought")
    assert prompt_of(context) == "then second"
    for empty in (Conversation(), assistant("words"), user(shown), user("  ")):
        with pytest.raises(ContextError, match="no user turn"):
            prompt_of(empty)


def test_sources_keep_their_proportions():
    assert source_size(image(1, 48, 32), 16, 24, 4) == (16, 24)
    assert source_size(image(1, 40, 40), 16, 24, 4) == (20, 20)
    assert source_size(image(1, 400, 4), 16, 16, 4)[0] == 4


# --- replay


def test_guidance_changes_what_is_scored(policy):
    (act,) = policy.act(requests("a cube"), GUIDED)
    plain = replace(act, sampling=replace(act.sampling, guidance="none"))
    (other,) = policy.replay([plain])
    assert (other.log_probs - act.log_probs).abs().max() > 1e-3
    drawing, prompt, null = (
        policy.denoiser.tokens(policy.shape),
        *(len(one.embeddings) for one in (act.encoding.conditional, act.encoding.null)),
    )
    assert policy.num_tokens(plain) == 3 * (drawing + prompt) and policy.num_tokens(act) == 3 * (
        2 * drawing + prompt + null
    )


@pytest.mark.parametrize("sampling", [STEPS, GUIDED], ids=["plain", "guided"])
def test_one_optimizer_step(family, policy, sampling):
    assert isinstance(policy, TrainablePolicy)
    policy.train_parts(["transformer"])
    policy.freeze_reference()
    acts = policy.act(requests("a cube", "a longer prompt", siblings=2), sampling)
    with policy.reference():
        reference = replay_frozen(policy, acts, 10**9, ("mean", "std"))
    config = AlgorithmConfig(scale_rewards="none", beta=0.01)
    batch = StepBatch(acts, [1.0, -1.0, 0.5, -0.5], [Replay(a.log_probs) for a in acts], reference)
    num_tokens = max(policy.num_tokens(act) for act in acts)
    before = {name: p.detach().clone() for name, p in policy.trainable().items()}
    frozen = {name: p.detach().clone() for name, p in policy.pipeline.vae.named_parameters()}
    stats = PolicyOptimizer(
        policy, OptimizerConfig(learning_rate=1e-3, max_tokens_per_microbatch=2 * num_tokens), 1
    ).step(batch, losses(config))
    assert stats["denoising/ratio_max"] == pytest.approx(1.0, abs=2e-5) and stats["denoising/kl"] == pytest.approx(0)
    assert policy.version == 1 and stats["grad_norm"] > 0
    changed = [name for name, p in policy.trainable().items() if not torch.equal(p, before[name])]
    assert len(changed) > len(before) / 2 and all(name.startswith("transformer.") for name in before)
    assert all(torch.equal(p, frozen[name]) for name, p in policy.pipeline.vae.named_parameters())
    with policy.reference():
        old = policy.replay(acts)
    new = policy.replay(acts)
    for act, was, now in zip(acts, old, new, strict=True):
        torch.testing.assert_close(was.log_probs, act.log_probs, rtol=0, atol=1e-5)
        assert not was.log_probs.requires_grad and not torch.allclose(now.log_probs, act.log_probs, atol=1e-5)


def test_demonstrations(family, policy):
    height, width = SIZES[family]
    policy.train_parts(["transformer"])
    shown = [image(1, width, height), image(2, 2 * width, height)]
    asked = [*requests("a cube"), *requests("a cone", drop_prompt=True)]
    acts = policy.encode_targets(asked, shown)
    assert [act.num_actions for act in acts] == [1, 1] and all(act.log_probs is None for act in acts)
    (clean,) = policy.denoiser.encode(shown[:1], height, width)
    torch.testing.assert_close(acts[0].states[1], clean)
    sigma = acts[0].times[0]
    noise = (acts[0].states[0] - (1 - sigma) * clean) / sigma
    velocity = policy.denoiser.velocity(acts[0].states[:1], acts[0].times[:1], [acts[0].encoding.conditional])[0]
    replays = policy.replay(acts)
    torch.testing.assert_close(
        replays[0].log_probs, -(velocity - (noise - clean)).square().mean()[None], rtol=1e-4, atol=1e-5
    )
    empty = encode_prompt(policy.pipeline, "", null=True)
    assert torch.equal(acts[1].encoding.conditional.embeddings, empty.embeddings)
    learner = PolicyOptimizer(policy, OptimizerConfig(learning_rate=1e-3), 3)
    curve = [learner.step(*supervised(acts))["loss"] for _ in range(3)]
    assert curve[2] < curve[0]
    assert policy.encode_targets([], []) == []


# --- LoRA


def test_adapters_train_alone_and_are_their_own_reference(family, folders, policy, tmp_path):
    base = {name: value.clone() for name, value in policy.denoiser.transformer.state_dict().items()}
    policy.add_lora(LoraConfig(rank=2, alpha=6.0))
    assert policy.trainable() and all(".lora_" in name for name in policy.trainable())
    policy.freeze_reference()
    acts = policy.act(requests("a cube"), STEPS)
    config = AlgorithmConfig(scale_rewards="none")
    batch = StepBatch(acts, [1.0], [Replay(a.log_probs) for a in acts])
    PolicyOptimizer(policy, OptimizerConfig(learning_rate=1e-2), 1).step(batch, losses(config))
    moved_away(policy, 0.1)
    (now,) = policy.replay(acts)
    with policy.reference():
        (was,) = policy.replay(acts)
    torch.testing.assert_close(was.log_probs, acts[0].log_probs, rtol=0, atol=1e-5)
    assert not torch.allclose(now.log_probs, acts[0].log_probs, atol=1e-4)
    assert all(p.requires_grad for p in policy.trainable().values()) and policy.trainable()

    policy.save(tmp_path)  # merged, and the adapters by themselves
    again = opened(tmp_path, family)
    torch.testing.assert_close(again.replay(acts)[0].log_probs, now.log_probs.detach(), rtol=0, atol=1e-5)
    assert set(again.denoiser.transformer.state_dict()) == set(base)
    plain = diffusers.DiffusionPipeline.from_pretrained(folders[family])
    plain.load_lora_weights(tmp_path / "lora", weight_name="pytorch_lora_weights.safetensors")
    onto_base = PipelinePolicy(plain, height=SIZES[family][0], width=SIZES[family][1])
    torch.testing.assert_close(onto_base.replay(acts)[0].log_probs, now.log_probs.detach(), rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match=r"names 'transformer', which cannot train beside .* policy.diffusion.lora"):
        policy.train_parts(["transformer"])


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("no_such_layer",), "no linear layer is called 'no_such_layer'"),
        (("to_q", "to_w"), r"is called 'to_w'\. Did you mean 'to_"),
        (("to_q", "to_out"), r"is called 'to_out'\. Did you mean 'to_out\.0'"),  # a list of layers, in diffusers
    ],
)
def test_every_target_names_a_layer(folders, targets, said):
    policy = opened(folders["sd3"], "sd3")
    with pytest.raises(ConfigError, match=said) as caught:
        policy.add_lora(LoraConfig(target_modules=targets))
    assert "policy.diffusion.lora.target_modules=" in str(caught.value)
    assert not policy.has_lora
    policy.add_lora(LoraConfig(target_modules=("to_q", "to_out.0")))
    assert {name.split(".lora_")[0].rpartition(".attn.")[2] for name in policy.trainable()} >= {"to_q", "to_out.0"}


# --- saving and loading


@pytest.mark.parametrize("from_memory", [False, True])
def test_what_is_saved_is_a_pipeline(family, folders, policy, tmp_path, from_memory):
    policy.train_parts(["transformer"])
    moved_away(policy)
    if from_memory:
        policy.folder = None
    policy.save(tmp_path)
    loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded) is type(policy.pipeline)
    for name, part in policy.pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            stored = getattr(loaded, name).state_dict()
            assert all(torch.equal(stored[key], value) for key, value in part.state_dict().items()), name
    if not from_memory:
        for file in folders[family].rglob("*"):
            if file.is_file() and "transformer" not in file.parts:
                assert (tmp_path / file.relative_to(folders[family])).read_bytes() == file.read_bytes()
    again = opened(tmp_path, family)
    acts = [one.act(requests("a cube"), GUIDED)[0] for one in (policy, again)]
    assert torch.equal(acts[0].states, acts[1].states)
    again.save(tmp_path)  # onto itself
    assert opened(tmp_path, family)


def test_sana_learns_to_edit(folders, tmp_path):
    policy = opened(folders["sana"], "sana", source_adapter=True)
    policy.train_parts(["source_adapter"])
    height, width = SIZES["sana"]
    asked = requests(user(image(1, 100, 30), "make it blue"))
    acts = policy.act(asked, GUIDED)
    assert acts[0].encoding.conditional.sources[0].shape == policy.shape
    torch.testing.assert_close(policy.replay(acts)[0].log_probs, acts[0].log_probs, rtol=0, atol=1e-5)
    learner = PolicyOptimizer(policy, OptimizerConfig(learning_rate=1e-2), 1)
    learner.step(*supervised(policy.encode_targets(asked, [image(2, width, height)])))
    assert policy.denoiser.source_adapter.project.weight.abs().max() > 0
    policy.save(tmp_path)
    again = opened(tmp_path, "sana")
    assert torch.equal(again.replay(acts)[0].log_probs, policy.replay(acts)[0].log_probs)
    assert diffusers.SanaPipeline.from_pretrained(tmp_path)


def test_bfloat16_computes_and_float32_learns(tmp_path):
    pipeline = build("sd3").to(torch.bfloat16)
    pipeline.text_encoder_2.float()
    pipeline.save_pretrained(tmp_path)
    policy = opened(tmp_path, "sd3", dtype="auto", autocast=torch.bfloat16)
    types = {name: part.dtype for name, part in policy.pipeline.components.items() if hasattr(part, "dtype")}
    assert types.pop("text_encoder_2") == torch.float32 and len(types) == 4 and set(types.values()) == {torch.bfloat16}
    policy.train_parts(["transformer"])
    acts = policy.act(requests("a cube"), STEPS)
    assert acts[0].states.dtype == torch.float32 and acts[0].encoding.conditional.embeddings.dtype == torch.bfloat16
    (replayed,) = policy.replay(acts)
    assert replayed.log_probs.dtype == torch.float32
    torch.testing.assert_close(replayed.log_probs, acts[0].log_probs, rtol=0, atol=1e-3)
    assert {p.dtype for p in policy.trainable().values()} == {torch.float32}


def test_what_is_frozen_computes_in_its_own_type(folders, monkeypatch):
    """Autocast is the transformer's: it would take digits from the text encoders and from the picture."""
    policy, seen = opened(folders["sd3"], "sd3", autocast=torch.bfloat16), {}
    for owner, name in [(policy.denoiser, part) for part in ("encode", "decode", "velocity")] + [
        (policy.pipeline, "encode_prompt")
    ]:
        original = getattr(owner, name)

        @wraps(original)
        def watched(*given, original=original, name=name, **options):
            seen.setdefault(name, set()).add(torch.is_autocast_enabled("cpu"))
            return original(*given, **options)

        monkeypatch.setattr(owner, name, watched)
    policy.replay(policy.act(requests("a cube"), GUIDED))
    policy.encode_targets(requests("a cone"), [image(1, 24, 16)])
    assert seen == {"encode": {False}, "decode": {False}, "encode_prompt": {False}, "velocity": {True}}


def test_recomputed_activations_change_no_gradient(family, policy):
    policy.train_parts(["transformer"])
    acts = policy.act(requests("a cube"), STEPS)

    def gradients():
        for p in policy.trainable().values():
            p.grad = None
        policy.replay(acts)[0].log_probs.sum().backward()
        return {n: p.grad.clone() for n, p in policy.trainable().items() if p.grad is not None}

    kept = gradients()
    policy.enable_gradient_checkpointing()
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, kept[name], rtol=1e-4, atol=1e-6)


# --- errors


def test_sizes_default_to_the_checkpoints_own(folders):
    policy = open_pipeline(folders["sd3"])
    assert (policy.height, policy.width) == (16, 16) and policy.shape == (4, 8, 8)
    with pytest.raises(ConfigError, match="height=18"):
        open_pipeline(folders["sd3"], height=18)


def test_other_pipelines_are_refused(folders, tmp_path):
    folder = write("sd3", tmp_path / "sd3")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "KolorsPipeline"}))
    with pytest.raises(CheckpointError, match=r"KolorsPipeline.*StableDiffusion3Pipeline, SanaPipeline"):
        open_pipeline(folder)
    with pytest.raises(CheckpointError, match="is a None"):
        open_pipeline(tmp_path)
    (folder / "model_index.json").write_text(json.dumps(index))
    for file in (folder / "text_encoder").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        open_pipeline(folder)


def test_what_a_pipeline_cannot_do_is_said(folders):
    policy = opened(folders["sd3"], "sd3")
    with pytest.raises(ConfigError, match="SD3Transformer2DModel does not edit images"):
        policy.act(requests(user(image(1, 16, 16), "bluer")), STEPS)
    with pytest.raises(ConfigError, match=r"part 'language_model'.*transformer"):
        policy.train_parts(["language_model"])
    with pytest.raises(RuntimeError, match="freeze_reference"), policy.reference():
        pass
    assert policy.act([], STEPS) == [] and policy.replay([]) == []
    klein = opened(folders["klein"], "klein")
    klein.pipeline.register_to_config(is_distilled=True)
    with pytest.raises(ConfigError, match="distilled"):
        klein.act(requests("a cube"), GUIDED)
    assert klein.act(requests("a cube"), STEPS)


def test_a_folder_that_cannot_be_written_is_named(folders, tmp_path):
    policy = opened(folders["sd3"], "sd3")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        policy.save(tmp_path / "file")
