"""scripts/make_unified.py: sizes as published, and a folder that loads, generates and edits."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from motet.config import PolicyConfig
from motet.core.conversation import user
from motet.core.protocols import Request
from motet.core.trajectory import Sampling
from motet.policies import load_policy

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "make_unified.py"
SMALL = ("--side", "32", "--queries", "4", "--blocks", "1", "--heads", "8", "--feed-forward", "32")


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.parametrize(("name", "millions"), [("sana-1600m", 1600), ("sana-600m", 590), ("sd3-medium", 2030)])
def test_sizes_equal_the_published_models(name, millions):
    build = runpy.run_path(str(SCRIPT))["DENOISERS"][name]
    with torch.device("meta"):
        transformer, vae = build()
    assert sum(p.numel() for p in transformer.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)
    assert vae.config.latent_channels == transformer.config.in_channels


def test_a_unified_model_generates_and_edits(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "unified"
    run(monkeypatch, "--diffusion", "sana-tiny", "--output", folder, *SMALL)
    assert "connector" in capsys.readouterr().out
    policy = load_policy(folder, PolicyConfig(path=str(folder), device="cpu", train=("queries", "connector")))
    assert {"queries", "connector", "transformer", "source_adapter"} <= set(policy.parts)
    source = Image.new("RGB", (32, 32), "red")
    requests = [Request("denoising", "a", context, (n,)) for n, context in enumerate((user("x"), user(source, "x")))]
    acts = policy.act(requests, Sampling(num_steps=2))
    assert [act.image.size for act in acts] == [(32, 32)] * 2
    with pytest.raises(SystemExit):
        run(monkeypatch, "--diffusion", "sana-tiny", "--output", folder, *SMALL)


def test_a_janus_with_a_flow_decoder(tmp_path, monkeypatch):
    folder, language_model = tmp_path / "unified", SCRIPT.parent.parent / "checkpoints" / "shapes_janus"
    run(monkeypatch, "--language-model", language_model, "--diffusion", "sana-tiny", "--output", folder, *SMALL)
    policy = load_policy(folder)
    assert policy.kinds == {"text", "image", "denoising"} and not {"queries", "source_adapter"} & set(policy.parts)
    (decoded,) = policy.decode_with_flow(policy.generate_images("two red circles"), num_steps=2)
    assert decoded.image.size == (32, 32) and len(decoded.encoding.tokens) == policy.text_policy.num_image_tokens
    stored = load_policy(language_model).model.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in policy.text_policy.model.state_dict().items())
