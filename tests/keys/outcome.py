"""Everything that a tiny run leaves behind, as plain values that two runs can be compared by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import motet.distributed.parallel
import motet.training.fixed_prompts
from motet.config import parse_recipe
from motet.core.errors import MotetError
from motet.experiments.single_run import run_sft, run_training
from motet.report.run_dir import RunFolder
from motet.weights.locate import checkpoints

Outcome = dict[str, Any]
"""Parts by name:

`metrics/NAME` one list of numbers per metric; `weights` every saved tensor; `files` the names of all files;
`samples` texts, rewards and pictures of the sample files; `images/NAME.png`; `before`, `after`, `summary` the
measurements; `recipe` the saved recipe; `work/NAME` what was computed how: `work/linear_calls`, `work/linear_rows`
(rows of all products), `work/act_calls`, `work/threads`; `refused` the message of motet's error, if it was one.
"""
CLOCKS = ("time/", "step_time", "seconds", "images_per_second", "memory/")


def outcome_of(content: dict[str, Any], stage: str, folder: Path) -> Outcome:
    """Run a recipe's mapping in this process (`stage`: train or sft) and look at what it left."""
    run: Callable[..., None] = {"train": run_training, "sft": run_sft}[stage]
    outcome: Outcome = {}
    try:
        with counted(outcome):
            run(parse_recipe(content), RunFolder(folder, resume=False), "")
    except MotetError as error:
        outcome["refused"] = str(error)
    return outcome | left_in(folder) if folder.is_dir() else outcome


@contextmanager
def counted(outcome: Outcome) -> Iterator[None]:
    """Count the policy's calls and the products of linear layers; note the threads that are asked for."""
    linear, load_policy = torch.nn.functional.linear, motet.distributed.parallel.load_policy
    work = {"work/linear_calls": 0, "work/linear_rows": 0, "work/act_calls": 0, "work/replay_calls": 0}

    def counting_linear(x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        work["work/linear_calls"] += 1
        work["work/linear_rows"] += x.shape[:-1].numel()
        return linear(x, *rest, **more)

    def counting_policy(*args: Any, **kwargs: Any) -> Any:
        policy = load_policy(*args, **kwargs)
        for name in ("act", "replay"):
            setattr(policy, name, _counting(getattr(policy, name), work, f"work/{name}_calls"))
        return policy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motet.training.fixed_prompts, "PROMPTS", 1)  # each run records them at every step
        patch.setattr(torch.nn.functional, "linear", counting_linear)
        patch.setattr(torch, "set_num_threads", lambda count: outcome.setdefault("work/threads", count))
        patch.setattr(motet.distributed.parallel, "load_policy", counting_policy)
        yield
    outcome.update(work)


def _counting(method: Callable[..., Any], work: dict[str, int], name: str) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        work[name] += 1
        return method(*args, **kwargs)

    return called


def left_in(folder: Path) -> Outcome:
    """What a run's folder holds, without what depends on the clock."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    outcome: Outcome = {"files": [str(path.relative_to(folder)) for path in files]}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for name in sorted({name for line in lines for name in line if not name.startswith(CLOCKS)}):
        outcome[f"metrics/{name}"] = [line.get(name) for line in lines]
    for name in ("before", "after", "summary"):
        if (folder / f"{name}.json").is_file():
            found = json.loads((folder / f"{name}.json").read_text())
            outcome[name] = {key: value for key, value in found.items() if not key.startswith(CLOCKS)}
    saved = [path for step in checkpoints(folder / "checkpoints") for path in sorted(step.rglob("*.safetensors"))]
    outcome["weights"] = Weights([load_file(path) for path in saved if "learner" not in path.name])
    outcome["samples"] = [digest(path) for path in sorted((folder / "samples").glob("*"))]
    outcome["pictures"] = {path.name: digest(path) for path in folder.glob("*.png")}
    outcome["recipe"] = (folder / "recipe.yaml").read_text()
    return outcome


class Weights:
    """Saved tensors, equal to others within rounding: the last bits of products may differ between runs."""

    def __init__(self, files: list[dict[str, torch.Tensor]]) -> None:
        self.files = files

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Weights)
            and len(self.files) == len(other.files)
            and all(one.keys() == two.keys() for one, two in zip(self.files, other.files, strict=True))
            and all(
                one[name].shape == two[name].shape and torch.allclose(one[name], two[name], rtol=1e-5, atol=1e-7)
                for one, two in zip(self.files, other.files, strict=True)
                for name in one
            )
        )

    __hash__ = None  # type: ignore[assignment]


def digest(path: Path) -> str:
    """A digest of a file's bytes."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def differences(one: Outcome, other: Outcome) -> list[str]:
    """The parts in which two outcomes differ; the saved recipe does whenever a key does."""
    return [name for name in sorted(one.keys() | other.keys()) if name != "recipe" and one.get(name) != other.get(name)]


def same_parts(one: Outcome, other: Outcome, part: str) -> bool:
    """Whether a part is the same in both, `part/...` included."""
    names = [name for name in one.keys() | other.keys() if name == part or name.startswith(f"{part}/")]
    return all(one.get(name) == other.get(name) for name in names)
