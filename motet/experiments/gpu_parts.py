"""The parts of `motet.experiments.gpu_check` beside equality: install, tests, torchrun, and timed steps."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from motet.config import parse_recipe
from motet.core.errors import ProcessError
from motet.estimation.hardware import DEVICES, Device
from motet.evaluation.bench_step import StepTimes, bench_step
from motet.evaluation.measuring import describe_machine, matmul_rate, memory_bandwidth
from motet.report.callbacks import Callback

TOLERANCE = 1e-3
"""How far a metric under torchrun may be from that of a plain run, relative to its size, plus 1e-5."""
COMPARED = ("loss", "grad_norm", "reward")
LINES = 40
"""Of the output of a command that failed."""


@dataclass(frozen=True)
class Size:
    """A model and a step of it: P prompts, G generations. `published` is a name of `scripts/make_janus.py`, None for
    the checkpoint of the repository.
    """

    published: str | None
    canvas: int
    prompts: int
    generations: int
    text_tokens: int
    steps: int


SIZES = {
    "janus-pro-1b": Size("Janus-Pro-1B", 384, prompts=4, generations=8, text_tokens=512, steps=2),
    "tiny": Size(None, 24, prompts=2, generations=2, text_tokens=16, steps=1),
}


@dataclass(frozen=True)
class Check:
    """What every part is given: the device, the size of the timed steps, a folder to write in, and the checkout."""

    device: torch.device
    size: Size
    folder: Path
    root: Path


def describe_install(check: Check) -> dict[str, Any]:
    """Versions, the card, and what it reaches: large matrix products in bfloat16, and a copy."""
    found: dict[str, Any] = {"passed": True, "machine": describe_machine()}
    found["packages"] = {
        name: importlib.util.find_spec(name) is not None
        for name in ("peft", "diffusers", "ray", "liger_kernel", "triton")
    }
    if check.device.type == "cuda":
        properties = torch.cuda.get_device_properties(check.device)
        found |= {
            "cuda": torch.version.cuda,
            "capability": list(torch.cuda.get_device_capability(check.device)),
            "memory_gb": properties.total_memory / 1e9,
            "bfloat16": torch.cuda.is_bf16_supported(),
        }
        found["passed"] = found["bfloat16"]
    return {**found, "limits": limits(check.device)}


def limits(device: torch.device) -> dict[str, float | None]:
    """What is measured on the device, and what its vendor states (None for cards that motet does not know)."""
    known = vendor_figures(device)
    return {
        "bfloat16_rate": matmul_rate(device, torch.bfloat16),
        "float32_rate": matmul_rate(device, torch.float32),
        "bandwidth": memory_bandwidth(device),
        "vendor_bfloat16_rate": None if known is None else known.bfloat16,
        "vendor_bandwidth": None if known is None else known.bandwidth,
    }


def vendor_figures(device: torch.device) -> Device | None:
    """The device among those of `motet estimate`, found by the card's name."""
    if device.type != "cuda":
        return None
    name = re.sub(r"\W", "", torch.cuda.get_device_name(device).lower())
    return next((known for key, known in DEVICES.items() if all(part in name for part in key.split("-"))), None)


def run_gpu_tests(check: Check) -> dict[str, Any]:
    """`pytest -m gpu`."""
    if check.device.type != "cuda":
        return {"passed": None, "skipped": "these tests need a CUDA device"}
    if importlib.util.find_spec("pytest") is None:
        return {"passed": False, "error": "pytest is not installed: pip install -e '.[dev]'"}
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", "--basetemp", str(check.folder / "tests")]
    ended = _python(check, ["-m", "pytest", *options])
    return {"passed": ended.returncode == 0, "output": _last_lines(ended.stdout)}


def run_torchrun(check: Check) -> dict[str, Any]:
    """A run of three steps as one process, under torchrun as replicas, and under torchrun with sharded weights."""
    recipe = check.folder / "torchrun.yaml"
    source = check.root / "checkpoints" / "shapes_janus"
    content = _step_recipe(check, str(source), SIZES["tiny"], images_only=False, dtype="float32")
    content |= {"run": {"steps": 3, "prompts_per_step": 2, "seed": 0}, "eval": {"suite": "none"}}
    recipe.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    train = ["-m", "motet", "train", str(recipe), "--output"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    plain = _metrics(check, [*train, str(check.folder / "plain")], check.folder / "plain")
    found: dict[str, Any] = {}
    for parallel in ("replicas", "fsdp"):
        folder = check.folder / parallel
        own = _metrics(check, [*launch, *train, str(folder), "--parallel", parallel], folder)
        found[parallel] = max(
            abs(a[key] - b[key]) / (abs(a[key]) * TOLERANCE + 1e-5) * TOLERANCE
            for a, b in zip(plain, own, strict=True)
            for key in COMPARED
        )
    return {
        "passed": max(found.values()) <= TOLERANCE,
        "largest_relative_difference": found,
        "bound": TOLERANCE,
        "metrics": {key: [line[key] for line in plain] for key in COMPARED},
    }


def time_steps(check: Check) -> dict[str, Any]:
    """Training steps on images alone, with their shares of the device's limits, and on images and texts."""
    source = _checkpoint(check)
    found: dict[str, Any] = {"passed": True}
    for name, images_only in (("images", True), ("images_and_texts", False)):
        recipe = parse_recipe(_step_recipe(check, source, check.size, images_only=images_only))
        try:
            times = bench_step(recipe, check.size.steps, 1, Callback())
        except torch.OutOfMemoryError as error:
            found |= {"passed": False, name: {"error": str(error)}}
        else:
            found[name] = asdict(times)
            if images_only:
                found["shares"] = shares(check, times, source)
        if check.device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def shares(check: Check, times: StepTimes, source: str) -> dict[str, Any]:
    """Bytes that sampling moves and operations that training takes, over what the device does in that time.

    Sampling moves at least the weights of layers and image head once per token, and the keys and values of all rows;
    training takes 6 operations per weight and token, and attention is left out. So both shares are lower bounds.
    """
    config: Any = AutoConfig.from_pretrained(source)
    text, size = config.text_config, check.size
    width, num_tokens = text.hidden_size, config.vision_config.num_image_tokens
    heads = text.num_attention_heads + 2 * text.num_key_value_heads
    head_dim = width // text.num_attention_heads
    layer = width * heads * head_dim + width * width + 3 * width * text.intermediate_size
    weights = text.num_hidden_layers * layer + width * width + width * config.vq_config.num_embeddings
    rows, bytes_each = 2 * size.prompts * size.generations, 2 if check.device.type == "cuda" else 4
    cached = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * rows * num_tokens / 2
    moved, operations = num_tokens * bytes_each * (weights + cached), 6 * weights * rows * num_tokens
    limit = limits(check.device)
    achieved = {"bandwidth": moved / times.seconds["rollout"], "rate": operations / times.seconds["learn"]}
    dtype = "bfloat16_rate" if check.device.type == "cuda" else "float32_rate"
    vendor_bandwidth, vendor_rate = limit["vendor_bandwidth"], limit["vendor_bfloat16_rate"]
    return {
        "images_per_second_of_rollout": times.images / times.seconds["rollout"],
        "rollout_bytes_per_second": achieved["bandwidth"],
        "learn_operations_per_second": achieved["rate"],
        "share_of_measured_bandwidth": achieved["bandwidth"] / (limit["bandwidth"] or 1.0),
        "share_of_measured_rate": achieved["rate"] / (limit[dtype] or 1.0),
        "share_of_vendor_bandwidth": None if vendor_bandwidth is None else achieved["bandwidth"] / vendor_bandwidth,
        "share_of_vendor_bfloat16_rate": None if vendor_rate is None else achieved["rate"] / vendor_rate,
    }


def _step_recipe(check: Check, source: str, size: Size, *, images_only: bool, dtype: str = "auto") -> dict[str, Any]:
    """Guidance 5, random data, rewards that need no models; otherwise as `recipes/janus_pro_1b_step.yaml`."""
    image_reward = {"name": "jpeg_compressibility", "acts": ["image"]}
    text_reward = {"name": "format", "weight": 0.8, "acts": ["answer"]}
    image = {"guidance": "guided", "guidance_scale": 5.0}
    options: Mapping[str, Any] = {} if size.published is None else {"canvas": size.canvas}
    return {
        "policy": {
            "path": source,
            "device": str(check.device),
            "dtype": dtype,
            "rollout_dtype": dtype,
            "gradient_checkpointing": size.published is not None,
        },
        "scenario": "text_to_image" if images_only else "generate_and_answer",
        "data": {"source": "shapes", **({"options": options} if options else {})},
        "rewards": [image_reward] if images_only else [image_reward, text_reward],
        "algorithm": {"num_generations": size.generations, "loss": "grpo"},
        "sampling": {"image": image} if images_only else {"image": image, "text": {"max_tokens": size.text_tokens}},
        "optimizer": {"learning_rate": 1e-6, "max_tokens_per_microbatch": 16384},
        "run": {"steps": size.steps, "prompts_per_step": size.prompts, "seed": 0},
    }


def _checkpoint(check: Check) -> str:
    """The checkpoint whose steps are timed, made where it has a published size."""
    if check.size.published is None:
        return str(check.root / "checkpoints" / "shapes_janus")
    target = check.folder / "janus"
    script = check.root / "scripts" / "make_janus.py"
    ended = _python(check, [str(script), "--size", check.size.published, "--output", str(target)])
    _require_success(ended, "scripts/make_janus.py")
    return str(target)


def _metrics(check: Check, arguments: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """The metrics that a training run leaves in its folder."""
    _require_success(_python(check, arguments), " ".join(arguments[:4]))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _python(check: Check, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(check.root), "TMPDIR": str(check.folder)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=check.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )


def _require_success(ended: subprocess.CompletedProcess[str], name: str) -> None:
    if ended.returncode:
        raise ProcessError(
            f"{name} ended with status {ended.returncode}:\n{_last_lines(ended.stdout)}", fix="see its output above."
        )


def _last_lines(output: str) -> str:
    return "\n".join(output.splitlines()[-LINES:])
