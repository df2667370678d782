"""`torchrun` on this machine, and a recipe that mixes texts, image tokens and denoising for its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file
from torch import Tensor

from tests.distributed.mixed_run import TRAIN, mixed_policy
from tests.runs import WORLD, metrics, save_tiny_janus

REWARDS = f"{Path(__file__).parent.parent / 'fake_rewards.py'}:"
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Ended:
    """How a launch ended: its exit status, what it printed, and its seconds."""

    code: int
    out: str
    seconds: float


def torchrun(
    processes: int, *arguments: object, when: Callable[[], bool] | None = None, number: int = signal.SIGINT
) -> Ended:
    """`motet ARGUMENTS` in several processes. `when` it is true, torchrun gets a signal (Ctrl-C)."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, "-m", "motet", *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        while when is not None and process.poll() is None:
            if when():
                process.send_signal(number)
                break
            time.sleep(0.1)
        out, _ = process.communicate(timeout=240)
    finally:
        process.kill()
    return Ended(process.returncode, out, time.monotonic() - started)


def mixed_checkpoint(folder: Path) -> Path:
    """A policy that writes, samples image tokens and denoises."""
    mixed_policy(save_tiny_janus(folder / "janus")).save(folder / "mixed")
    return folder / "mixed"


def write_mixed_recipe(path: Path, checkpoint: Path, **run: Any) -> Path:
    """Three prompts a step, thought, tokens and image of each; a KL, and a gradient that is clipped at times."""
    content = {
        "policy": {"path": str(checkpoint), "device": "cpu", "train": TRAIN},
        "scenario": "think_tokens_then_flow",
        "data": {"source": "shapes", "options": dict(WORLD)},
        "rewards": [
            {"name": f"{REWARDS}reddish", "acts": ["tokens", "image"]},
            {"name": f"{REWARDS}spacious", "acts": ["thought"]},
        ],
        "algorithm": {"num_generations": 2, "beta": 0.1, "advantage_assignment": "factorized"},
        "sampling": {"text": {"max_tokens": 8}, "denoising": {"num_steps": 4}},
        "optimizer": {"learning_rate": 0.003, "max_grad_norm": 0.5},
        "eval": {"suite": "none"},
        "run": {"steps": 5, "prompts_per_step": 3, "log_samples_every": 1, "threads": 1, **run},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def saved_weights(run: Path, step: int) -> dict[str, Tensor]:
    """The trained weights of a run's checkpoint, but those whose gradient is nothing but rounding.

    The bias of the keys of a cross-attention adds the same to all scores of a query, which softmax does not see: its
    gradient is zero but for rounding, which AdamW makes as large as any other.
    """
    stored = load_file(run / "checkpoints" / f"step_{step:06d}" / "learner.safetensors")
    weights = {name.removesuffix("|weight"): value for name, value in stored.items() if name.endswith("|weight")}
    return {name: value for name, value in weights.items() if not name.endswith("to_k.bias")}


def samples(run: Path) -> dict[str, bytes]:
    """The texts of a run by file, and its image grids."""
    return {path.name: path.read_bytes() for path in sorted((run / "samples").iterdir())}


def rewards(run: Path) -> list[float]:
    """The rewards of every step."""
    return [line["reward"] for line in metrics(run)]
