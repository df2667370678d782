"""`motet bench learner`: whole steps beside other systems', and the learner's memory against the vocabulary."""

import importlib
import json
from dataclasses import asdict

import pytest
import torch

from motet.evaluation.bench_eager import EagerSteps
from motet.evaluation.bench_learner import MotetStep, bench_learner
from motet.evaluation.bench_logprobs import LogProbMemory
from motet.evaluation.bench_models import BenchSizes, StepShape, make_policy
from motet.evaluation.measuring import peak_memory, ratio_fields, reset_peak_memory
from tests.runs import motet_command

SIZES = BenchSizes(hidden=32, layers=2, heads=2, intermediate=64, vocab=512, image_side=4, codes=32)
SHAPE = StepShape(prompts=2, generations=3, prompt_tokens=6, tokens=5, learning_rate=1e-3)


def check_row(row):
    assert set(row["seconds"]) == set(row["baseline_seconds"]) == set(row["ratios"]) == {"generate", "learn", "step"}
    assert 0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert row["seconds"]["step"] >= max(row["seconds"]["generate"], row["seconds"]["learn"]) > 0


def test_a_step_beside_the_eager_loop():
    calls = []
    row = bench_learner("image", SHAPE, SIZES, 2, lambda: calls.append(1))
    check_row(row)
    assert len(calls) == 3  # one not timed
    assert row["mean_length"] == row["baseline_mean_length"] == 16 and row["target"] is None


def test_the_eager_loop_makes_the_same_update():
    policy = make_policy(SIZES)
    eager, own = EagerSteps(policy, SHAPE), MotetStep(policy, "image", SHAPE)
    before = {name: value.detach().clone() for name, value in policy.trainable().items()}
    sampled, act = [], policy.act
    policy.act = lambda requests, sampling: sampled.extend(act(requests, sampling)) or sampled
    own()
    size = SHAPE.generations
    eager._learn([torch.stack([one.ids for one in sampled[n : n + size]]) for n in (0, size)])
    theirs = {name: value for name, value in eager.model.named_parameters() if value.requires_grad}
    assert theirs.keys() == before.keys()
    moved = [
        torch.cat([(value.detach() - before[name]).flatten() for name, value in side.items()])
        for side in (policy.trainable(), theirs)
    ]
    assert float(moved[0].norm()) > 0.01
    assert float(torch.cosine_similarity(*moved, dim=0)) > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_a_step_beside_trl(beta):
    pytest.importorskip("trl")
    shape = StepShape(prompts=2, generations=3, prompt_tokens=6, tokens=5, beta=beta)
    row = bench_learner("text", shape, SIZES, 1)
    check_row(row)
    assert row["target"] == 1.5 and row["baseline"].startswith("TRL ")
    assert row["baseline_mean_length"] == pytest.approx(row["mean_length"], rel=0.5)


def test_the_command_writes_every_task(capsys, tmp_path, monkeypatch):
    importlib.import_module("motet.cli.bench")  # before sizes are replaced
    monkeypatch.setattr("motet.evaluation.bench_models.BenchSizes", lambda: SIZES)
    memory = LogProbMemory(1000, 0.1, 4.0, 1.0, 3.0, 9.0)
    monkeypatch.setattr("motet.evaluation.bench_logprobs.bench_logprob_memory", lambda: [memory])
    options = ("--prompts", 2, "--generations", 2, "--prompt-tokens", 6, "--repeats", 1, "--json", tmp_path / "l.json")
    answer = motet_command(capsys, "bench", "learner", "--task", "image", "--task", "memory", *options)
    assert answer.code == 0, answer.err
    assert "eager loop" in answer.out and "vocabulary" in answer.out
    found = json.loads((tmp_path / "l.json").read_text())
    assert found["machine"]["threads"] == torch.get_num_threads() and found["machine"]["processor"]
    assert [row["task"] for row in found["steps"]] == ["image"] and found["memory"] == [asdict(memory)]


def test_ratios_are_of_pairs():
    assert ratio_fields([1.0, 2.0, 1.0], [2.0, 2.0, 5.0]) == {"ratio": 2.0, "ratio_low": 1.0, "ratio_high": 5.0}


def test_peak_memory_starts_again_after_a_reset():
    device = torch.device("cpu")
    torch.ones(100 << 20, dtype=torch.uint8)
    high = peak_memory(device)
    reset_peak_memory(device)
    low = peak_memory(device)
    block = torch.ones(200 << 20, dtype=torch.uint8)
    assert low <= high and peak_memory(device) >= low + 0.9 * len(block)
