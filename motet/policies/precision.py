"""The compute type of forward passes: what `policy.dtype: auto` and `policy.rollout_dtype: auto` mean here.

On CUDA bfloat16 where the card computes in it. On a CPU what a quick measurement says: a processor without bfloat16
units (no AVX512-BF16, no AMX) takes ten to a hundred times as long for a bfloat16 product as for a float32 one, one
with such units a fraction. Learning and sampling are measured apart: sampling multiplies few rows at a time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from motet.config import PolicyConfig

Dtype = Literal["float32", "bfloat16"]
Work = Literal["learning", "sampling"]
WORKS: dict[Work, str] = {"learning": "dtype", "sampling": "rollout_dtype"}
"""The key of `policy` that names the compute type of each kind of work."""

NARROW = 256
"""Below this width float32 is taken unmeasured: products are a small part of a step. A recipe may still ask for
bfloat16: a supervised step of 128 features takes 0.65 s instead of 0.9 on an AMD EPYC with bfloat16 units."""
WIDEST = 512
"""Wider models are measured at this width, which takes a second at most."""
WORTH = 0.8
"""bfloat16 rounds, so it has to be faster than float32 by more than the noise of a quick measurement."""
LEARNING_ROWS, SAMPLING_ROWS = 256, 64


@dataclass(frozen=True)
class ComputeTypes:
    """Compute types of learning and of sampling, and why: one line for people, empty where the recipe chose both."""

    learning: Dtype
    sampling: Dtype
    reason: str = ""

    def applied_to(self, settings: PolicyConfig) -> PolicyConfig:
        """The settings with both keys decided."""
        return settings.model_copy(update={"dtype": self.learning, "rollout_dtype": self.sampling})


def choose_compute_types(settings: PolicyConfig, device: torch.device, width: int) -> ComputeTypes:
    """Decide `dtype` and `rollout_dtype` on a device, for layers of `width` features.

    A setting that is not `auto` stays. `rollout_dtype: auto` on an accelerator follows `dtype`.
    """
    chosen: dict[Work, Dtype] = {}
    reasons: dict[str, list[str]] = {}
    for work, setting in WORKS.items():
        given: Literal["auto", "float32", "bfloat16"] = getattr(settings, setting)
        best, why = _best(device, width, work)
        if work == "sampling" and device.type != "cpu":
            best = chosen["learning"]
        chosen[work] = best if given == "auto" else given
        if given == "auto":
            reasons.setdefault(f"in {best}: {why}", []).append(work)
        elif device.type == "cpu" and given == "bfloat16" and best == "float32" and width >= NARROW:
            reasons.setdefault(f"in bfloat16, as policy.{setting} asks, though {why}", []).append(work)
    said = "; ".join(f"{' and '.join(works)} {reason}" for reason, works in reasons.items())
    return ComputeTypes(chosen["learning"], chosen["sampling"], f"On {device.type}: {said}." if said else "")


def width_of(source: str | Path) -> int:
    """Features of the widest layers that the configs in a checkpoint folder tell of; of a hub id `WIDEST`."""
    files = [file for depth in ("", "*/", "*/*/") for file in Path(source).glob(f"{depth}config.json")]
    widths = [width for file in files for width in _widths(file)]
    return max(widths, default=WIDEST)


def _widths(file: Path) -> Iterator[int]:
    """Of transformers' language models and of diffusers' transformers; a broken file is reported where it is loaded."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        for section in (config, config.get("text_config") or {}):
            if "hidden_size" in section:
                yield int(section["hidden_size"])
            elif "attention_head_dim" in section:
                yield int(section["num_attention_heads"]) * int(section["attention_head_dim"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return


def _best(device: torch.device, width: int, work: Work) -> tuple[Dtype, str]:
    """The faster compute type of a kind of work, and why."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the GPU supports it"
        return "float32", "the GPU has no bfloat16 units"
    if device.type != "cpu":
        return "float32", f"bfloat16 is not tried on {device.type}"
    if width < NARROW:
        return "float32", f"with layers of {width} features, fewer than {NARROW}, bfloat16 is not tried"
    ratio = _cpu_ratio(min(width, WIDEST), LEARNING_ROWS if work == "learning" else SAMPLING_ROWS, work == "learning")
    return "bfloat16" if ratio < WORTH else "float32", f"bfloat16 takes {ratio:.2g} times as long as float32"


@cache
def _cpu_ratio(width: int, rows: int, learning: bool) -> float:
    """Time of a feed-forward block under bfloat16 autocast over its time in float32, each the best of three."""
    with torch.random.fork_rng(devices=[]):  # the run's own random numbers go on as if nothing had been measured
        block = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        inputs = torch.randn(rows, width)

    def work(bfloat16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16), torch.set_grad_enabled(learning):
            outputs = block(inputs)
        if learning:
            outputs.float().sum().backward()

    single = _seconds(lambda: work(False))
    return _seconds(lambda: work(True), too_long=10 * single) / single


def _seconds(work: Callable[[], None], too_long: float = math.inf) -> float:
    """The fastest of three calls after one to warm up; that one alone where it took too long already."""
    calls: list[float] = []
    for _ in range(4):
        began = time.perf_counter()
        work()
        calls.append(time.perf_counter() - began)
        if calls[0] > too_long:
            return calls[0]
    return min(calls[1:])
