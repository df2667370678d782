"""The unified model of the shapes world: its script, its recipe at a small size, and the shipped checkpoint."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from motet.config.stages import load_plan
from motet.policies import load_policy
from motet.policies.tiny.qwen_vl import TinyVlmSizes, tiny_vlm_tokenizer
from motet.policies.tiny.unified import TinyUnifiedSizes, make_tiny_unified
from motet.shapes.verifier import verify_image
from motet.shapes.world import ShapesRows
from motet.training.setup import setup_sft
from motet.training.sft import sft_batch
from tests.losses import supervised

ROOT = Path(__file__).resolve().parent.parent.parent
SHIPPED = ROOT / "checkpoints" / "shapes_unified"
RECIPE = ROOT / "recipes" / "shapes_unified_cold_start.yaml"
SMALL = TinyUnifiedSizes(
    vlm=TinyVlmSizes(
        hidden=32, layers=2, heads=4, intermediate=32, vision_hidden=32, vision_layers=1, vision_heads=2,
        vision_intermediate=32, max_positions=256,
    ),
    latent=4, vae_channels=(8, 8, 8, 8), width=16, layers=1, heads=2, queries=4, feed_forward=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_shapes_unified", ROOT / "scripts" / "make_shapes_unified.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint made by the script with few steps."""
    policy = make_tiny_unified(tiny_vlm_tokenizer(script.corpus(0, 400), script.VOCABULARY), SMALL)
    options = ShapesRows("train", 0, {}).options
    script.train_autoencoder(policy, 3, 0, options)
    script.warm_up_vision(policy, 3, 0, options)
    folder = tmp_path_factory.mktemp("unified") / "init"
    policy.save(folder)
    return folder


def test_every_word_of_the_world_is_one_token(script: ModuleType, small: Path) -> None:
    tokenizer = load_policy(small).text_policy.encoder.tokenizer
    for text in script.corpus(1, 300):  # another seed
        for word in re.findall(r" ?[^\s,.?:<>]+", text):
            assert len(tokenizer(word)["input_ids"]) == 1, word
    assert len(tokenizer) < 620


def test_the_initial_model_has_the_trainable_parts_of_the_recipe(small: Path) -> None:
    policy = load_policy(small)
    assert policy.kinds == {"text", "denoising"}
    assert {"language_model", "lm_head", "queries", "connector", "transformer", "source_adapter"} <= set(policy.parts)
    assert policy.denoiser.latent_shape(*policy.size) == (4, 4, 4)


def test_the_autoencoders_latents_have_unit_scale(script: ModuleType, small: Path) -> None:
    policy = load_policy(small)
    options = ShapesRows("train", 0, {}).options
    images, _ = script.sample_images(np.random.default_rng(5), 64, options)
    assert 0.8 < float(policy.denoiser.encode(images, 32, 32).std()) < 1.25


def _stages() -> list[Any]:
    return [pytest.param(stage, id=stage.name) for stage in load_plan(RECIPE, Path("out")).stages]


@pytest.mark.parametrize("stage", _stages())
def test_every_stage_changes_only_its_trainable_parts(stage: Any, small: Path) -> None:
    tracks = {name: replace_prompts(track) for name, track in stage.recipe.tracks.items()}
    recipe = stage.recipe.model_copy(
        update={"tracks": tracks, "policy": stage.recipe.policy.model_copy(update={"path": str(small)})}
    )
    session = setup_sft(recipe)
    parts = session.policy.parts
    before = {name: [p.detach().clone() for p in part.parameters()] for name, part in parts.items()}
    acts, _ = sft_batch(session, 0)
    stats = session.optimizer.step(*supervised(acts))
    assert stats["loss"] > 0
    for name, part in parts.items():
        same = all(torch.equal(old, new) for old, new in zip(before[name], part.parameters(), strict=True))
        assert same != (name in recipe.policy.train), name


def replace_prompts(track: Any) -> Any:
    """The track with two rows per step."""
    return track.model_copy(update={"prompts_per_step": 2})


def test_the_shipped_model_is_small() -> None:
    files = [file for file in SHIPPED.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 10_000_000
    assert not [file.name for file in files if file.suffix in (".pt", ".bin", ".pkl")]


def test_the_shipped_model_solves_easy_prompts() -> None:
    rows = ShapesRows("test", 99, {})
    asked = [row for row in map(rows.row, range(120)) if row["category"] in ("single", "two objects", "colours")][:24]
    acts = load_policy(SHIPPED).generate_images([row["prompt"] for row in asked])
    right = [verify_image(act.image, row["spec"]).correct for act, row in zip(acts, asked, strict=True)]
    assert sum(right) >= 12  # 17 or so of 24; an untrained model gets 0
