"""Kill processes of runs on Ray with SIGKILL in the middle of steps, and compare metrics with an undisturbed run.

    python scripts/kill_ray.py RECIPE [--kills 10] [--folder DIR] [-- MORE OPTIONS OF motet train]

Three runs of the recipe: undisturbed; with rollout actors killed; with the training worker killed. Each kill comes in
another step, after a random part of a step's time. Prints a table; exit status 1 unless every run ends and all metrics
but the clock's are equal. Needs Linux (/proc), and as many steps as kills and two more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLOCKS = ("time/", "step_time", "seconds", "images_per_second", "memory/")
ROLES = ("RolloutActor", "TrainingWorker")


@dataclass(frozen=True)
class Kill:
    """Kill a process with this title `delay` seconds after the line of step `after_step` was written."""

    title: str
    after_step: int
    delay: float = 0.0


@dataclass
class Report:
    """What became of a run: exit status, output, seconds, and the kills that found a process."""

    status: int = 0
    output: str = ""
    seconds: float = 0.0
    killed: int = 0
    left: list[str] = field(default_factory=list)
    """Titles of processes that outlived the run."""


def run_on_ray(
    recipe: Path,
    output: Path,
    kills: Sequence[Kill] = (),
    arguments: Sequence[str] = (),
    interrupt_after: int | None = None,
) -> Report:
    """Run `motet train RECIPE --output OUTPUT --ray auto ARGUMENTS`, and kill as planned.

    `interrupt_after`: press Ctrl-C once so many steps are done.
    """
    command = [sys.executable, "-m", "motet", "train", str(recipe), "--output", str(output), "--ray", "auto"]
    report, start, seen = Report(), time.monotonic(), dict[int, str]()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, *arguments], stdout=log, stderr=subprocess.STDOUT)
        try:
            before = 0  # steps that were done at the last kill: the next one comes after a step of the restarted run
            for kill in kills:
                while process.poll() is None and len(read_metrics(output)) <= max(kill.after_step, before):
                    time.sleep(0.01)
                time.sleep(kill.delay)
                while process.poll() is None and not (found := find(process.pid, kill.title)):
                    time.sleep(0.01)  # what the last kill ended is not there again yet
                if process.poll() is None:
                    before = len(read_metrics(output))
                    os.kill(found[0], signal.SIGKILL)
                    report.killed += 1
            while process.poll() is None:
                seen |= descendants(process.pid)
                if interrupt_after is not None and len(read_metrics(output)) >= interrupt_after:
                    process.send_signal(signal.SIGINT)
                    interrupt_after = None
                time.sleep(0.01 if interrupt_after else 0.2)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)
        log.seek(0)
        report.output = log.read()
    report.status, report.seconds = process.returncode, time.monotonic() - start
    report.left = [title for pid, title in seen.items() if "ray" in title and is_alive(pid, title)]
    return report


def find(root: int, title: str) -> list[int]:
    """Processes of Ray with this title below one."""
    return [pid for pid, line in descendants(root).items() if f"ray::{title}" in line]


def descendants(root: int) -> dict[int, str]:
    """Process id -> command line of every process below one."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: dict[int, str] = {}
    for pid in parents:
        above = pid
        while above in parents and above != root:
            above = parents[above]
        if above == root and pid != root:
            found[pid] = command_line(pid)
    return found


def command_line(pid: int) -> str:
    """Empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def is_alive(pid: int, title: str, patience: float = 10.0) -> bool:
    """Whether the process is still there after a while."""
    end = time.monotonic() + patience
    while command_line(pid).split("(")[0] and time.monotonic() < end:
        time.sleep(0.1)
    return bool(command_line(pid)) and title.split(":")[0] in command_line(pid)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's metrics, without what depends on the clock."""
    try:
        lines = (folder / "metrics.jsonl").read_text().split("\n")[:-1]
    except OSError:
        return []
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(CLOCKS)} for line in lines]


def plan(title: str, count: int, step_seconds: float) -> list[Kill]:
    """One kill in each of `count` steps, at a random moment of it."""
    chance = random.Random(f"kill {title}")
    return [Kill(title, step, chance.random() * step_seconds) for step in range(count)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Kill processes of runs on Ray and compare metrics.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("arguments", nargs="*", help="after --: passed on to motet train")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="kill_ray_"))
    overrides = ["run.save_every=1", *asked.arguments]
    first = run_on_ray(asked.recipe, folder / "undisturbed", arguments=overrides)
    expected = read_metrics(folder / "undisturbed")
    if first.status or len(expected) < asked.kills + 2:
        raise SystemExit(f"{first.output}\nThe undisturbed run failed, or has fewer than {asked.kills + 2} steps.")
    times = [json.loads(line)["step_time"] for line in (folder / "undisturbed/metrics.jsonl").read_text().splitlines()]
    typical = sorted(times)[len(times) // 2]
    print(f"{'killed':16} kills  exit  seconds  steps  metrics  processes left")
    print(
        f"{'nothing':16} {0:5}  {first.status:4}  {first.seconds:7.0f}  {len(expected):5}  -        {len(first.left)}"
    )
    failed = bool(first.left)
    for title in ROLES:
        output = folder / title
        report = run_on_ray(asked.recipe, output, plan(title, asked.kills, typical), overrides)
        got = read_metrics(output)
        verdict = "equal" if got == expected else "DIFFER"
        row = f"{report.killed:5}  {report.status:4}  {report.seconds:7.0f}  {len(got):5}  {verdict:7}"
        print(f"{title:16} {row}  {len(report.left)}", flush=True)
        phases = [
            line.split("(phase ")[1].split(")")[0] for line in report.output.splitlines() if "died (phase" in line
        ]
        if phases:
            print(f"{'':16} in the phases {', '.join(phases)}")
        failed |= bool(report.status or verdict != "equal" or report.killed != asked.kills or report.left)
        if report.status:
            print(report.output)
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
