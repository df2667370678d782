"""Every built-in policy keeps the contract; what each clause promises is told in `motet.testing.clauses`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import motet
from motet.config import LoraConfig, PolicyConfig
from motet.core.conversation import assistant, user
from motet.policies.tiny.emu3 import make_tiny_emu3
from motet.testing import FakePolicy, check_policy
from motet.weights.hf_output import suppress_hf_output
from tests.policies import tiny_pipelines, unified

IMAGE = Image.new("RGB", (32, 16), "red")
IMAGE.paste("blue", (16, 0, 32, 16))
QUESTIONS = [user("what colour is it?"), user(IMAGE, "what?") + assistant("red") + user(IMAGE, "and left of it?")]
EDITS = [user("a red circle"), user(IMAGE, "make it blue")]
NO_UNCONDITIONAL_BRANCH = ("dropped prompts do not count",)
NO_TOKENS = ("settings change the distribution",)
EDITORS = ("kontext", "klein")
SLOW = pytest.mark.slow


def loader(**settings: Any) -> Callable[[Path], Any]:
    """Loads the folder that it is given."""
    return lambda folder: motet.load_policy(folder, PolicyConfig(path=str(folder), device="cpu", **settings))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"train": ("language_model", "lm_head", "generation_head", "generation_embeddings", "generation_aligner")},
            id="language",
            marks=SLOW,
        ),
        pytest.param({"train": ("vision_model", "aligner")}, id="vision"),
        pytest.param({"lora": LoraConfig(rank=2, alpha=4.0)}, id="lora", marks=SLOW),
    ],
)
def test_janus(checkpoint: Path, settings: dict[str, Any]) -> None:
    load = loader(**settings)
    report = check_policy(load(checkpoint), load=load, contexts={"text": QUESTIONS})
    assert not report.clauses("not checked")


@pytest.mark.parametrize(
    ("vlm_checkpoint", "train"),
    [
        ("qwen3_vl", "language_model"),
        pytest.param("qwen3_vl", "visual", marks=SLOW),
        pytest.param("qwen2_5_vl", "language_model", marks=SLOW),
        pytest.param("qwen2_5_vl", "visual", marks=SLOW),
    ],
    indirect=["vlm_checkpoint"],
)
def test_qwen_vl(vlm_checkpoint: Path, train: str) -> None:
    load = loader(train=(train,))
    report = check_policy(load(vlm_checkpoint), load=load, contexts={"text": QUESTIONS})
    assert report.clauses("not checked") == NO_UNCONDITIONAL_BRANCH


@SLOW
def test_emu3(tmp_path: Path) -> None:
    model, processor = make_tiny_emu3(["two red circles", "a blue star left of a green square", "what colour is it?"])
    torch.nn.init.normal_(model.lm_head.weight, std=0.35)
    with suppress_hf_output():
        model.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
    load = loader()
    report = check_policy(load(tmp_path), load=load)
    assert not report.clauses("not checked")


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=SLOW if name in ("sana", "flux", "kontext", "klein") else ())
        for name in tiny_pipelines.FAMILIES
    ],
)
def test_pipelines(family: str, folders: dict[str, Path]) -> None:
    height, width = tiny_pipelines.SIZES[family]
    load = loader(train=("transformer",), diffusion={"size": [height, width]})
    last_text_block = [f"transformer.transformer_blocks.1.{name}" for name in ("attn.to_add_out.*", "txt_*")]
    contexts = {"denoising": EDITS} if family in EDITORS else {}
    report = check_policy(load(folders[family]), load=load, unused=last_text_block, contexts=contexts)
    assert report.clauses("not checked") == NO_TOKENS + (NO_UNCONDITIONAL_BRANCH if family in EDITORS else ())


@pytest.mark.parametrize("family", [pytest.param("sana", marks=SLOW), "sd3"])
def test_unified(family: str) -> None:
    policy = unified.build(family)
    policy.train_parts(["language_model", "queries", "connector", "transformer", "source_adapter"])
    report = check_policy(policy, load=loader(), contexts={"denoising": EDITS})
    assert report.clauses("not checked") == NO_UNCONDITIONAL_BRANCH


@pytest.mark.parametrize("vlm_checkpoint", ["qwen2_5_vl", pytest.param("qwen3_vl", marks=SLOW)], indirect=True)
def test_language_model_and_pipeline(vlm_checkpoint: Path, folders: dict[str, Path]) -> None:
    height, width = tiny_pipelines.SIZES["sd3"]
    parts, size = ("language_model", "transformer"), {"size": [height, width]}
    policy = loader(train=parts, diffusion={"path": str(folders["sd3"]), **size})(vlm_checkpoint)
    report = check_policy(policy, load=loader(train=parts, diffusion=size))
    assert report.clauses("not checked") == ()


def test_fake_policy() -> None:
    scripted = "its acts are scripted by the key, whatever the settings and the prompt"
    clauses = ("temperature 0 is deterministic", "dropped prompts do not count", "impossible settings are rejected")
    check_policy(FakePolicy(kinds=("text", "image", "denoising")), waive=dict.fromkeys(clauses, scripted))
