"""Record and check golden numbers: the metrics of short training runs, and digests of the weights that they leave.

    python scripts/golden.py record [CASE ...]     run each case twice, compare, write tests/golden/CASE.json
    python scripts/golden.py check [CASE ...]      run each case once and compare; exit status 1 if anything differs

Cases are in tests/golden/cases.yaml; no CASE means all. Every run is a subprocess of `python -m motet` on one thread in
float32 with the instruction set held at AVX2; nothing of motet is imported here.

The same code on the same machine gives the same bits. Where the recorded versions or processor differ from the present
ones, only the metrics of the first TOLERANT_STEPS steps are compared, to within RELATIVE of the value plus ABSOLUTE:
later a sampled token may differ, and with it everything.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
STEPS = 20
TOLERANT_STEPS, RELATIVE, ABSOLUTE = 3, 1e-3, 1e-5
MACHINE_DEPENDENT = ("time/", "step_time", "seconds", "images_per_second", "memory")
"""Prefixes of metrics that depend on the clock or the machine."""
NOT_WEIGHTS = ("learner.safetensors",)
"""Files of a checkpoint with the optimizer state, not weights."""
ABSENT = "absent"
"""Marks a metric that a step does not log; null marks one that is not finite."""
MAX_LINES = 5
"""Most differences shown per run."""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "PYTHONPATH": str(ROOT),
}
"""The environment variables of every run."""


@dataclass(frozen=True)
class Outcome:
    """A comparison: its kind, the number of compared values, and lines describing the first differences."""

    comparison: str
    values: int
    differences: list[str]


def cases() -> dict[str, dict[str, Any]]:
    """The cases by name."""
    content = yaml.safe_load((GOLDEN / "cases.yaml").read_text(encoding="utf-8"))
    return {name: case for name, case in content.items() if not name.startswith(".")}


@cache
def environment() -> dict[str, str]:
    """Versions and hardware that the bits of a run depend on."""
    asked = [sys.executable, "-c", "import torch; print(torch.__version__, torch.backends.cpu.get_cpu_capability())"]
    torch, capability = subprocess.run(
        asked, env={**os.environ, **ENVIRONMENT}, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    others = {name: version(name) for name in ("transformers", "diffusers", "peft")}
    return {"torch": torch, **others, "cpu_capability": capability, "processor": processor()}


def processor() -> str:
    """Vendor, family and model of the processor on Linux, otherwise the machine type."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    pairs = [line.partition(":") for line in reversed(lines)]  # the first processor is the last to be read
    found = {key.strip(): value.strip() for key, _, value in pairs}
    return " ".join(found.get(key, "?") for key in ("vendor_id", "cpu family", "model"))


def run_case(name: str) -> dict[str, Any]:
    """Run a case: the metrics and the digests of each of its run folders. Raises RuntimeError if it fails."""
    case = cases()[name]
    with tempfile.TemporaryDirectory() as temporary:
        recipe, output = case["recipe"], Path(temporary) / "run"
        if not isinstance(recipe, str):
            recipe_file = Path(temporary) / f"{name}.yaml"
            recipe_file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
            recipe = str(recipe_file)
        command = [sys.executable, "-m", "motet", case["command"], recipe, *case.get("overrides", ())]
        command += ["--only", case["only"]] if "only" in case else []
        command += ["--output", str(output)]
        done = subprocess.run(
            command, env={**os.environ, **ENVIRONMENT}, cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stdout}\n{done.stderr}")
        return {folder: read_run(output / folder) for folder in case.get("folders", ["."])}


def read_run(folder: Path) -> dict[str, Any]:
    """The metrics of a run folder, key by key, and digests of its checkpoints."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    keys = sorted({key for line in lines for key in line if not key.startswith(MACHINE_DEPENDENT)})
    checkpoints = sorted((folder / "checkpoints").iterdir())
    return {
        "metrics": {key: [line.get(key, ABSENT) for line in lines] for key in keys},
        "weights": {checkpoint.name: digests(checkpoint) for checkpoint in checkpoints},
    }


def digests(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of all weights, with names and without; the second does not change if parameters are renamed."""
    named, contents = hashlib.sha256(), []
    for name, content in sorted(tensors(checkpoint)):
        named.update(f"{name} {content}\n".encode())
        contents.append(content)
    return {"named": named.hexdigest(), "contents": hashlib.sha256("\n".join(sorted(contents)).encode()).hexdigest()}


def tensors(checkpoint: Path) -> Iterator[tuple[str, str]]:
    """For each tensor of a checkpoint folder: its file and name, and a digest of dtype, shape and bytes."""
    for path in checkpoint.rglob("*.safetensors"):
        if path.name in NOT_WEIGHTS:
            continue
        content = path.read_bytes()
        (size,) = struct.unpack_from("<Q", content)
        header, data = json.loads(content[8 : 8 + size]), memoryview(content)[8 + size :]
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                digest = hashlib.sha256(f"{entry['dtype']} {entry['shape']}\n".encode())
                digest.update(data[begin:end])
                yield f"{path.relative_to(checkpoint).as_posix()}:{name}", digest.hexdigest()


def compare(expected: dict[str, Any], found: dict[str, Any], *, exact: bool) -> tuple[int, list[str]]:
    """The number of compared values, and the first differences of each run folder."""
    values, differences = 0, []
    for folder in expected:
        old, new = expected[folder], found[folder]
        count, lines = compare_metrics(old["metrics"], new["metrics"], exact=exact)
        values += count
        if exact:
            for name, digest in old["weights"].items():
                values += len(digest)
                if digest != new["weights"].get(name):
                    same = digest["contents"] == new["weights"].get(name, {}).get("contents")
                    why = "names differ, contents are equal" if same else "weights differ"
                    lines.append(f"{name}: {why}")
            lines += [f"{name}: not recorded" for name in new["weights"].keys() - old["weights"].keys()]
        differences += [f"{folder}: {line}" for line in lines]
    return values, differences


def compare_metrics(old: dict[str, list[Any]], new: dict[str, list[Any]], *, exact: bool) -> tuple[int, list[str]]:
    """The number of compared values; keys that only one side has and the first step that differs, with both values."""
    lines = [f"{key} is missing" for key in sorted(old.keys() - new.keys())]
    lines += [f"{key} is new" for key in sorted(new.keys() - old.keys())]
    shared = sorted(old.keys() & new.keys())
    lengths = sorted({(len(old[key]), len(new[key])) for key in shared if len(old[key]) != len(new[key])})
    lines += [f"{recorded} steps are recorded, {run} were run" for recorded, run in lengths]
    pairs = [
        (step, key, *both)
        for key in shared
        for step, both in enumerate(zip(old[key], new[key], strict=False), 1)
        if exact or step <= TOLERANT_STEPS
    ]
    wrong = sorted((step, key, a, b) for step, key, a, b in pairs if not equal(a, b, exact=exact))
    first = [one for one in wrong if one[0] == wrong[0][0]]
    lines += [f"step {step}: {key} is {b!r}, recorded {a!r}" for step, key, a, b in first[:MAX_LINES]]
    if len(wrong) > MAX_LINES:
        lines.append(f"{len(wrong)} metrics differ in all, {len(first)} of them at step {wrong[0][0]}")
    return len(pairs), lines


def equal(old: Any, new: Any, *, exact: bool) -> bool:
    """Whether two values of a metric are equal, or within the tolerance unless `exact`."""
    if exact or not all(isinstance(value, int | float) for value in (old, new)):
        return old == new
    return math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def check(name: str) -> Outcome:
    """Run a case and compare it with what is recorded."""
    recorded = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    here = environment()
    changed = [f"{key} {recorded['environment'].get(key)} -> {value}" for key, value in here.items()
               if recorded["environment"].get(key) != value]  # fmt: skip
    values, differences = compare(recorded["runs"], run_case(name), exact=not changed)
    how = "bit for bit"
    if changed:
        how = f"steps 1 to {TOLERANT_STEPS} within {RELATIVE:g} of the value (recorded elsewhere: {', '.join(changed)})"
    return Outcome(how, values, differences)


def record(name: str) -> Outcome:
    """Run a case twice and write its results if both agree and every step has a gradient. Raises RuntimeError."""
    runs = run_case(name)
    values, differences = compare(runs, run_case(name), exact=True)
    for folder, run in runs.items():
        norms = run["metrics"]["grad_norm"]
        still = [step for step, norm in enumerate(norms, 1) if not isinstance(norm, float) or norm == 0]
        if len(norms) != STEPS or still:
            differences.append(f"{folder}: {len(norms)} steps, expected {STEPS}; without a gradient: {still}")
    if not differences:
        (GOLDEN / f"{name}.json").write_text(as_json({"environment": environment(), "runs": runs}), encoding="utf-8")
    return Outcome("recorded twice", values, differences)


def as_json(content: dict[str, Any]) -> str:
    """As JSON, with every metric on its own line."""

    def lines(value: Any, indent: str) -> str:
        if not isinstance(value, dict):
            return json.dumps(value)
        inner = indent + " "
        entries = ",\n".join(f"{inner}{json.dumps(key)}: {lines(one, inner)}" for key, one in value.items())
        return f"{{\n{entries}\n{indent}}}"

    return lines(content, "") + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "check"))
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(cases())}; none: all")
    parser.add_argument("--jobs", type=int, default=1, help="cases to run at the same time")
    asked = parser.parse_args()
    unknown = set(asked.cases) - cases().keys()
    if unknown:
        parser.error(f"unknown case {', '.join(sorted(unknown))}; expected some of {', '.join(cases())}")
    action = {"record": record, "check": check}[asked.action]

    def one(name: str) -> bool:
        start = time.monotonic()
        try:
            outcome = action(name)
        except (RuntimeError, OSError) as error:
            outcome = Outcome("not compared", 0, [str(error)])
        said = f"{len(outcome.differences)} differences" if outcome.differences else "equal"
        print(f"{name}: {outcome.values} values, {outcome.comparison}: {said} ({time.monotonic() - start:.0f} s)")
        print("".join(f"    {line}\n" for line in outcome.differences), end="", flush=True)
        return not outcome.differences

    with ThreadPoolExecutor(asked.jobs) as pool:
        good = list(pool.map(one, asked.cases or cases()))
    print(f"{sum(good)} of {len(good)} cases are {'recorded' if asked.action == 'record' else 'equal'}")
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
