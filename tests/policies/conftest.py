"""Tiny checkpoints for the session, with heads sharp enough that distributions are far from uniform."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from motet.config import PolicyConfig
from motet.policies import load_policy
from motet.policies.janus import JanusPolicy
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.tiny.janus import TinySizes, tiny_janus, tiny_processor, tiny_tokenizer
from tests.policies.vlms import FAMILIES, open_policy, save_tiny

WORDS = ["draw two red circles", "a blue star left of a green square", "what colour is it?", "<think>three</think>"]
SIZES = TinySizes(
    hidden=32,
    layers=2,
    heads=4,
    kv_heads=2,
    intermediate=64,
    image=16,
    codes=96,
    vision_hidden=32,
    vision_layers=1,
    vision_heads=2,
    max_positions=160,
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Janus: 16 image tokens of 96 codes, a vocabulary of some 300 tokens."""
    folder = tmp_path_factory.mktemp("tiny") / "janus"
    tokenizer = tiny_tokenizer(WORDS, vocab_size=320)
    model = tiny_janus(tokenizer, SIZES, seed=0)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.35)
        model.model.generation_head.vision_head.weight.normal_(std=0.7)
        model.model.vqmodel.quantize.embedding.weight.normal_()
    model.save_pretrained(folder)
    tiny_processor(tokenizer, SIZES).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def policy(checkpoint: Path) -> JanusPolicy:
    """For tests that leave it as it was."""
    return load_policy(checkpoint, PolicyConfig(path=str(checkpoint), device="cpu"))


@pytest.fixture
def fresh(checkpoint: Path) -> Callable[..., JanusPolicy]:
    """`fresh(**settings)`: a policy of one's own, with settings of PolicyConfig."""
    return lambda **settings: load_policy(
        checkpoint, PolicyConfig(**{"path": str(checkpoint), "device": "cpu", **settings})
    )


@pytest.fixture(scope="session")
def image() -> Image.Image:
    """Left half red, right half blue, not square."""
    canvas = Image.new("RGB", (20, 12), "red")
    canvas.paste("blue", (10, 0, 20, 12))
    return canvas


@pytest.fixture(scope="session", params=FAMILIES)
def vlm_checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Qwen-VL of each family. Do not write into it."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / request.param, request.param)


@pytest.fixture(scope="session")
def vlm(vlm_checkpoint: Path) -> VlmPolicy:
    """For tests that leave it as it was."""
    return open_policy(vlm_checkpoint)


class PipelineFolders(dict[str, Path]):
    """Every family's tiny pipeline as diffusers saves it, written when first asked for."""

    def __init__(self, base: Path) -> None:
        super().__init__()
        self.base = base

    def __missing__(self, family: str) -> Path:
        from tests.policies.tiny_pipelines import write

        self[family] = write(family, self.base / family)
        return self[family]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> PipelineFolders:
    """Do not write into them."""
    return PipelineFolders(tmp_path_factory.mktemp("pipelines"))
