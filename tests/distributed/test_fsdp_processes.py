"""FSDP2 in two processes, whose acts differ in kind, number and shape: the gradient is that of one process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from motet.config import PolicyConfig
from motet.core.conversation import user
from motet.core.protocols import Request
from motet.core.trajectory import Act, Sampling
from motet.distributed.fully_sharded import FullySharded
from motet.distributed.parallel import Parallel
from motet.distributed.processes import Processes
from motet.policies.shards import full_data
from motet.policies.unified import UnifiedPolicy
from motet.training.batches import micro_batches
from tests.distributed.mixed_run import SAMPLING, mixed_policy
from tests.distributed.spawned import run_in_processes
from tests.runs import SIZES, save_tiny_janus

pytestmark = pytest.mark.slow


def acts_for(policy: UnifiedPolicy, rank: int) -> list[Act]:
    """Process 0: texts that share a prompt, one about an image. Process 1: images and texts of prompts of their own."""
    if rank == 0:
        shared = user("draw three red circles")
        (image,) = policy.text_policy.generate_images("a star")
        asked = [shared, shared, shared, user(image.image, "what is it?")]
        return policy.act([Request("text", "t", context, (0, n)) for n, context in enumerate(asked)], SAMPLING["text"])
    drawn = policy.act([Request("image", "i", user(f"draw {n}"), (1, n)) for n in range(3)], SAMPLING["image"])
    painted = [Request("denoising", "d", act.context + act.to_conversation(), (2, n)) for n, act in enumerate(drawn)]
    texts = [Request("text", "t", user(f"hello {'x' * n}"), (3, n)) for n in range(2)]
    return [*drawn, *policy.act(painted, SAMPLING["denoising"]), *policy.act(texts, Sampling(max_tokens=1))]


def gradients(parallel: Parallel, policy: UnifiedPolicy, acts: list[Act], budget: int) -> dict[str, torch.Tensor]:
    """Of a weighted sum of log-probs; clipped, so that the norm counts too."""
    batches = list(micro_batches([policy.num_tokens(act) for act in acts], budget))
    for chosen, members in parallel.agree_on_passes(policy, acts, batches):
        total = sum(
            replay.log_probs.sum() * float(act.log_probs.sum().sin())
            for act, replay in zip(chosen, parallel.replay(policy, chosen), strict=True)
        )
        (total * (0.0 if members is None else 1.0)).backward()
    parameters = list(policy.trainable().values())
    parallel.reduce_gradients(parameters)
    norm = torch.as_tensor(parallel.clip_gradient(parameters, 1.0)).clone()
    whole = {name: full_data(p.grad) for name, p in policy.trainable().items() if p.grad is not None}
    return {"norm": norm, **whole}


def peak_of_loading(parallel: Parallel, folder: Path) -> float:
    """By how many megabytes the most memory that this process ever had grows when a policy is opened."""
    before = peak_memory()
    parallel.load_policy(PolicyConfig(path=str(folder), device="cpu", dtype="float32", rollout_dtype="float32"))
    return peak_memory() - before


def peak_memory() -> float:
    """Of this process, in megabytes, from what Linux says: `getrusage` counts the process that started this one too."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def gradients_of_two(processes: Processes, janus: Path, large: Path) -> dict[str, Any]:
    parallel = FullySharded(processes)
    megabytes = peak_of_loading(parallel, large)
    policy = mixed_policy(janus, parallel=parallel)
    assert policy.text_policy.model.lm_head.weight.is_meta == (not processes.is_main)
    parallel.prepare(policy)
    with parallel.full_weights(policy):
        acts = acts_for(policy, processes.rank)
    with torch.no_grad():  # a replay without gradient leaves nothing behind
        for chosen, _ in parallel.agree_on_passes(policy, acts, [list(range(len(acts)))]):
            parallel.replay(policy, chosen)
    found = gradients(parallel, policy, acts, 200)
    return {**found, "error": error_of_another(processes, parallel, policy), "megabytes": megabytes}


def error_of_another(processes: Processes, parallel: Parallel, policy: UnifiedPolicy) -> str:
    """What process 0 raises when process 1 fails while both should gather weights."""
    try:
        with processes.phase("replay"):
            if processes.rank == 1:
                raise OSError("out of paper")
            with parallel.full_weights(policy):
                pass
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_two_processes_add_up_to_one(tmp_path):
    janus = save_tiny_janus(tmp_path / "janus")
    sizes = replace(SIZES, hidden=768, layers=6, heads=4, intermediate=2048)
    large = save_tiny_janus(tmp_path / "large", dtype=torch.bfloat16, sizes=sizes)
    policy = mixed_policy(janus)
    acts = [*acts_for(policy, 0), *acts_for(policy, 1)]
    alone = gradients(Parallel(), policy, acts, 10_000)
    results = run_in_processes(gradients_of_two, 2, tmp_path / "two", janus, large)
    assert results[0]["error"].startswith("ProcessError: Process 1 failed in phase 'replay'")
    assert "out of paper" in results[0]["error"] and results[1]["error"] == "OSError: out of paper"
    weights = 2 * (large / "model.safetensors").stat().st_size / 2**20  # stored in bfloat16, read as float32
    assert results[0]["megabytes"] > weights > 150 and results[1]["megabytes"] < 0.5 * results[0]["megabytes"]
    for together in results:
        assert together.keys() - alone.keys() == {"error", "megabytes"}
        for name, gradient in alone.items():
            torch.testing.assert_close(
                together[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}"
            )
