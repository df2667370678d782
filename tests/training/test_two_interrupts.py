"""Two Ctrl-C while a user's own reward hangs end `motet train` at once, whatever the reward waits with."""

import signal
import subprocess
import sys
import time

import pytest

from tests.runs import write_recipe

HANGS = """
import asyncio, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

def hang(seconds):
    (Path(__file__).parent / "hangs").touch()
    time.sleep(seconds)

def in_a_pool(completions, **columns):
    with ThreadPoolExecutor(2) as pool:  # waits for its threads, an interrupt or not
        list(pool.map(hang, [120, 120]))

async def in_a_loop(completions, **columns):
    await asyncio.to_thread(hang, 120)

def in_a_retry(completions, **columns):
    while True:
        try:
            hang(120)
        except BaseException:
            pass
"""


@pytest.mark.parametrize(
    "name", ["in_a_loop", *(pytest.param(name, marks=pytest.mark.slow) for name in ("in_a_pool", "in_a_retry"))]
)
def test_two_interrupts_end_a_hanging_reward(name, tiny_checkpoint, tmp_path):
    (tmp_path / "hanging.py").write_text(HANGS)
    rewards = [{"name": f"{tmp_path}/hanging.py:{name}"}]
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_checkpoint, rewards=rewards)
    command = [sys.executable, "-m", "motet", "train", str(recipe), "--output", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(1200):
            if (tmp_path / "hangs").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None, process.stdout.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert "press Ctrl-C again" in process.stdout.read()
    finally:
        process.kill()
