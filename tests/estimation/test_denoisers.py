"""Diffusion transformers without weights: as large as the loaded ones, and they keep what the loaded ones keep."""

import pytest
import torch

from motet.config import DiffusionConfig, LoraConfig, PolicyConfig, parse_recipe
from motet.estimation.building import model_size
from motet.estimation.counting import kept_bytes
from motet.estimation.memory import Settings, memory
from motet.estimation.workload import Lengths, workload
from motet.policies import load_policy
from motet.policies.diffusion.models import Condition
from tests.policies import tiny_pipelines

pytest.importorskip("diffusers")
SIZE = tiny_pipelines.SIZES["sd3"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return str(tiny_pipelines.write("sd3", tmp_path_factory.mktemp("pipeline") / "sd3"))


def settings(path, **changes) -> PolicyConfig:
    given = {
        "path": path,
        "train": ("transformer",),
        "diffusion": DiffusionConfig(size=SIZE),
        "device": "cpu",
        **changes,
    }
    return PolicyConfig(**given)


def test_a_pipeline_is_as_large_and_keeps_as_much_as_when_loaded(pipeline) -> None:
    size = model_size(settings(pipeline), "float32")
    policy = load_policy(pipeline, settings(pipeline, dtype="float32"))
    assert size.trainable == sum(p.numel() for p in policy.trainable().values())
    denoiser = policy.generator.denoiser
    assert size.denoiser.tokens == denoiser.tokens(policy.generator.shape)
    assert sum(size.units["transformer"]) < size.parts["transformer"].parameters
    embeddings = torch.zeros(size.denoiser.condition_tokens, denoiser.condition_width)
    condition = Condition(embeddings, None, torch.zeros(denoiser.pooled_width), ())

    def kept(rows: int) -> float:
        latents, sigma = torch.zeros(rows, *policy.generator.shape), torch.zeros(rows)
        return kept_bytes(
            lambda: denoiser.velocity(latents, sigma, [condition] * rows), denoiser.transformer.parameters(), "float32"
        )

    assert kept(3) - kept(2) == pytest.approx(size.denoiser.saved, rel=0.05)


def test_adapters_and_checkpointing(pipeline) -> None:
    full = model_size(settings(pipeline), "bfloat16")
    lora = DiffusionConfig(size=SIZE, lora=LoraConfig(rank=4))
    adapted = model_size(settings(pipeline, train=(), diffusion=lora), "bfloat16")
    loaded = load_policy(pipeline, settings(pipeline, train=(), diffusion=lora, dtype="float32"))
    assert adapted.trainable == sum(p.numel() for p in loaded.trainable().values())
    assert adapted.denoiser.casts == 0 < full.denoiser.casts
    checkpointed = model_size(settings(pipeline, gradient_checkpointing=True), "bfloat16")
    assert checkpointed.denoiser.saved < full.denoiser.saved
    assert checkpointed.denoiser.flops == full.denoiser.flops


def test_a_unified_model_counts_its_connector(request) -> None:
    path = str(request.config.rootpath / "checkpoints" / "shapes_unified")
    policy = {"path": path, "train": ["queries", "connector", "transformer"]}
    recipe = parse_recipe({"policy": policy, "scenario": "text_to_image", "run": {"steps": 1, "prompts_per_step": 2}})
    size = model_size(recipe.policy, "float32", "eager")
    loaded = load_policy(path, recipe.policy)
    assert size.trainable == sum(p.numel() for p in loaded.trainable().values())
    (image,) = workload(recipe, size, Lengths(prompt=20))
    queries = size.denoiser.conditioned_on
    assert (image.kind, image.actions, image.context) == ("denoising", 9, 20 + queries)
    assert image.tokens == 20 + queries + 9 * size.denoiser.tokens
    held = memory(size, [image], Settings(1, "replicas", "float32", "float32", 4096, None, False, False))
    assert held.phases["learn"]["activations"] > image.actions * size.denoiser.saved
