"""Stress a reward service on 127.0.0.1: many clients, malformed and oversized requests, a hang, a death, a restart.

    python scripts/stress_rewards.py --clients 32 --seconds 10

Starts `motet serve-rewards` with three rewards, checks every value against the reward called here, and prints requests
per second, latencies and batch sizes. Exit status 1: some reply was wrong, missing or late.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

TIMEOUT = 2.0
"""Seconds of one call of the fragile reward."""
LIMIT = 30.0
"""Seconds after which a reply counts as missing."""
JSON = {"content-type": "application/json"}


def image_mean(completions: list[Any]) -> list[float]:
    """Mean brightness of the generated image."""
    images = [part["image"] for chat in completions for part in chat[0]["content"]]
    return [float(np.asarray(image).mean()) for image in images]


def fragile(completions: list[Any]) -> list[float]:
    """The length of the text, unless that says to hang, to die or to raise."""
    texts = [chat[0]["content"] for chat in completions]
    if "die" in texts:
        os._exit(3)
    if "hang" in texts:
        time.sleep(3600)
    if "raise" in texts:
        raise ValueError("it says so")
    return [float(len(text)) for text in texts]


# --- requests


def text_body(*texts: str) -> bytes:
    chats = [[{"role": "assistant", "content": text}] for text in texts]
    return json.dumps({"prompts": [[]] * len(texts), "completions": chats, "columns": {}}).encode()


def image_body(files: list[bytes]) -> bytes:
    parts = [{"type": "image", "image": {"type": "image", "data": base64.b64encode(f).decode()}} for f in files]
    chats = [[{"role": "assistant", "content": [part]}] for part in parts]
    return json.dumps({"prompts": [[]] * len(files), "completions": chats, "columns": {}}).encode()


def png(seed: int, side: int = 64) -> tuple[bytes, float]:
    """A PNG of noise, and the reward of it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue(), float(pixels.mean())


def oversized_png() -> bytes:
    """A small file that says it has 20000 x 20000 pixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


class Stress:
    """Requests to one server, and what came of them."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url, self.http = url, http
        self.latencies: list[float] = []
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def post(self, reward: str, body: bytes, headers: dict[str, str] = JSON) -> httpx.Response:
        return await self.http.post(f"{self.url}/v1/score/{reward}", content=body, headers=headers)

    async def good(self, seed: int, images: int, patient: bool = False) -> None:
        """One request with images, whose values must be right; `patient`: repeated until there is a server."""
        made = [png(seed * 1000 + number) for number in range(images)]
        body, expected = image_body([file for file, _ in made]), [value for _, value in made]
        end = time.monotonic() + LIMIT
        while True:
            start = time.perf_counter()
            try:
                response = await self.post("image_mean", body)
            except httpx.TransportError:
                self.outcomes["no connection"] += 1
                status = 0
            else:
                status = response.status_code
                self.outcomes[f"good: {status}"] += 1
            if status == 200:
                self.latencies.append(time.perf_counter() - start)
                if response.json()["values"] != expected:
                    self.wrong.append(f"values {response.json()['values']} instead of {expected}")
                return
            if not (patient and status in (0, 503)) or time.monotonic() > end:
                self.wrong.append(f"a good request got status {status}")
                return
            await asyncio.sleep(random.uniform(0.1, 0.3))

    async def bad(self, name: str, request: Awaitable[httpx.Response], allowed: dict[int, str | None]) -> None:
        """One request that must get one of some statuses, each with a text; with 200, an error and no number."""
        try:
            async with asyncio.timeout(LIMIT):
                response = await request
        except Exception as error:
            self.wrong.append(f"{name}: {type(error).__name__}")
            return
        self.outcomes[f"{name}: {response.status_code}"] += 1
        reason = allowed.get(response.status_code, "")
        if reason == "":
            self.wrong.append(f"{name}: status {response.status_code}: {response.text[:200]}")
        elif response.status_code != 200:
            error = response.json()["error"]
            if not error["fix"] or (reason or "") not in error["problem"]:
                self.wrong.append(f"{name}: {response.text[:200]}")
        else:
            reply = response.json()
            if reply["values"][0] is not None or (reason or "") not in str(reply["errors"][0]):
                self.wrong.append(f"{name}: {response.text[:200]}")

    def report(self, phase: str, seconds: float, page: str, before: str) -> None:
        """Print the figures of a phase."""
        ordered = sorted(self.latencies)
        line = f"{phase}: {len(ordered)} good replies in {seconds:.1f} s = {len(ordered) / seconds:.0f} requests/s"
        if len(ordered) > 1:
            p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
            line += f", latency p50 {1e3 * statistics.median(ordered):.0f} ms, p99 {1e3 * p99:.0f} ms"
        calls = _metric(page, "batch_completions_count") - _metric(before, "batch_completions_count")
        scored = _metric(page, "batch_completions_sum") - _metric(before, "batch_completions_sum")
        if calls > 0:
            line += f", {scored / calls:.1f} completions per call"
        print(line)
        print("  " + ", ".join(f"{name} x{count}" for name, count in sorted(self.outcomes.items())))
        self.latencies.clear()
        self.outcomes.clear()


def _metric(page: str, name: str) -> float:
    found = re.search(rf'^motet_reward_{name}{{reward="image_mean"}} (\S+)$', page, re.MULTILINE)
    return float(found[1]) if found else 0.0


# --- phases


async def load(stress: Stress, clients: int, seconds: float, images: int, patient: bool = False) -> float:
    """Good requests from every client, one after the other; returns the seconds that it took."""
    start, numbers = time.monotonic(), itertools.count()

    async def client() -> None:
        while time.monotonic() - start < seconds:
            await stress.good(next(numbers), images, patient)

    await asyncio.gather(*(client() for _ in range(clients)))
    return time.monotonic() - start


def bad_requests(
    stress: Stress,
) -> Iterator[tuple[str, Callable[[], Awaitable[httpx.Response]], dict[int, str | None]]]:
    """Requests that a client gets wrong, each with the answers that it may get."""
    whole = png(1)[0]
    malformed = [b"", b"{", b"\x80\x04\x95pickle", b"[" * 100_000, b'{"prompts": [], "completions": 1}', b"null"]
    for body in malformed:
        yield "malformed", lambda body=body: stress.post("image_mean", body), {422: None}
    yield "not JSON", lambda: stress.post("image_mean", b"a=b", {"content-type": "text/plain"}), {400: None}
    yield "unknown reward", lambda: stress.post("other", text_body("a")), {404: None}
    yield "truncated PNG", lambda: stress.post("image_mean", image_body([whole[:3000]])), {200: "cannot be read"}
    yield "oversized image", lambda: stress.post("image_mean", image_body([oversized_png()])), {413: None}
    yield "too many images", lambda: stress.post("image_mean", image_body([whole] * 40)), {413: None}
    yield "oversized request", lambda: stress.post("image_mean", b" " * 3_000_000), {413: None}
    yield "raise", lambda: stress.post("fragile", text_body("raise")), {200: "ValueError"}
    yield "hang", lambda: stress.post("fragile", text_body("hang")), {504: "took longer"}
    yield "restarting", lambda: stress.post("fragile", text_body("a")), {503: "is not ready"}
    yield "die", lambda: stress.post("fragile", text_body("die")), {503: "ended with status 3"}


async def attack(stress: Stress, seconds: float) -> None:
    """Bad requests of every kind, over and over."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        for name, request, allowed in bad_requests(stress):
            if name in ("raise", "die"):  # the fragile reward is started again after the one before
                await become_ready(stress, 60)
            await stress.bad(name, request(), allowed)


async def become_ready(stress: Stress, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if (await stress.http.get(f"{stress.url}/health")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    stress.wrong.append(f"the server was not ready within {seconds:g} s")


@contextmanager
def server(folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `motet serve-rewards` and its address."""
    here = Path(__file__).resolve()
    config = {
        "port": port,
        "limits": {"request_mb": 2, "images": 32},
        "rewards": [
            {"name": f"{here}:image_mean"},
            {"name": f"{here}:fragile", "process": True, "timeout": TIMEOUT},
        ],
    }
    path = folder / "service.yaml"
    path.write_text(json.dumps(config))
    command = [sys.executable, "-m", "motet", "serve-rewards", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        address = re.search(r"http://\S+:\d+", process.stdout.readline())
        if address is None:
            raise SystemExit("The server did not start; run motet serve-rewards by itself.")
        yield process, address[0]
    finally:
        process.kill()
        process.wait()


async def stress_all(folder: Path, clients: int, seconds: float, images: int) -> list[str]:
    """All phases; returns what was wrong."""
    limits = httpx.Limits(max_connections=2 * clients)
    async with httpx.AsyncClient(timeout=LIMIT, limits=limits) as http:
        with server(folder) as (process, url):
            stress = Stress(url, http)

            async def page() -> str:
                return (await http.get(f"{url}/metrics")).text

            await become_ready(stress, 60)
            for size in dict.fromkeys((1, images)):
                before = await page()
                took = await load(stress, clients, seconds, size)
                stress.report(f"{clients} clients, {size} images of 64 x 64 each", took, await page(), before)
            before = await page()
            took, _ = await asyncio.gather(load(stress, clients, seconds, images), attack(stress, seconds))
            stress.report(f"{clients} clients beside malformed requests, hangs and deaths", took, await page(), before)
            await become_ready(stress, 60)
            running = asyncio.create_task(load(stress, clients, 2 * seconds, images, patient=True))
            await asyncio.sleep(seconds / 2)
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait)
            stress.outcomes[f"server stopped with status {process.returncode}"] += 1
            port = int(url.rpartition(":")[2])
        with server(folder, port):
            took = await running
            await become_ready(stress, 60)
            stress.report("the server is stopped and started again", took, "", "")
    return stress.wrong


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase")
    parser.add_argument("--images", type=int, default=8, help="of a large request, at most 32")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = asyncio.run(stress_all(Path(folder), given.clients, given.seconds, given.images))
    for problem, count in Counter(wrong).items():
        print(f"WRONG x{count}: {problem}")
    print("nothing was wrong" if not wrong else f"{len(wrong)} replies were wrong")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
