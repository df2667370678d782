"""A small policy that writes, draws tokens and denoises, and optimizer steps over all three kinds of acts."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from motet.config import OptimizerConfig, PolicyConfig
from motet.core.task import Task
from motet.core.trajectory import Act, Group, Sampling
from motet.distributed.parallel import Parallel
from motet.policies.diffusion.models import build_denoiser
from motet.policies.janus import JanusPolicy
from motet.policies.unified import UnifiedPolicy
from motet.policies.unified.connector import ConnectorConfig, QueryConnector
from motet.scenarios import think_tokens_then_flow
from motet.training.batches import StepBatch
from motet.training.optimizer_step import PolicyOptimizer
from motet.training.rollout import rollout
from tests.losses import algorithm, losses
from tests.policies.unified import SIDE, transformer

TRAIN = ["language_model", "lm_head", "generation_head", "vision_model", "connector", "transformer"]
SAMPLING = {"text": Sampling(max_tokens=4), "image": Sampling(), "denoising": Sampling(num_steps=4, noise_level=0.7)}


def mixed_policy(
    janus: Path, train: list[str] = TRAIN, dtype: str = "float32", parallel: Parallel | None = None
) -> UnifiedPolicy:
    """The same model at every call: a saved tiny Janus, and a denoiser over its image tokens."""
    types = {"dtype": dtype, "rollout_dtype": dtype}
    config = PolicyConfig.model_validate({"path": str(janus), "device": "cpu", **types})
    reader = (parallel or Parallel()).load_policy(config)
    assert isinstance(reader, JanusPolicy)
    denoiser = build_denoiser(transformer("sana"), None, FlowMatchEulerDiscreteScheduler(shift=1.0))
    sizes = ConnectorConfig(
        reader.model.config.text_config.hidden_size, denoiser.condition_width, denoiser.pooled_width,
        num_queries=reader.num_image_tokens, num_blocks=1, num_heads=2, feed_forward=48, reads="tokens",
    )  # fmt: skip
    torch.manual_seed(4)
    connector = QueryConnector(sizes)
    with torch.no_grad():
        connector.connector.place.normal_(std=0.3)
        for name, weight in denoiser.transformer.named_parameters():
            if "scale_shift_table" not in name and weight.ndim > 1:
                weight.normal_(std=0.2)
    policy = UnifiedPolicy(reader, connector, denoiser, height=SIDE, width=SIDE, autocast=reader.autocast)
    policy.train_parts(train)
    return policy


def roll_out(policy: UnifiedPolicy, tasks: list[int], step: int) -> list[Group]:
    """Groups of two generations of some tasks."""
    rows = [Task(n, {"prompt": f"draw {n} red circles"}) for n in tasks]
    return rollout(policy, think_tokens_then_flow, rows, 2, samplings=SAMPLING, seed=3, step=step)


def acts_of(groups: list[Group]) -> list[Act]:
    return [act for group in groups for t in group.trajectories for act in t.acts if act.num_actions]


def train(
    policy: UnifiedPolicy, parallel: Parallel, steps: int, tasks: int = 4, budget: int = 200
) -> tuple[PolicyOptimizer, list[dict[str, float]]]:
    """Optimizer steps with a KL and clipping at work, in one process; the advantage of an act is a function of it."""
    parallel.prepare(policy)
    policy.freeze_reference()
    config = OptimizerConfig(max_tokens_per_microbatch=budget, max_grad_norm=0.5, learning_rate=1e-3, warmup_steps=0)
    optimizer, stats = PolicyOptimizer(policy, config, steps, parallel=parallel), []
    for step in range(steps):
        with parallel.full_weights(policy):
            acts = acts_of(roll_out(policy, list(range(step * tasks, (step + 1) * tasks)), step))
        with policy.reference(), torch.no_grad():
            reference = [parallel.replay(policy, [act], ["mean"])[0] for act in acts]
        advantages = [float(act.log_probs.sum().sin()) for act in acts]
        batch = StepBatch(acts, advantages, None, reference)
        stats.append(optimizer.step(batch, losses(algorithm(beta=0.1))))
        optimizer.free_gradients()
    return optimizer, stats
