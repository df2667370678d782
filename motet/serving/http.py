"""What the HTTP servers have in common: error bodies, the bearer token, limits on requests, running uvicorn.

Needs the extra `motet[serve]`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from types import FrameType
from typing import Any

from motet.core.errors import ConfigError, MotetError
from motet.core.printable import printable

try:
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException
except ImportError:
    raise ConfigError(
        "HTTP servers need the packages fastapi and uvicorn.", fix="pip install 'motet[serve]'."
    ) from None

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Scope = MutableMapping[str, Any]

SHUTDOWN_SECONDS = 5.0
"""How long requests under way may take to finish after Ctrl-C."""
BODY_SECONDS = 60.0
"""How long a client may take to send a body."""
_DRAIN_SECONDS = 10.0


class HttpError(Exception):
    """A request that is not answered: its status, what is wrong, and how to fix it.

    `param` names the field of the request, `code` is OpenAI's code of the error.
    """

    def __init__(
        self,
        status: int,
        problem: str,
        *,
        fix: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(problem, fix)
        self.status, self.problem, self.fix = status, problem, fix
        self.param, self.code, self.headers = param, code, dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """`{"error": {...}}` with motet's `problem` and `fix`, and with the fields that OpenAI's clients read."""
        problem, fix = printable(self.problem), printable(self.fix)
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        read = {"message": f"{problem} Fix: {fix}", "type": kind, "param": self.param, "code": self.code}
        return {"error": {"problem": problem, "fix": fix, **read}}

    @property
    def response(self) -> JSONResponse:
        """The body with its status and headers."""
        return JSONResponse(self.body, self.status, self.headers)


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(host: str, variable: str | None, *, key: str = "--token-variable") -> str | None:
    """The bearer token that requests must have: the value of an environment variable; None without a variable.

    `key` names the option in messages. Raises ConfigError for a variable that is not set, and for a host that other
    machines reach without a token.
    """
    if variable is None:
        if is_loopback(host):
            return None
        raise ConfigError(
            f"host {host!r} can be reached from other machines, and no token is required.",
            fix=f"export MOTET_TOKEN=SECRET and set {key} to MOTET_TOKEN, or use host 127.0.0.1.",
        )
    token = os.environ.get(variable, "").strip()
    if not token or not token.isascii():
        problem = "is not ASCII text" if token else "is not set"
        raise ConfigError(f"{key} {variable}: the environment variable {problem}.", fix=f"export {variable}=SECRET.")
    return token


def make_app(title: str, **settings: Any) -> FastAPI:
    """A FastAPI application whose errors all have the body of HttpError."""
    app = FastAPI(title=title, **settings)

    @app.exception_handler(HttpError)
    async def _own(_: Request, error: HttpError) -> Response:
        return error.response

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        return HttpError(
            error.status_code, f"{error.detail}.", fix="see the routes at /docs.", headers=error.headers
        ).response

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return HttpError(422, f"{where}: {first['msg']}.", fix="send what /docs describes.", param=where).response

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, __: Exception) -> Response:
        fix = "report it as a bug of motet."
        return HttpError(500, "The server failed; its log has the traceback.", fix=fix).response

    return app


class Guard:
    """ASGI middleware: rejects requests without the token, with too large bodies, and from pages of other hosts.

    Bodies are read here, before they are parsed: at most `max_bytes` each and `max_held` of all requests together.
    `open_paths` need no token. `loopback`: the Host header must name this machine, so that a page that a user visits
    cannot reach the server by a DNS name of its own; bodies must be JSON, which pages cannot send across origins.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        token: str | None,
        max_bytes: int,
        max_held: int | None = None,
        loopback: bool = False,
        open_paths: Collection[str] = ("/health", "/docs", "/openapi.json"),
    ) -> None:
        self._app = app
        self._token, self._open, self._loopback = token, open_paths, loopback
        self._max_bytes, self._max_held, self._held = max_bytes, max_held, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        held = _Held(self)
        try:
            headers = {name.lower(): value for name, value in scope["headers"]}
            self._check(scope, headers)
            body = await self._read(headers, receive, held)
        except HttpError as error:
            if not held.complete and error.status != 408:
                await _drain(receive)
            error.headers["Connection"] = "close"
            await error.response(scope, receive, send)
        else:
            await self._app(scope, _replay(body, receive), send)
        finally:
            self._held -= held.size

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if self._loopback and not is_loopback(_hostname(headers.get(b"host", b"").decode("latin-1"))):
            raise HttpError(400, "The Host header does not name this machine.", fix="ask http://127.0.0.1:PORT.")
        if self._token is not None and scope["path"] not in self._open:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token.encode()):
                raise HttpError(
                    401,
                    "The token is wrong." if given else "The request has no token.",
                    fix="send the header Authorization: Bearer TOKEN; OpenAI's client takes it as api_key.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            if kind != b"application/json":
                raise HttpError(400, "The body is not declared as JSON.", fix="send Content-Type: application/json.")

    async def _read(self, headers: dict[bytes, bytes], receive: Receive, held: _Held) -> bytes:
        length = headers.get(b"content-length", b"")
        fix = "send fewer or smaller images, or start the server with a larger limit."
        too_large = HttpError(413, f"The request has more than {self._max_bytes:,} bytes.", fix=fix)
        if length.isdigit() and int(length[:20]) > self._max_bytes:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise HttpError(400, "The connection was closed within the body.", fix="send the whole body.")
                    body += message.get("body", b"")
                    held.complete = not message.get("more_body")
                    held.grow(len(body))
                    if len(body) > self._max_bytes:
                        raise too_large
                    if held.complete:
                        return bytes(body)
        except TimeoutError:
            raise HttpError(408, f"The body did not arrive in {BODY_SECONDS:g} s.", fix="send it faster.") from None

    def hold(self, size: int) -> None:
        """Count bytes of bodies in memory. Raises HttpError when there are too many."""
        if self._max_held is not None and self._held + size > self._max_held:
            problem = f"The requests under way have more than {self._max_held:,} bytes."
            raise HttpError(429, problem, fix="ask again later.", headers={"Retry-After": "1"})
        self._held += size


class _Held:
    """The bytes of one body that a guard has counted; `complete`: it has been read to its end."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self.size, self.complete = guard, 0, False

    def grow(self, size: int) -> None:
        self._guard.hold(size - self.size)
        self.size = size


async def _drain(receive: Receive) -> None:
    """Read the rest of a rejected body for a while: a client that still sends would not see the reply."""
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
    except TimeoutError:
        pass


def _replay(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, and then what follows it: that the client is gone."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> MutableMapping[str, Any]:
        return messages.pop() if messages else await receive()

    return again


def _hostname(header: str) -> str:
    """The host of a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header


async def wait_until_gone(request: Request) -> None:
    """Return when the client has closed the connection; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Server(uvicorn.Server):
    """uvicorn on a socket that is bound already.

    `announce` is called with the address once requests are answered. Ctrl-C and SIGTERM let requests under way finish
    for `grace` seconds; the signal is raised again after that.
    """

    def __init__(
        self, app: Any, bound: socket.socket, *, announce: Callable[[str], None], grace: float = SHUTDOWN_SECONDS
    ) -> None:
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=max(1, round(grace)),
        )
        super().__init__(config)
        self._socket, self._announce = bound, announce
        self._failure: MotetError | None = None
        self._interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop. asyncio may take the SIGINT that uvicorn raises again for a cancellation of what has ended.

        From here on uvicorn logs nothing: requests that last longer than `grace` are cancelled, not failed.
        """
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._interrupted = self._interrupted or sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer requests."""
        await super().startup(sockets)
        if self.started:
            self._announce(url_of(self._socket))

    def fail(self, error: MotetError) -> None:
        """Stop; `answer` raises the error."""
        self._failure = error
        self.should_exit = True

    def answer(self) -> None:
        """Answer requests until the server is stopped. Raises what `fail` was given, KeyboardInterrupt after Ctrl-C."""
        try:
            self.run(sockets=[self._socket])
        finally:
            self._socket.close()
            if self._failure is not None:
                raise self._failure
        if self._interrupted:
            raise KeyboardInterrupt


def bind(host: str, port: int) -> socket.socket:
    """A socket on that address; port 0 takes a free one. Raises ConfigError where it cannot be had."""
    bound = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise ConfigError(
            f"host {host}, port {port}: a server cannot listen there: {error.strerror or error}.",
            fix="choose another port, or port 0 for a free one; check the host.",
        ) from error
    return bound


def url_of(bound: socket.socket) -> str:
    """`http://HOST:PORT`."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
