"""A reward service of a few lines, whose replies tests script."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from motet.rewards.remote.protocol import decode_arguments, parse_request


class Stub:
    """Serves a reward function as `stub`. `faults`: what the next requests get instead of scores, one each:

    a status, `cut` (a reply that ends early), `hang` (no reply), or a text to send as the body.
    """

    def __init__(self, function: Callable[..., list[Any]], required: tuple[str, ...] = ()) -> None:
        self.function, self.faults = function, list[Any]()
        self.listed = {
            "name": "stub",
            "required_columns": list(required),
            "accepts": None,
            "reads_acts": [],
            "info": "",
        }
        self.requests: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.hold = threading.Event()

    def reply(self, body: bytes) -> dict[str, Any]:
        request = parse_request(body)
        arguments, errors = decode_arguments(request)
        self.requests.append(arguments)
        values: list[Any] = []
        for place, value in enumerate(self.function(**arguments)):
            errors[place] = value if isinstance(value, str) else errors[place]
            values.append(None if isinstance(value, str) else value)
        return {"values": values, "errors": errors, "metrics": {"size": float(len(values))}, "extra": {"n": values}}


@contextmanager
def serve(stub: Stub, port: int = 0) -> Iterator[str]:
    """The address of a server with the stub, on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(200, json.dumps({"rewards": [stub.listed]}).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            stub.tokens.append(self.headers.get("Authorization"))
            fault = stub.faults.pop(0) if stub.faults else None
            if isinstance(fault, int):
                self.send(fault, json.dumps({"error": {"problem": "it is a test.", "fix": "wait."}}).encode())
            elif fault == "hang":
                stub.hold.wait(20)
                self.close_connection = True
            elif isinstance(fault, str) and fault != "cut":
                self.send(200, fault.encode())
            else:
                self.send(200, json.dumps(stub.reply(body)).encode(), cut=fault == "cut")

        def send(self, status: int, body: bytes, cut: bool = False) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        stub.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
