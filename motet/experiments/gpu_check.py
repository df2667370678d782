"""Everything that only a GPU can show, in one command and one JSON: see `scripts/gpu_check.sh`.

    python -m motet.experiments.gpu_check --output runs/gpu_check                       # where there is a CUDA device
    python -m motet.experiments.gpu_check --output runs/cpu --device cpu --size tiny    # the same parts on a CPU

Run in a checkout, whose tests and checkpoints it uses. Writes into the output folder only. Parts do not depend on each
other: one that fails is noted with its error, and the next one runs. The JSON is written again after every part.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from motet.core.errors import ConfigError, MotetError
from motet.core.printable import printable
from motet.experiments.gpu_equality import check_equality
from motet.experiments.gpu_parts import SIZES, Check, describe_install, run_gpu_tests, run_torchrun, time_steps

RESULT = "gpu_check.json"
PARTS: Mapping[str, Callable[[Check], dict[str, Any]]] = {
    "install": describe_install,
    "equality": check_equality,
    "tests": run_gpu_tests,
    "torchrun": run_torchrun,
    "steps": time_steps,
}
"""By name, in order. Each returns its figures with `passed`: True, False, or None where it does not apply."""


def gpu_check(output: Path, device: str, size: str, parts: Sequence[str] = tuple(PARTS)) -> dict[str, Any]:
    """Run the parts and write their results. Raises ConfigError where nothing can be checked."""
    require_device(device)
    if output.exists() and any(output.iterdir()):
        raise ConfigError(f"The output folder {str(output)!r} is in use.", fix="give another --output.")
    check = Check(torch.device(device), SIZES[size], output.resolve() / "work", _checkout())
    check.folder.mkdir(parents=True)
    results: dict[str, Any] = {"size": size, "device": device, "parts": {}}
    for name in parts:
        print(printable(f"{name} ..."), flush=True)
        started = time.monotonic()
        found = _run(PARTS[name], check)
        results["parts"][name] = {**found, "seconds_taken": time.monotonic() - started}
        results["passed"] = all(part["passed"] is not False for part in results["parts"].values())
        (output / RESULT).write_text(json.dumps(results, indent=2, default=str) + "\n", encoding="utf-8")
        said = {True: "passed", False: "FAILED", None: "does not apply"}[found["passed"]]
        print(printable(f"{name}: {said}{': ' + found['error'] if 'error' in found else ''}"), flush=True)
    return results


def require_device(device: str) -> None:
    """Raise ConfigError, saying what to do, where torch cannot use this device."""
    if device == "cpu" or torch.cuda.is_available():
        return
    build = torch.version.cuda
    if build is None:
        raise ConfigError(
            f"torch {torch.__version__} is a build without CUDA.",
            fix="install a CUDA build of torch into this environment, or run with --device cpu --size tiny to try the "
            "script itself.",
        )
    raise ConfigError(
        f"torch {torch.__version__} is built for CUDA {build} but sees no CUDA device.",
        fix="check `nvidia-smi`, the driver's version and CUDA_VISIBLE_DEVICES.",
    )


def _run(part: Callable[[Check], dict[str, Any]], check: Check) -> dict[str, Any]:
    try:
        return part(check)
    except Exception as error:  # whatever it is: it is a result
        if not isinstance(error, MotetError):
            traceback.print_exc()
        return {"passed": False, "error": f"{type(error).__name__}: {error}"}
    finally:
        if check.device.type == "cuda":
            torch.cuda.empty_cache()


def _checkout() -> Path:
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / "checkpoints" / "shapes_janus").is_dir():
        raise ConfigError(f"{root} is not a checkout of motet.", fix="run scripts/gpu_check.sh of a git checkout.")
    return root


def main() -> None:
    """Exit status 0: all parts passed; 1: some failed; 2: nothing could be checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/gpu_check"), help="folder to write")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=sorted(SIZES), default="janus-pro-1b", help="model whose steps are timed")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="run this part only; repeatable")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        results = gpu_check(arguments.output, arguments.device, arguments.size, arguments.part or list(PARTS))
    except ConfigError as error:
        print(printable(f"gpu_check: {error}"), file=sys.stderr)
        raise SystemExit(2) from None
    print(printable(f"Send back {arguments.output / RESULT}"))
    raise SystemExit(0 if results["passed"] else 1)


if __name__ == "__main__":
    main()
