"""A reward service in the process of a test, and requests to it."""

import asyncio
import base64
import io
import json
import queue
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
from PIL import Image

from motet.core.errors import MotetError
from motet.serving.http import Server, bind
from motet.serving.rewards_config import ServiceConfig
from motet.serving.rewards_service import RewardService, build_app


def config(*rewards: dict[str, Any], **settings: Any) -> ServiceConfig:
    return ServiceConfig.model_validate_json(json.dumps({"rewards": rewards, **settings}), strict=True)


def text(content: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content}]


def encoded(image: Image.Image, size: int | None = None) -> dict[str, str]:
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"type": "image", "data": base64.b64encode(file.getvalue()[:size]).decode()}


def generated(image: dict[str, str]) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "image", "image": image}]}]


def body(*completions: list[dict[str, Any]], **columns: list[Any]) -> dict[str, Any]:
    return {"prompts": [text("?")] * len(completions), "completions": list(completions), "columns": columns}


class Client:
    """Requests to a service."""

    def __init__(self, http: httpx.AsyncClient, service: RewardService, failures: list[MotetError]) -> None:
        self.http, self.service, self.failures = http, service, failures

    async def score(self, reward: str, *completions: list[dict[str, Any]], **columns: list[Any]) -> httpx.Response:
        return await self.http.post(f"/v1/score/{reward}", json=body(*completions, **columns))

    async def ready(self) -> None:
        async with asyncio.timeout(20):
            while not self.service.ready:
                if self.failures:
                    raise self.failures[0]
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(settings: ServiceConfig, token: str | None = None, *, ready: bool = True) -> AsyncIterator[Client]:
    failures: list[MotetError] = []
    service = RewardService(settings, failures.append)
    transport = httpx.ASGITransport(build_app(service, token), raise_app_exceptions=False)
    async with service.running(), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        client = Client(http, service, failures)
        if ready:
            await client.ready()
        yield client


def serve(settings: ServiceConfig, use: Callable[[Client], Awaitable[Any]], **options: Any) -> Any:
    """Run a service, and what uses it, to the end."""

    async def run() -> Any:
        async with running(settings, **options) as client, asyncio.timeout(30):
            return await use(client)

    return asyncio.run(run())


@contextmanager
def serving(settings: ServiceConfig) -> Iterator[str]:
    """The address of a service on a thread."""
    addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
    service = RewardService(settings, print)
    server = Server(build_app(service, None), bind("127.0.0.1", 0), announce=addresses.put)
    thread = threading.Thread(target=server.answer)
    thread.start()
    try:
        url = addresses.get(timeout=30)
        while httpx.get(f"{url}/health").status_code != 200:
            time.sleep(0.05)
        yield url
    finally:
        server.should_exit = True
        thread.join()
