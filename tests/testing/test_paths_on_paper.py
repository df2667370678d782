"""Syncs of every path on the GPU on paper: none per token, denoising step or micro-batch, one per optimizer step.

docs/reference/paper_gpu.md states these bounds.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from motet.config import AlgorithmConfig, parse_recipe
from motet.core.trajectory import Sampling
from motet.distributed.parallel import Parallel
from motet.training.batches import StepBatch
from motet.training.frozen_replays import high_entropy_actions, old_replays
from motet.training.losses import Sample, resolve_loss

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "paper_gpu.py"
MODELS = ("janus", "emu3", "qwen2_5_vl", "qwen3_vl", "unified")
PER_CALL = 16
"""Most syncs of one call of `act`: what comes back from the device, and a few checks."""


@pytest.fixture(scope="module")
def paper():
    spec = importlib.util.spec_from_file_location("scripts_paper_gpu", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_syncs_of_every_path(paper, model):
    costs = list(paper.costs([model]))
    assert any(cost.path.endswith("optimizer step") for cost in costs) and len(costs) >= 3
    for cost in costs:
        assert cost.each.syncs == 0, f"{cost.path}, each {cost.unit}\n{cost.where}"
        most = {"token": PER_CALL, "step": PER_CALL, "micro-batch": float(cost.path.endswith("optimizer step"))}
        assert cost.fixed.syncs <= most[cost.unit], f"{cost.path}\n{cost.where}"
        assert cost.each.launches > 0


LOSSES = [
    {"name": "grpo", "importance_sampling_level": "sequence", "kl_estimator": "k2", "entropy_bonus": 0.01},
    {"name": "dapo", "epsilon_high": 0.28, "delta": 4.0, "kl_bias_correction": True, "rollout_is": "sequence"},
    {"name": "cispo", "epsilon_high": 5.0},
    {"name": "sapo"},
    {"name": "vespo"},
    {"name": "luspo"},
    {"name": "dpo"},
]


def test_every_loss_waits_once_per_optimizer_step(paper):
    with paper.paper_gpu() as gpu:
        policy = paper.Bench("qwen3_vl", gpu).on_paper(paper.qwen_vl("qwen3_vl"))
        optimized = paper.Optimized(policy, paper.texts(policy, 8))
        reference = optimized.reference(2)
        for loss in LOSSES:
            algorithm = AlgorithmConfig(beta=0.0 if loss["name"] == "dpo" else 0.04, loss=loss)
            optimized.losses = {"text": resolve_loss(algorithm, "text")}
            gpu.clear()
            optimized.step(2, reference)
            assert gpu.num_syncs == 1, f"{loss}: {gpu.summary()}"


def test_what_precedes_an_optimizer_step_waits_once(paper):
    """The selection by entropy over all micro-batches, and the check of old log-probs."""
    loss = {"name": "grpo", "top_entropy_quantile": 0.5, "rollout_is": "token"}
    recipe = parse_recipe(
        {
            "policy": {"path": "x"},
            "run": {"steps": 1},
            "rewards": [{"name": "format"}],
            "algorithm": {"loss": loss},
            "optimizer": {"max_tokens_per_microbatch": 1},
        }
    )
    losses = {"text": resolve_loss(recipe.algorithm, "text")}
    with paper.paper_gpu() as gpu:
        policy = paper.Bench("qwen3_vl", gpu).on_paper(paper.qwen_vl("qwen3_vl"))
        acts = paper.texts(policy, 8)
        samples = [Sample(act, 1.0, 0, n, n, (0, n)) for n, act in enumerate(acts)]
        places = range(len(samples))
        gpu.clear()
        chosen = high_entropy_actions(policy, samples, places, losses, 1, Parallel())
        assert chosen is not None and gpu.num_syncs == 1, gpu.summary()
        gpu.clear()
        old, replayed = old_replays(policy, samples, places, losses, recipe, Parallel())
        assert not replayed and old is not None and gpu.num_syncs == 1, gpu.summary()


@pytest.mark.slow
def test_every_loss_of_denoising_waits_once_per_optimizer_step(paper):
    with paper.paper_gpu() as gpu:
        policy = paper.Bench("unified", gpu).on_paper(paper.unified())
        images = paper.sampled(policy, "denoising", Sampling(num_steps=3))
        for loss in ("grpo_guard", "nft"):
            algorithm = AlgorithmConfig(per_kind={"denoising": {"loss": loss, "beta": 0.04}})
            (own,) = {"denoising": resolve_loss(algorithm, "denoising")}.values()
            samples = [Sample(act, 1.0, 0, n, n, (0, n)) for n, act in enumerate(images)]
            acts = [sample.act for sample in own.prepare(samples)]
            optimized = paper.Optimized(policy, acts)
            optimized.losses, optimized.needs = {"denoising": own}, list(own.needs(True).reference)
            reference = optimized.reference(2)
            gpu.clear()
            acts, units = acts * 2, [0] * len(acts) + [1] * len(acts)
            batch = StepBatch(acts, [1.0] * len(acts), None, reference, units=units)
            optimized.optimizer.step(batch, optimized.losses)
            assert gpu.num_syncs == 1, f"{loss}: {gpu.summary()}"


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
