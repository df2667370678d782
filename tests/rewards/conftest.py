"""A tiny Janus for rewards that ask the policy."""

from pathlib import Path

import pytest
import torch

from motet.config import PolicyConfig
from motet.policies import load_policy


@pytest.fixture
def janus(tiny_checkpoint: Path):
    """A tiny Janus whose hidden states and texts depend on what it sees."""
    policy = load_policy(tiny_checkpoint, PolicyConfig(path=str(tiny_checkpoint), device="cpu"))
    with torch.no_grad():
        policy.model.lm_head.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    return policy
