"""A server of `motet serve` in a thread of this process, and OpenAI's own client for it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai

from motet.serving.http import Server, bind
from motet.serving.openai_app import ServerLimits, build_app


@contextmanager
def served(policy: Any, name: str = "tiny", token: str | None = None, **limits: int) -> Iterator[openai.OpenAI]:
    """A client of a server for this policy on a free port; the server stops at the end."""
    ready, bound = threading.Event(), bind("127.0.0.1", 0)
    app = build_app(policy, name, token=token, limits=ServerLimits(**limits))
    server = Server(app, bound, announce=lambda url: ready.set())
    thread = threading.Thread(target=server.answer, daemon=True)
    thread.start()
    assert ready.wait(20)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
    try:
        with openai.OpenAI(base_url=url, api_key=token or "none", max_retries=0, timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
