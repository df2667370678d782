"""Training with the checker of the shapes world behind a server: the curve is that of the process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from motet.rewards.shapes.shapes import Shapes
from motet.testing import FakeRewardServer, Fault
from tests.fake_rewards import reddish
from tests.runs import REWARDS, mapping, metrics, run_loop

SHAPES = "shapes"
REDDISH, SPACIOUS = f"{REWARDS}reddish", f"{REWARDS}spacious"
STEPS = 4


def recipe(checkpoint: Path, url: str | None, **options: Any) -> dict[str, Any]:
    """generate_and_answer with the checker, which a tiny random Janus never satisfies, and a reward of the pixels."""
    images: list[dict[str, Any]] = [{"name": SHAPES, "options": {"partial": 1.0}}, {"name": REDDISH}]
    if url is not None:
        remote = {"url": url, "chunk_size": 3, **options}
        images = [{"name": "remote", "options": {"reward": name, **remote}} for name in (SHAPES, "reddish")]
    rewards = [*({**reward, "acts": ["image"]} for reward in images), {"name": SPACIOUS, "acts": ["answer"]}]
    run = {"steps": STEPS, "prompts_per_step": 4}
    return mapping(checkpoint, rewards=rewards, run=run, algorithm={"num_generations": 4})


def curve(folder: Path) -> list[dict[str, Any]]:
    """The metrics, with the names of the rewards that are served."""
    names = {"rewards/remote#2": "rewards/reddish", "rewards/remote/": f"rewards/{SHAPES}/"}
    lines = metrics(folder)
    for old, new in names.items():
        lines = [{key.replace(old, new): value for key, value in line.items()} for line in lines]
    return lines


@pytest.fixture(scope="module")
def expected(tmp_path_factory, tiny_checkpoint):
    folder = tmp_path_factory.mktemp("here") / "run"
    run_loop(recipe(tiny_checkpoint, None), folder)
    return curve(folder)


def test_the_curve_is_that_of_the_process_whatever_replies_are_lost(expected, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("motet.rewards.remote.client.BACKOFF", 0.001)
    with FakeRewardServer({SHAPES: Shapes(partial=1.0), "reddish": reddish}) as server:
        server.faults.extend(
            [None, Fault(truncate=True), Fault(status=503), None, Fault(disconnect=True), Fault(status=429)]
        )
        run_loop(recipe(tiny_checkpoint, server.url), tmp_path / "run")
    assert curve(tmp_path / "run") == expected
    assert len({line["rewards/reddish/mean"] for line in expected}) == STEPS


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_costs_no_step(expected, tiny_checkpoint, tmp_path):
    pytest.importorskip("uvicorn")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    file, url = tmp_path / "service.yaml", f"http://127.0.0.1:{port}"
    served = [{"name": SHAPES, "options": {"partial": 1.0}}, {"name": REDDISH}]
    file.write_text(json.dumps({"port": port, "rewards": served}), encoding="utf-8")
    first = start(file)
    again: list[subprocess.Popen[bytes]] = []

    def restart() -> None:
        while not (tmp_path / "run/metrics.jsonl").exists():
            time.sleep(0.01)
        first.kill()
        first.wait()
        again.append(start(file))

    helper = threading.Thread(target=restart)
    try:
        wait_until_ready(url)
        helper.start()
        run_loop(recipe(tiny_checkpoint, url, retries=12), tmp_path / "run")
    finally:
        helper.join(60)
        for process in (first, *again):
            process.kill()
            process.wait()
    assert again and curve(tmp_path / "run") == expected


def start(file: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "motet", "serve-rewards", str(file)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def wait_until_ready(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not start")
