"""Kill runs with SIGKILL at random moments, resume each until it is done, and compare with undisturbed ones.

    python scripts/kill_runs.py [CASE ...] [--kills 50] [--signal KILL] [--seed 0] [--folder DIR]

Cases: run (6 steps), plan (four stages), sweep (two strategies), all of a tiny Janus that saves after every step; and
disk (Linux, as root): a run on a small tmpfs that is full after a random number of bytes, resumed with space.

Every life of a run is `motet ... --resume auto` in a process forked from this one, which has imported everything, so
that a life takes about as long as its work. Two kills of three come at any moment of it, uniformly; the third while a
checkpoint is being written. After a kill every checkpoint must have its checksums and at most one step may be lost, the
one in flight (`run.save_every` is 1); after a signal that asks to stop, none. At the end all weights, optimizer states,
random states, metrics but the clock's, samples and results must be equal to the bit, and nothing unfinished may be
left. One of the rewards draws random numbers that motet does not key. Exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}
CLOCKS = ("time/", "step_time", "seconds", "images_per_second", "memory/")
WORLD = {"canvas": 16, "grid": 2, "max_objects": 3, "max_count": 3}
STOPPED = 130
"""Exit status of a run that a signal asked to save and stop."""
PATIENCE = 600.0
"""Seconds after which a life that does not end is an error."""


def noisy(completions: list[Any], solution: list[str], target: list[Any], **_: Any) -> list[float]:
    """How much a text is like the solution and an image like the target, and noise of Python's global generator."""
    return [likeness(*both) + 0.01 * random.random() for both in zip(completions, solution, target, strict=True)]


def likeness(completion: list[dict[str, Any]], solution: str, target: Any) -> float:
    """Of the last part of a completion."""
    from PIL import ImageChops, ImageStat

    content = completion[-1]["content"]
    part: dict[str, Any] = {"type": "text", "text": content} if isinstance(content, str) else content[-1]
    if part["type"] == "text":
        return difflib.SequenceMatcher(None, part["text"], solution, autojunk=False).ratio()
    image = part["image"].convert("RGB")
    difference = ImageChops.difference(image, target.convert("RGB").resize(image.size))
    return 1 - sum(ImageStat.Stat(difference).mean) / (3 * 255)


# --- what is run


def tiny_checkpoint(folder: Path) -> Path:
    """A Janus of a few thousand random weights that generates images 16 pixels wide."""
    from motet.policies.tiny.janus import TinySizes, tiny_janus, tiny_processor, tiny_tokenizer
    from motet.shapes.world import ShapesRows

    sizes = TinySizes(
        hidden=32, layers=1, heads=2, intermediate=64, image=16, codes=32, vision_hidden=32, vision_layers=1,
        vision_heads=2, max_positions=256,
    )  # fmt: skip
    rows = [ShapesRows("train", 0, WORLD).row(index) for index in range(40)]
    texts = [row[name] for row in rows for name in ("prompt", "question", "solution")]
    tokenizer = tiny_tokenizer(texts, vocab_size=300)
    tiny_janus(tokenizer, sizes, 0).save_pretrained(folder)
    tiny_processor(tokenizer, sizes).save_pretrained(folder)
    return folder


def recipes(checkpoint: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Case -> command and recipe."""
    reward = f"{Path(__file__).resolve()}:noisy"
    run = {"steps": 6, "prompts_per_step": 1, "threads": 1, "save_every": 1, "keep_checkpoints": 2}
    shared = {
        "policy": {"path": str(checkpoint), "device": "cpu", "dtype": "float32", "rollout_dtype": "float32"},
        "scenario": "generate_and_answer",
        "data": {"source": "shapes", "options": WORLD},
        "rewards": [{"name": reward, "acts": ["image"]}, {"name": reward, "acts": ["answer"]}],
        "algorithm": {"num_generations": 2, "advantage_assignment": "factorized"},
        "sampling": {"text": {"max_tokens": 8}},
        "optimizer": {"learning_rate": 0.003},
        "run": {**run, "log_samples_every": 2},
    }
    measured = shared | {"eval": {"suite": {"name": "shapes", "held_out_size": 2}, "size": 2, "samples_per_item": 2}}
    short = measured | {"run": {**run, "steps": 2}}
    taught = {"kind": "sft", "rewards": [], "data": {"targets": {"image": "target", "answer": "solution"}}}
    taught["sampling"] = {"text": {"max_tokens": 60}}
    images = {
        "scenario": "text_to_image",
        "rewards": [{"name": reward}],
        "algorithm": {"advantage_assignment": "joint"},
    }
    merged = {"kind": "merge", "init_from": ["both", "images"], "method": "average"}
    stages = {"taught": taught, "both": {"init_from": "taught"}, "images": {"init_from": "taught", **images}}
    strategies = {
        "both": {"stages": {"both": {}}, "result": "both"},
        "images": {"stages": {"images": images}, "result": {"draw": "images"}},
    }
    sweep = {"seeds": [0], "budget": "free", "shared": short, "strategies": strategies}
    plan = {"shared": short, "stages": {**stages, "merged": merged}}
    return {"run": ("train", shared), "plan": ("train", plan), "sweep": ("sweep", sweep), "disk": ("train", shared)}


# --- lives


@dataclass
class Tally:
    """What happened to the runs of a case."""

    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter[str])
    """Where the kills came."""
    most_lost: int = 0
    problems: list[str] = field(default_factory=list[str])


def live(arguments: list[str], log: Path, is_over: Callable[[], bool], number: int = signal.SIGKILL) -> int | None:
    """Run `motet ARGUMENTS` in a fork until `is_over`, then send a signal; its exit status, None if that ended it."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os._exit(motet(arguments))
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if is_over():
            os.kill(child, number)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            return None if code in (-number, STOPPED) else code
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    raise SystemExit(f"motet {' '.join(arguments)} did not end in {PATIENCE:.0f} s: {log}")


def motet(arguments: list[str]) -> int:
    """The exit status of a command, in this process."""
    import motet.cli

    try:
        motet.cli.main(arguments)
    except SystemExit as end:
        code = end.code
    else:
        code = 0
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code if isinstance(code, int) else int(code is not None)


def run_folders(output: Path) -> list[Path]:
    """The folders of all runs below, alone or of stages and seeds."""
    return sorted(path.parent for path in output.rglob("recipe.yaml"))


def partial_checkpoints(output: Path) -> dict[Path, int]:
    """The checkpoints that are being written, or that a killed life left, and the numbers of their folders."""
    found: dict[Path, int] = {}
    for path in output.glob("**/checkpoints/.partial_step_*"):
        with suppress(FileNotFoundError):
            found[path] = path.stat().st_ino
    return found


def place(output: Path, start: float, left: dict[Path, int]) -> str:
    """What a life was killed in that began at `start` (time.time) with these partial checkpoints of earlier ones."""
    if partial_checkpoints(output).items() - left.items():
        return "saving"
    open_runs = [folder for folder in run_folders(output) if not (folder / "summary.json").is_file()]
    touched = [
        f for f in open_runs if (f / "metrics.jsonl").is_file() and (f / "metrics.jsonl").stat().st_mtime > start
    ]
    return "steps" if touched else "starting, measuring"


def check_after_kill(output: Path, tally: Tally, may_lose: int = 1) -> None:
    """Checkpoints must be whole, and no more lost than the step in flight."""
    from motet.weights.locate import checkpoints, find_damage, step_of

    for folder in run_folders(output):
        saved = checkpoints(folder / "checkpoints")
        tally.problems += [f"{path}: {damage}" for path in saved if (damage := find_damage(path)) is not None]
        lost = len(read_lines(folder / "metrics.jsonl")) - (step_of(saved[-1]) if saved else 0)
        tally.most_lost = max(tally.most_lost, lost)
        if lost > may_lose:
            tally.problems.append(f"{folder}: {lost} steps are lost")


# --- what is compared


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL file, without what depends on the clock."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return [without_clocks(json.loads(line)) for line in lines]


def without_clocks(value: Any) -> Any:
    """JSON without the keys that depend on the clock."""
    if isinstance(value, dict):
        return {key: without_clocks(inner) for key, inner in value.items() if not key.startswith(CLOCKS)}
    return [without_clocks(inner) for inner in value] if isinstance(value, list) else value


def digests(output: Path) -> dict[str, str]:
    """Every file that must be equal, and its digest; for files with times of the rest of their content."""
    found: dict[str, str] = {}
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        name = path.relative_to(output).as_posix()
        if path.suffix == ".safetensors" or path.name in ("random_state.json", "best.json"):
            content = path.read_bytes()
        elif path.name in ("trainer_state.json", "summary.json", "before.json"):
            content = json.dumps(without_clocks(json.loads(path.read_text(encoding="utf-8")))).encode()
        elif path.name == "warnings.jsonl" and not read_lines(path):
            continue
        elif path.suffix == ".jsonl":
            content = json.dumps(read_lines(path)).encode()
        elif ".partial" in name:
            content = b""
        else:
            continue
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """The names of files that differ, are missing or are too many."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


# --- cases


@dataclass(frozen=True)
class Plan:
    """What is done how often, and by which random numbers."""

    kills: int
    number: int
    chance: random.Random


def disturb(command: list[str], folder: Path, expected: dict[str, str], plan: Plan) -> Tally:
    """Kill and resume runs until there were so many kills."""
    kills, chance = plan.kills, plan.chance
    tally, seconds = Tally(), timed_life(command, folder / "timed")
    if different := differences(expected, digests(folder / "timed")):
        tally.problems.append(f"two undisturbed runs differ in {', '.join(different)}")
    while tally.kills.total() < kills and not tally.problems:
        output = folder / f"killed_{tally.runs}"
        log, status, lives, tally.runs = output.with_suffix(".log"), None, 0, tally.runs + 1
        while status is None:
            begun, left = time.time(), partial_checkpoints(output)
            if tally.kills.total() >= kills:
                is_over = lambda: False  # noqa: E731
            elif tally.kills.total() % 3 == 2:
                is_over = wait_for_save(output, left, chance.random() * 0.03)
            else:
                end = time.monotonic() + chance.random() * seconds
                is_over = lambda end=end: time.monotonic() >= end  # noqa: E731
            status = live([*command, "--output", str(output)], log, is_over, plan.number)
            lives += 1
            if status is None:
                tally.kills[place(output, begun, left)] += 1
                check_after_kill(output, tally, int(plan.number == signal.SIGKILL))
        if lives == 1:  # nothing disturbed it: the machine has become faster
            seconds = time.time() - begun
        if status:
            tally.problems.append(f"exit status {status}: {log.read_text()[-2000:]}")
        elif different := differences(expected, digests(output)):
            tally.problems.append(f"{output} differs in {', '.join(different)}")
        else:
            shutil.rmtree(output)
    return tally


def timed_life(command: list[str], output: Path) -> float:
    """The seconds of an undisturbed life."""
    start = time.monotonic()
    status = live([*command, "--output", str(output)], output.with_suffix(".log"), lambda: False)
    if status:
        raise SystemExit(output.with_suffix(".log").read_text())
    return time.monotonic() - start


def wait_for_save(output: Path, left: dict[Path, int], delay: float) -> Callable[[], bool]:
    """True so many seconds after a checkpoint began to be written; what an earlier life left does not count."""
    begun: list[float] = []

    def is_over() -> bool:
        if not begun and partial_checkpoints(output).items() - left.items():
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() >= begun[0] + delay

    return is_over


def fill_disks(command: list[str], folder: Path, expected: dict[str, str], plan: Plan) -> Tally:
    """Run on a disk with too little space, then resume with space; `kills` counts by the file that did not fit."""
    tally = Tally()
    with small_disk(folder / "disk") as disk:
        output, log = disk / "run", folder / "disk.log"
        empty = shutil.disk_usage(disk).free
        timed_life(command, output)
        needed = empty - shutil.disk_usage(disk).free
        while tally.kills.total() < plan.kills and not tally.problems:
            shutil.rmtree(output, ignore_errors=True)
            log.unlink(missing_ok=True)
            (disk / "ballast").write_bytes(bytes(empty - int(needed * plan.chance.random())))
            status, tally.runs = live([*command, "--output", str(output)], log, lambda: False), tally.runs + 1
            (disk / "ballast").unlink()
            said = log.read_text()
            if status:
                tally.kills[said.split("' cannot be")[0].rpartition("/")[2].rstrip("0123456789")] += 1
                if "No space left on device" not in said or "Fix: free" not in said:
                    tally.problems.append(f"the message is: {said[-1000:]}")
            check_after_kill(output, tally)
            if live([*command, "--output", str(output)], log, lambda: False):
                tally.problems.append(log.read_text()[-2000:])
                continue
            found = digests(output)
            found.pop("warnings.jsonl", None)  # preflight warns of the small disk
            if different := differences(expected, found):
                tally.problems.append(f"differs in {', '.join(different)}")
    return tally


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs of 64 MB. Raises SystemExit where this process may not mount one."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=False).returncode:
        raise SystemExit("The case disk mounts a tmpfs, which needs root.")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def main() -> None:
    """The command line."""
    os.environ.update(ENVIRONMENT)
    parser = argparse.ArgumentParser(description="Kill runs at random moments, resume and compare them.")
    parser.add_argument("cases", nargs="*", choices=["run", "plan", "sweep", "disk", []], help="default: all but disk")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--signal", choices=["KILL", "TERM", "HUP", "USR1", "INT"], default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="kill_runs_"))
    made = recipes(tiny_checkpoint(folder / "checkpoint"))
    print("case   kills  runs  seconds  steps lost  final state  killed in")
    failed = False
    for case in asked.cases or ["run", "plan", "sweep"]:
        start, own = time.monotonic(), folder / case
        own.mkdir(parents=True)
        (own / "recipe.yaml").write_text(yaml.safe_dump(made[case][1], sort_keys=False), encoding="utf-8")
        command = [made[case][0], str(own / "recipe.yaml"), "--resume", "auto"]
        import_everything(command, own / "undisturbed")
        expected = digests(own / "undisturbed")
        act = fill_disks if case == "disk" else disturb
        if case == "disk":  # which stops the run before the disk is full
            command.append("--skip-preflight")
        plan = Plan(asked.kills, signal.Signals[f"SIG{asked.signal}"], random.Random(f"{asked.seed} {case}"))
        tally = act(command, own, expected, plan)
        where = ", ".join(f"{name} {count}" for name, count in tally.kills.most_common())
        verdict = "DIFFERS" if tally.problems else "equal"
        row = f"{tally.kills.total():5}  {tally.runs:4}  {time.monotonic() - start:7.0f}  at most {tally.most_lost}"
        print(f"{case:6} {row}   {verdict:11}  {where}", flush=True)
        print("".join(f"  {problem}\n" for problem in tally.problems), end="", flush=True)
        failed |= bool(tally.problems)
    raise SystemExit(int(failed))


def import_everything(command: list[str], output: Path) -> None:
    """An undisturbed run in this process, in silence: those that are forked from it find all modules imported."""
    saved = os.dup(1), os.dup(2)
    with output.with_suffix(".log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            status = motet([*command, "--output", str(output)])
        finally:
            for number, descriptor in enumerate(saved, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
    if status:
        raise SystemExit(output.with_suffix(".log").read_text())


if __name__ == "__main__":
    main()
