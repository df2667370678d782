"""AdamW's fused kernel, which a GPU gets: the same update, and its state survives a checkpoint. A CPU has one too."""

import pytest
import torch
from torch import Tensor

from motet.config import OptimizerConfig
from motet.training.learner_state import StoredLearner, learner_tensors, on_cpu
from motet.training.optimizer_step import PolicyOptimizer
from motet.weights.locate import LEARNER
from motet.weights.safetensors_io import save_tensors
from tests.tiny_policy import TinyPolicy

CONFIG = OptimizerConfig(learning_rate=0.1, weight_decay=0.1)


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda self: True))


def stepped(optimizer, steps=3):
    for step in range(steps):
        for number, parameter in enumerate(optimizer.parameters):
            generator = torch.Generator().manual_seed(10 * step + number)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.adamw.step()


def test_a_cpu_keeps_the_default():
    assert PolicyOptimizer(TinyPolicy(), CONFIG, 1).adamw.defaults["fused"] is None


def test_a_gpu_gets_the_fused_kernel_and_the_same_update(cuda, monkeypatch):
    fused = PolicyOptimizer(TinyPolicy(), CONFIG, 1)
    assert fused.adamw.defaults["fused"] is True
    monkeypatch.undo()
    plain = PolicyOptimizer(TinyPolicy(), CONFIG, 1)
    for optimizer in (fused, plain):
        stepped(optimizer)
    for ours, other in zip(fused.parameters, plain.parameters, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6)


def test_its_state_survives_a_checkpoint(cuda, tmp_path):
    first, second = (PolicyOptimizer(TinyPolicy(), CONFIG, 1) for _ in range(2))
    stepped(first)
    save_tensors(tmp_path / LEARNER, on_cpu(learner_tensors(first.policy, first)))
    StoredLearner(tmp_path, whole=True).load(second.policy, second)
    for optimizer in (first, second):
        stepped(optimizer, 2)
    for ours, other in zip(first.parameters, second.parameters, strict=True):
        assert torch.equal(ours, other) and second.adamw.state[other]["step"].device == other.device
