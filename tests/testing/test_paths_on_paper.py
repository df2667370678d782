"""Syncs of every path on the GPU on paper: none per token, denoising step or micro-batch, one per optimizer step.

docs/reference/paper_gpu.md states these bounds.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "paper_gpu.py"
MODELS = ("janus", "emu3", "qwen2_5_vl", "qwen3_vl", "unified")
PER_CALL = 16
"""Most syncs of one call of `act`: what comes back from the device, and a few checks."""
PER_TEXT_TOKEN = 1 / 8
"""Every eighth token the decode loop looks who has finished."""
FAST = ("unified",)


@pytest.fixture(scope="module")
def paper():
    spec = importlib.util.spec_from_file_location("scripts_paper_gpu", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "model", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_syncs_of_every_path(paper, model):
    costs = list(paper.costs([model]))
    assert any(cost.path.endswith("optimizer step") for cost in costs) and len(costs) >= 3
    for cost in costs:
        allowed = PER_TEXT_TOKEN if cost.path.endswith("texts") else 0.0
        assert cost.each.syncs <= allowed, f"{cost.path}, each {cost.unit}\n{cost.where}"
        most = {"token": PER_CALL, "step": PER_CALL, "micro-batch": float(cost.path.endswith("optimizer step"))}
        assert cost.fixed.syncs <= most[cost.unit], f"{cost.path}\n{cost.where}"
        assert cost.each.launches > 0


def test_the_paper_gpu_computes_what_the_cpu_does(paper):
    """Texts about an image, by the code path of a GPU: 4D masks, DeepStack as one tensor, pinned copies."""
    acts = paper.texts(paper.qwen_vl("qwen3_vl"), 8)
    with paper.paper_gpu() as gpu:
        policy = paper.Bench("qwen3_vl", gpu).on_paper(paper.qwen_vl("qwen3_vl"))
        found = paper.texts(policy, 8)
        replayed = [replay.log_probs.detach().cpu() for replay in policy.replay(found)]
    assert [act.text for act in found] == [act.text for act in acts]
    for act, again, other in zip(found, replayed, acts, strict=True):
        assert torch.allclose(act.log_probs, other.log_probs, atol=1e-5)
        assert torch.allclose(act.log_probs, again, atol=1e-5)


def test_a_table_of_a_model(paper, monkeypatch, capsys):
    counts = paper.Counts(12.0, 0.125, 3.0)
    rows = {"janus": lambda bench: iter([paper.Cost(f"{bench.model}: texts", "token", counts, counts, "nowhere")])}
    monkeypatch.setattr(paper, "MODELS", rows)
    monkeypatch.setattr(sys, "argv", ["paper_gpu.py", "janus"])
    paper.main()
    assert "| janus: texts | token | 12 | 0.125 | 3 | 12 | 0.125 | 3 |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["paper_gpu.py", "venus"])
    with pytest.raises(SystemExit):
        paper.main()
    assert "expected some of janus" in capsys.readouterr().err
