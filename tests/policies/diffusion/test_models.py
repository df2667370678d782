"""Diffusers' own denoising loops are the judge: same noise, same latents, same pictures, whatever the class."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from motet.core.errors import CheckpointError, ConfigError
from motet.core.trajectory import Sampling
from motet.numerics.flow.schedules import linear_sigmas, scheduler_sigmas
from motet.policies.diffusion import guidance_branches, sample_latents
from motet.policies.diffusion.models import Condition, open_denoiser
from motet.policies.diffusion.models.packing import pack, unpack
from motet.policies.diffusion.models.source_adapter import ADAPTER_FILE, encode_source
from motet.policies.generation.noise import KeyedNormal
from motet.weights.safetensors_io import save_tensors
from tests.policies.tiny_pipelines import FAMILIES, SIZES, qwen_edit, write

diffusers = pytest.importorskip("diffusers")
KEY = (1, 2, 3)
STEPS = 4
EDITORS = ("kontext", "klein")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def denoiser(family, folders):
    return open_denoiser(folders[family])


def condition_for(denoiser, seed, length=5, sources=(), mask=None):
    generator = torch.Generator().manual_seed(seed)
    width = denoiser.pooled_width
    return Condition(
        torch.randn(length, denoiser.condition_width, generator=generator),
        mask,
        None if width is None else torch.randn(width, generator=generator),
        tuple(sources),
    )


def image(seed, width, height):
    levels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def embedded(family, condition, null):
    """Conditions as the family's pipeline takes them."""
    given = {}
    for prefix, one in (("", condition), ("negative_", null)):
        if one is None:
            continue
        given[f"{prefix}prompt_embeds"] = one.embeddings[None]
        if one.pooled is not None:
            given[f"{prefix}pooled_prompt_embeds"] = one.pooled[None]
        if family == "sana":
            given[f"{prefix}prompt_attention_mask"] = torch.ones(1, len(one.embeddings))
        if family == "qwen":
            given[f"{prefix}prompt_embeds_mask"] = torch.ones(1, len(one.embeddings), dtype=torch.long)
    return given


def theirs(family, pipeline, noise, condition, null=None, scale=1.0, **more):
    """What the pipeline's own loop makes of the noise: latents shaped as ours, and the picture."""
    height, width = SIZES[family]
    wanted = {"height": height, "width": width, "num_inference_steps": STEPS, "return_dict": False}
    wanted |= embedded(family, condition, null) | more
    if family in ("sd3", "sana", "klein"):
        wanted["guidance_scale"] = scale
    else:
        wanted["true_cfg_scale"] = scale
    if family == "sana":
        wanted |= {"use_resolution_binning": False, "prompt": None, "negative_prompt": None}
    if family == "kontext":
        wanted |= {"max_area": height * width, "_auto_resize": False}
    start = pack(noise) if family in ("flux", "kontext", "qwen") else noise
    latents, images = (pipeline(latents=start.clone(), output_type=kind, **wanted)[0] for kind in ("latent", "pil"))
    return (unpack(latents, noise.shape) if start is not noise else latents), images[0]


def flow_scheduled(pipeline, family):
    """SANA's own pipeline with an Euler scheduler of its flow_shift, as its own solver is another."""
    if family == "sana":
        pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return pipeline


def painted(denoiser, size, conditions, sampling, keys=(KEY,)):
    shape = denoiser.latent_shape(*size)
    times = denoiser.schedule(sampling.num_steps, shape)
    return sample_latents(denoiser.velocity, conditions, keys, shape, times, sampling)


def close_images(one, other):
    return np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1


# --- parity with diffusers' own loops


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_ode_is_the_pipelines(family, folders, scale):
    pipeline = flow_scheduled(diffusers.DiffusionPipeline.from_pretrained(folders[family]), family)
    pipeline.set_progress_bar_config(disable=True)
    denoiser = open_denoiser(folders[family])
    denoiser.scheduler = pipeline.scheduler
    condition, null = (condition_for(denoiser, seed) for seed in (1, 2))
    noise = KeyedNormal([KEY], denoiser.latent_shape(*SIZES[family])).next()
    latents, image = theirs(family, pipeline, noise, condition, null if scale > 1 else None, scale)
    guidance = "guided" if scale > 1 else "none"
    sampling = Sampling(num_steps=STEPS, noise_level=0.0, guidance=guidance, guidance_scale=scale)
    branches = guidance_branches(sampling, condition, null, rescale=denoiser.rescale)
    mine = painted(denoiser, SIZES[family], [branches], sampling)
    assert mine.stochastic == (False,) * STEPS and mine.log_probs.shape == (1, 0)
    if family == "klein":  # its pipeline hands out latents of the autoencoder, not of the transformer
        torch.testing.assert_close(
            denoiser._to_pixels(mine.clean), pipeline.vae.decode(latents)[0], rtol=1e-4, atol=1e-4
        )
    else:
        torch.testing.assert_close(mine.clean, latents, rtol=3e-4, atol=3e-4)
    assert close_images(denoiser.decode(mine.clean)[0], image)
    greedy = Sampling(num_steps=STEPS, temperature=0.0, guidance=guidance, guidance_scale=scale)
    torch.testing.assert_close(painted(denoiser, SIZES[family], [branches], greedy).clean, mine.clean)


@pytest.mark.parametrize("family", EDITORS)
def test_an_edit_is_the_pipelines(folders, family):
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folders[family])
    pipeline.set_progress_bar_config(disable=True)
    size = SIZES[family] if family == "kontext" else (64, 96)
    denoiser = open_denoiser(folders[family])
    source = image(1, size[1], size[0])
    (latent,) = denoiser.encode([source], *size)
    condition = condition_for(denoiser, 1, sources=[latent])
    noise = KeyedNormal([KEY], denoiser.latent_shape(*size)).next()
    _, wanted = theirs(family, pipeline, noise, condition, image=source, height=size[0], width=size[1])
    sampling = Sampling(num_steps=STEPS, noise_level=0.0)
    mine = painted(denoiser, size, [guidance_branches(sampling, condition)], sampling)
    unedited = painted(denoiser, size, [guidance_branches(sampling, condition_for(denoiser, 1))], sampling)
    assert close_images(denoiser.decode(mine.clean)[0], wanted)
    assert (mine.clean - unedited.clean).abs().max() > 1e-2


def test_qwen_image_edit_takes_sources_as_its_pipeline_does():
    """Its processor cannot be constructed without torchvision, so embeddings are given and latents are compared."""
    torch.manual_seed(0)
    pipeline = qwen_edit()
    denoiser = type(open_denoiser_of(pipeline))(pipeline.transformer, pipeline.vae, pipeline.scheduler, edits=True)
    size = (16, 24)
    shape = denoiser.latent_shape(*size)
    sources = [torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    condition = condition_for(denoiser, 1, sources=sources)
    x, sigma = KeyedNormal([KEY], shape).next(), torch.tensor([0.7])
    mine = denoiser.velocity(x, sigma, [condition])
    tokens = torch.cat([pack(one) for one in (x, *(source[None] for source in sources))], dim=1)
    wanted = pipeline.transformer(
        hidden_states=tokens, timestep=sigma, encoder_hidden_states=condition.embeddings[None],
        img_shapes=[[(1, 4, 6)] * 3], return_dict=False,
    )[0]  # fmt: skip
    torch.testing.assert_close(mine, unpack(wanted, x.shape))


def open_denoiser_of(pipeline):
    from motet.policies.diffusion.models import build_denoiser

    return build_denoiser(pipeline.transformer, pipeline.vae, pipeline.scheduler, edits=True)


def test_latents_are_scaled_as_the_pipelines_scale_them(family, folders, denoiser):
    height, width = SIZES[family]
    shown = [image(1, width, height), image(2, width, height)]
    latents = denoiser.encode(shown, height, width)
    assert latents.shape == (2, *denoiser.latent_shape(height, width)) and latents.dtype == torch.float32
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folders[family])
    pixels = pipeline.image_processor.preprocess(shown, height, width)
    vae, config = pipeline.vae, pipeline.vae.config
    with torch.no_grad():
        if family == "klein":
            wanted = pipeline._encode_vae_image(pixels, None)
        elif family == "qwen":
            mode = vae.encode(pixels.unsqueeze(2)).latent_dist.mode()[:, :, 0]
            mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (config.latents_mean, config.latents_std))
            wanted = (mode - mean) / std
        elif family == "sana":
            wanted = vae.encode(pixels).latent * config.scaling_factor
        else:
            wanted = (vae.encode(pixels).latent_dist.mode() - config.shift_factor) * config.scaling_factor
    torch.testing.assert_close(latents, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(denoiser._to_latents(denoiser._to_pixels(latents)).shape, latents.shape)


# --- schedules


@pytest.mark.parametrize("num_steps", [1, 4, 10])
def test_the_schedule_is_the_pipelines(family, folders, num_steps):
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folders[family])
    pipeline.set_progress_bar_config(disable=True)
    denoiser = open_denoiser(folders[family])
    shape = denoiser.latent_shape(*SIZES[family])
    if family == "qwen" and num_steps == 1:  # diffusers divides by zero
        with pytest.raises(ConfigError, match=r"num_steps=1.*0\.02"):
            denoiser.schedule(num_steps, shape)
        return
    mine = denoiser.schedule(num_steps, shape)
    assert mine[0] == 1 and mine[-1] == 0 and len(mine) == num_steps + 1 and mine.dtype == torch.float32
    if family == "sana":  # its solver starts at sigma 0.9997: a stochastic step must start at 1
        torch.testing.assert_close(mine, linear_sigmas(num_steps, 3.0))
        pipeline.scheduler.set_timesteps(num_steps)
        torch.testing.assert_close(mine, pipeline.scheduler.sigmas.float(), rtol=0, atol=1e-3)
    else:
        noise, condition = KeyedNormal([KEY], shape).next(), condition_for(denoiser, 1)
        steps = {"num_inference_steps": num_steps}
        theirs(family, pipeline, noise, condition, **steps)
        torch.testing.assert_close(mine, pipeline.scheduler.sigmas, rtol=0, atol=2e-7)
    if family == "sd3":
        torch.testing.assert_close(mine, scheduler_sigmas(num_steps, 3.0), rtol=0, atol=2e-6)


def test_a_shift_replaces_the_checkpoints_own(family, denoiser):
    shape = denoiser.latent_shape(*SIZES[family])
    same = {"sd3": scheduler_sigmas(6, 2.0), "qwen": None}.get(family, linear_sigmas(6, 2.0))
    mine = denoiser.schedule(6, shape, shift=2.0)
    assert not torch.allclose(mine, denoiser.schedule(6, shape))
    if same is not None:  # Qwen-Image's is stretched to end at 0.02
        torch.testing.assert_close(mine, same, rtol=0, atol=2e-6)
    if family == "qwen":
        assert float(mine[-2]) == pytest.approx(0.02, abs=1e-6)


@pytest.mark.parametrize("tokens", [64, 256, 1024, 4096, 4300, 4301, 8100])
def test_dynamic_shifts_at_real_sizes(tokens):
    """From 128 to 1440 pixels, beyond the tiny pictures of the other tests."""
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
    from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift

    from motet.policies.diffusion.models.flux2 import Flux2Denoiser
    from motet.policies.diffusion.models.schedule import resolution_mu

    for steps in (4, 10, 50, 200):
        assert Flux2Denoiser._mu(None, steps, tokens) == pytest.approx(compute_empirical_mu(tokens, steps), rel=1e-12)
    for own in ({}, {"base_shift": 0.5, "max_shift": 0.9, "base_image_seq_len": 256, "max_image_seq_len": 8192}):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **own)
        named = {name.replace("image_", ""): value for name, value in own.items()}
        assert resolution_mu(scheduler, tokens) == pytest.approx(calculate_shift(tokens, **named), rel=1e-12)


def test_a_linear_shift_is_given_as_it_is():
    """Schedulers of time_shift_type linear take the shift itself, exponential ones its logarithm: the same sigmas."""
    from motet.policies.diffusion.models.schedule import checkpoint_sigmas

    for kind in ("exponential", "linear"):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
        own = checkpoint_sigmas(scheduler, 5, mu=0.7, linear_grid=True)
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 5, 5), mu=0.7)
        torch.testing.assert_close(own, scheduler.sigmas, rtol=0, atol=2e-7)
        asked = checkpoint_sigmas(scheduler, 5, mu=0.7, linear_grid=True, shift=2.0)
        torch.testing.assert_close(asked, linear_sigmas(5, 2.0), rtol=0, atol=2e-6)


def test_every_shift_starts_at_pure_noise():
    """In float32, 0.71 / (1 - 0.29) is 0.99999994, where flow_sde's noise would explode, and 0.54 gives more than 1."""
    from motet.policies.diffusion.models.schedule import checkpoint_sigmas

    for shift in (0.54, 0.58, 0.71, 1.0, 3.0):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        assert float(checkpoint_sigmas(scheduler, 7, mu=0.0, linear_grid=False)[0]) == 1.0


# --- batches


def rows_of(family, denoiser):
    """Rows that differ in length, mask, sources and their sizes."""
    conditions = [condition_for(denoiser, seed, length) for seed, length in enumerate((5, 3, 8, 5))]
    masked = torch.tensor([True, True, False, True, False, False])
    conditions.append(condition_for(denoiser, 9, 6, mask=masked))
    if denoiser.edits:
        shape = denoiser.latent_shape(*SIZES[family])
        for seed, shapes in enumerate([[shape], [shape, shape], [(shape[0], 4, 4), shape]]):
            sources = [torch.randn(one, generator=torch.Generator().manual_seed(50 + seed)) for one in shapes]
            conditions.append(condition_for(denoiser, 20 + seed, 4 + seed % 2, sources))
    return conditions


def test_a_velocity_does_not_depend_on_its_batch(family, denoiser):
    conditions = rows_of(family, denoiser)
    shape = denoiser.latent_shape(*SIZES[family])
    x = torch.randn(len(conditions), *shape, generator=torch.Generator().manual_seed(0))
    sigma = torch.linspace(0.1, 1.0, len(conditions))
    together = denoiser.velocity(x, sigma, conditions)
    assert together.shape == x.shape
    for row, condition in enumerate(conditions):
        alone = denoiser.velocity(x[row : row + 1], sigma[row : row + 1], [condition])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)
    order = [3, 0, 4, 2, 1]
    turned = denoiser.velocity(x[order], sigma[order], [conditions[n] for n in order])
    torch.testing.assert_close(turned, together[order], rtol=1e-5, atol=1e-5)


def test_masked_embeddings_do_not_count(family, denoiser):
    shape = denoiser.latent_shape(*SIZES[family])
    x, sigma = torch.randn(1, *shape), torch.tensor([0.5])
    short = condition_for(denoiser, 1, 4)
    mask = torch.tensor([True] * 4 + [False] * 3)
    noisy = torch.cat([short.embeddings, 100 * torch.randn(3, denoiser.condition_width)])
    long = Condition(noisy, mask, short.pooled)
    torch.testing.assert_close(denoiser.velocity(x, sigma, [long]), denoiser.velocity(x, sigma, [short]))


@pytest.mark.parametrize("family", EDITORS)
def test_a_source_reaches_its_own_row_alone(folders, family):
    """klein's pipeline shows every row the sources of all."""
    denoiser = open_denoiser(folders[family])
    shape = denoiser.latent_shape(*SIZES[family])
    x, sigma = torch.randn(2, *shape), torch.tensor([0.5, 0.8])
    sources = torch.randn(3, *shape)
    before = [condition_for(denoiser, row, sources=[sources[row]]) for row in (0, 1)]
    after = [before[0], condition_for(denoiser, 1, sources=[sources[2]])]
    one, other = denoiser.velocity(x, sigma, before), denoiser.velocity(x, sigma, after)
    assert torch.equal(one[0], other[0]) and not torch.allclose(one[1], other[1])


# --- training and saving


def test_gradient_reaches_transformer_and_conditions(family, denoiser):
    assert not any(p.requires_grad for p in denoiser.transformer.parameters())
    denoiser.transformer.requires_grad_(True)
    shape = denoiser.latent_shape(*SIZES[family])
    condition = condition_for(denoiser, 1)
    condition.embeddings.requires_grad_(True)
    denoiser.velocity(torch.randn(2, *shape), torch.tensor([0.3, 0.9]), [condition] * 2).square().mean().backward()
    gradients = [p.grad for p in denoiser.transformer.parameters() if p.grad is not None]
    assert sum(bool(gradient.abs().max() > 0) for gradient in gradients) > 10
    assert condition.embeddings.grad is not None and condition.embeddings.grad.abs().max() > 0


def test_what_is_saved_loads_unchanged(family, folders, denoiser, tmp_path):
    with torch.no_grad():
        for parameter in denoiser.transformer.parameters():
            parameter.add_(0.01)
    denoiser.save(tmp_path)
    stored = type(denoiser.transformer).from_pretrained(tmp_path, subfolder="transformer").state_dict()
    assert set(stored) == set(denoiser.transformer.state_dict())
    assert all(torch.equal(stored[name], value) for name, value in denoiser.transformer.state_dict().items())
    frozen = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    original = load_file(folders[family] / "vae" / "diffusion_pytorch_model.safetensors")
    assert set(frozen) == set(original) and all(torch.equal(frozen[name], original[name]) for name in frozen)
    settings = [
        json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        for folder in (tmp_path, folders[family])
    ]
    assert settings[0] == settings[1]
    again = open_denoiser(tmp_path)  # no model_index.json: transformer/config.json names the class
    assert type(again) is type(denoiser)
    shape, condition = denoiser.latent_shape(*SIZES[family]), condition_for(denoiser, 1)
    x, sigma = torch.randn(1, *shape), torch.tensor([0.5])
    assert torch.equal(again.velocity(x, sigma, [condition]), denoiser.velocity(x, sigma, [condition]))


def test_costs_are_transformer_tokens(family, denoiser):
    seen = []
    module = next(m for n, m in denoiser.transformer.named_modules() if n.endswith("transformer_blocks.0"))
    module.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(kwargs.get("hidden_states", (*args, None)[0])), with_kwargs=True
    )
    shape = denoiser.latent_shape(*SIZES[family])
    denoiser.velocity(torch.randn(1, *shape), torch.tensor([0.5]), [condition_for(denoiser, 1)])
    assert denoiser.tokens(shape) == seen[0].shape[1]


# --- sources of classes that were trained without


@pytest.mark.parametrize("family", ["sana", "sd3"])
def test_it_edits_through_an_adapter_that_starts_at_nothing(family, folders, tmp_path):
    plain, edits = open_denoiser(folders[family]), open_denoiser(folders[family], source_adapter=True)
    assert not plain.edits and list(plain.parts) == ["transformer"]
    assert edits.edits and list(edits.parts) == ["transformer", "source_adapter"]
    shape = edits.latent_shape(*SIZES[family])
    x, sigma = torch.randn(3, *shape), torch.tensor([0.2, 0.5, 0.9])
    sources = torch.randn(3, *shape)
    rows = [condition_for(edits, n, sources=[sources[n]] if n != 1 else []) for n in range(3)]
    bare = [condition_for(edits, n) for n in range(3)]
    torch.testing.assert_close(edits.velocity(x, sigma, rows), plain.velocity(x, sigma, bare))
    copied = edits.source_adapter.embed.state_dict()
    assert set(copied) == {"proj.weight", "proj.bias"}  # the positions are the tokens' own
    assert all(torch.equal(value, edits.patch_embed.state_dict()[name]) for name, value in copied.items())

    torch.nn.init.normal_(edits.source_adapter.project.weight)
    moved = edits.velocity(x, sigma, rows)
    same = plain.velocity(x, sigma, bare)
    assert torch.allclose(moved[1], same[1], atol=1e-6)
    assert not torch.allclose(moved[0], same[0]) and not torch.allclose(moved[2], same[2])
    alone = edits.velocity(x[2:], sigma[2:], rows[2:])
    torch.testing.assert_close(moved[2:], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(edits.velocity(x, sigma, bare), same)  # the hook is gone again

    edits.save(tmp_path)
    assert type(edits.transformer).from_pretrained(tmp_path, subfolder="transformer")
    again = open_denoiser(tmp_path)
    assert torch.equal(again.velocity(x, sigma, rows), moved)
    with pytest.raises(ConfigError, match="one source of the latent's own shape"):
        edits.velocity(x[:1], sigma[:1], [condition_for(edits, 1, sources=[sources[0], sources[1]])])


@pytest.mark.parametrize("family", ["sana", "sd3"])
def test_sources_of_unirl_zero(family, folders, tmp_path):
    """Its network adds the branch of a zero latent where there is no source, and sees 0.8 x + 0.2 noise."""
    denoiser = open_denoiser(folders[family], source_adapter=True)
    adapter = denoiser.source_adapter
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    shape = denoiser.latent_shape(*SIZES[family])
    x, sigma, source = torch.randn(2, *shape), torch.tensor([0.3, 0.7]), torch.randn(shape)
    zeros = [condition_for(denoiser, n, sources=[torch.zeros(shape)]) for n in range(2)]
    bare = [condition_for(denoiser, n) for n in range(2)]
    mixed = [condition_for(denoiser, 0, sources=[source]), bare[1]]
    plain, of_zeros = denoiser.velocity(x, sigma, bare), denoiser.velocity(x, sigma, zeros)
    assert not torch.allclose(plain, of_zeros, atol=1e-3) and adapter.shown(source) is source
    adapter.unirl_zero = True
    torch.testing.assert_close(denoiser.velocity(x, sigma, bare), of_zeros)
    torch.testing.assert_close(denoiser.velocity(x, sigma, mixed)[1:], of_zeros[1:], rtol=1e-4, atol=1e-5)

    noise = (adapter.shown(source) - 0.8 * source) / 0.2
    assert torch.equal(adapter.shown(source.clone()), adapter.shown(source))
    assert abs(float(noise.std()) - 1) < 0.2 and not torch.allclose(adapter.shown(-source), -adapter.shown(source))

    denoiser.save(tmp_path)
    again = open_denoiser(tmp_path)
    assert again.source_adapter.unirl_zero
    torch.testing.assert_close(again.velocity(x, sigma, mixed), denoiser.velocity(x, sigma, mixed))
    height, width = SIZES[family]
    shown = encode_source(again, image(1, width, height), height, width)
    assert torch.equal(shown, adapter.shown(again.encode([image(1, width, height)], height, width)[0]))
    save_tensors(tmp_path / ADAPTER_FILE, adapter.state_dict(), {"trained_as": "blip"})
    with pytest.raises(CheckpointError, match="trained_as='blip'"):
        open_denoiser(tmp_path)


# --- other checkpoints


def test_a_folder_without_an_autoencoder_draws_pixels(tmp_path):
    torch.manual_seed(0)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=3, out_channels=3, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=8, caption_projection_dim=16, pooled_projection_dim=8,
        pos_embed_max_size=8,
    )  # fmt: skip
    transformer.save_pretrained(tmp_path / "transformer")
    denoiser = open_denoiser(tmp_path)
    assert denoiser.vae is None and denoiser.latent_shape(8, 12) == (3, 8, 12) and denoiser.multiple == 2
    torch.testing.assert_close(denoiser.schedule(5, (3, 8, 12)), scheduler_sigmas(5, 1.0))
    shown = image(1, 12, 8)
    (latent,) = denoiser.encode([shown], 8, 12)
    assert latent.min() >= -1 and latent.max() <= 1
    assert np.array_equal(np.asarray(denoiser.decode(latent[None])[0]), np.asarray(shown))


@pytest.mark.parametrize("name", ["FluxTransformer2DModel", "Flux2Transformer2DModel", "QwenImageTransformer2DModel"])
def test_packed_classes_draw_pixels_too(tmp_path, name):
    torch.manual_seed(0)
    widths = {"num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 8}
    extra = {
        "FluxTransformer2DModel": {"num_single_layers": 1, "pooled_projection_dim": 8, "axes_dims_rope": (4, 6, 6)},
        "Flux2Transformer2DModel": {"num_single_layers": 1, "axes_dims_rope": (4, 4, 4, 4), "guidance_embeds": False},
        "QwenImageTransformer2DModel": {"out_channels": 3, "axes_dims_rope": (4, 6, 6)},
    }[name]
    getattr(diffusers, name)(in_channels=12, **widths, **extra).save_pretrained(tmp_path / "transformer")
    denoiser = open_denoiser(tmp_path)
    shape = denoiser.latent_shape(8, 12)
    assert shape == (3, 8, 12) and denoiser.tokens(shape) == 24
    assert (
        denoiser.velocity(torch.randn(1, *shape), torch.tensor([0.5]), [condition_for(denoiser, 1)]).shape[1:] == shape
    )


def test_embedded_guidance_is_an_input(folders):
    weak, strong, own = (open_denoiser(folders["flux"], embedded_guidance=g) for g in (1.0, 8.0, None))
    assert own.embedded_guidance == 3.5
    shape = weak.latent_shape(*SIZES["flux"])
    x, sigma, condition = torch.randn(1, *shape), torch.tensor([0.5]), condition_for(weak, 1)
    assert not torch.allclose(weak.velocity(x, sigma, [condition]), strong.velocity(x, sigma, [condition]))
    with pytest.raises(ConfigError, match=r"embedded_guidance=2\.0"):
        open_denoiser(folders["sd3"], embedded_guidance=2.0)


def test_low_precision_weights_take_float32_states(folders):
    denoiser = open_denoiser(folders["sd3"], dtype=torch.bfloat16)
    shape = denoiser.latent_shape(*SIZES["sd3"])
    velocity = denoiser.velocity(torch.randn(1, *shape), torch.tensor([0.5]), [condition_for(denoiser, 1)])
    assert velocity.dtype == torch.bfloat16 and denoiser.encode([image(1, 24, 16)], 16, 24).dtype == torch.float32


def test_the_class_is_what_the_checkpoint_says(folders, tmp_path):
    misnamed = tmp_path / "flux-sana-qwen"
    write("sd3", misnamed)
    assert type(open_denoiser(misnamed)).__name__ == "Sd3Denoiser"
    index = json.loads((misnamed / "model_index.json").read_text())
    index["transformer"] = ["diffusers", "PixArtTransformer2DModel"]
    (misnamed / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(
        CheckpointError, match=r"PixArtTransformer2DModel.*SD3Transformer2DModel, SanaTransformer2DModel"
    ):
        open_denoiser(misnamed)


def test_broken_checkpoints_are_refused(folders, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        open_denoiser(tmp_path / "nowhere" / "at" / "all")
    with pytest.raises(CheckpointError, match="class None"):
        open_denoiser(tmp_path)
    folder = write("sd3", tmp_path / "sd3")
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    from safetensors.torch import save_file

    save_file({n: t for n, t in tensors.items() if "proj_out" not in n}, weights)
    with pytest.raises(CheckpointError, match="proj_out"):
        open_denoiser(folder)
    weights.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be "):
        open_denoiser(folder)
    (folder / "model_index.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_denoiser(folder)


def test_a_hub_id_is_fetched_in_parts(folders, monkeypatch):
    import huggingface_hub

    asked = []

    def fetched(source, allow_patterns):
        asked.append((source, allow_patterns))
        return str(folders["sana"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    monkeypatch.setattr("motet.weights.hub._ask_hub", lambda source, kind: None)
    assert type(open_denoiser("someone/something")).__name__ == "SanaDenoiser"
    assert asked[0][0] == "someone/something" and "transformer/*" in asked[0][1]
    assert not any("text_encoder" in pattern for pattern in asked[0][1])  # a denoiser needs none

    def offline(source, allow_patterns):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match="no route"):
        open_denoiser("someone/something")


def test_schedulers_that_are_no_flows_are_refused(folders, tmp_path):
    folder = write("sd3", tmp_path / "sd3")
    diffusers.DDIMScheduler().save_pretrained(folder / "scheduler")
    with pytest.raises(CheckpointError, match="DDIMScheduler"):
        open_denoiser(folder)
    diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True).save_pretrained(folder / "scheduler")
    with pytest.raises(CheckpointError, match="from noise to image"):
        open_denoiser(folder).schedule(4, (4, 8, 8))


def test_invalid_sizes_raise(folders):
    sd3 = open_denoiser(folders["sd3"])
    with pytest.raises(ConfigError, match=r"width=18.*multiples of 4.*use width=16"):
        sd3.latent_shape(16, 18)
    with pytest.raises(ConfigError, match="positions for 64 x 64"):
        sd3.latent_shape(16, 68)
    shape = sd3.latent_shape(16, 16)
    x, sigma = torch.randn(1, *shape), torch.tensor([0.5])
    with pytest.raises(ConfigError, match="does not edit images"):
        sd3.velocity(x, sigma, [condition_for(sd3, 1, sources=[x[0]])])
    with pytest.raises(ConfigError, match="does not edit images"):
        flux = open_denoiser(folders["flux"])
        flux.velocity(x, sigma, [condition_for(flux, 1, sources=[x[0]])])
    with pytest.raises(ConfigError, match="takes a pooled vector"):
        sd3.velocity(x, sigma, [Condition(torch.randn(3, sd3.condition_width))])
    with pytest.raises(ConfigError, match="source_adapter is SANA's and SD3's"):
        open_denoiser(folders["flux"], source_adapter=True)
