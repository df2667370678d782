"""What the HTTP servers share: tokens, limits, error bodies."""

import asyncio
import json
import time

import httpx
import pytest
from fastapi import Request

from motet.core.errors import ConfigError
from motet.serving.http import Guard, HttpError, bind, make_app, read_token, url_of

JSON = {"content-type": "application/json"}


def ask(method: str, path: str, *, guard: dict | None = None, **request) -> httpx.Response:
    """One request to an application with a guard, without a socket."""
    app = make_app("test")

    @app.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    @app.get("/health")
    async def health(number: int = 0) -> str:
        return "ready"

    @app.get("/busy")
    async def busy() -> str:
        raise HttpError(429, "The queue is full.", fix="ask again.", headers={"Retry-After": "2"})

    guarded = Guard(app, **{"token": None, "max_bytes": 100, **(guard or {})})

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(guarded, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())


def problem_of(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert error["fix"] and error["message"] == f"{error['problem']} Fix: {error['fix']}"
    return error["problem"]


def test_a_body_within_the_limit_arrives() -> None:
    assert ask("POST", "/echo", content=b"x" * 100, headers=JSON).json() == 100


async def _in_parts():
    for _ in range(11):
        yield b"x" * 10


@pytest.mark.parametrize("content", [b"x" * 101, _in_parts()], ids=["declared", "chunked"])
def test_a_larger_body_is_rejected(content: object) -> None:
    response = ask("POST", "/echo", content=content, headers=JSON)
    assert response.status_code == 413 and "more than 100 bytes" in problem_of(response)


async def _slowly():
    yield b"x"
    await asyncio.sleep(5)


def test_a_body_that_does_not_arrive_is_rejected(monkeypatch) -> None:
    monkeypatch.setattr("motet.serving.http.BODY_SECONDS", 0.1)
    start = time.monotonic()
    response = ask("POST", "/echo", content=_slowly(), headers=JSON)
    assert response.status_code == 408 and "did not arrive in 0.1 s" in problem_of(response)
    assert time.monotonic() - start < 3


def test_bodies_of_all_requests_are_limited_together() -> None:
    response = ask("POST", "/echo", content=b"x" * 60, headers=JSON, guard={"max_held": 50})
    assert response.status_code == 429 and response.headers["retry-after"] == "1"


def test_a_form_of_a_web_page_is_rejected() -> None:
    assert ask("POST", "/echo", content=b"{}", headers={"content-type": "text/plain"}).status_code == 400


@pytest.mark.parametrize(("host", "status"), [("localhost:80", 200), ("[::1]:80", 200), ("evil.example", 400)])
def test_on_loopback_the_host_header_must_name_this_machine(host: str, status: int) -> None:
    assert ask("GET", "/health", headers={"host": host}, guard={"loopback": True}).status_code == status


@pytest.mark.parametrize(
    ("path", "authorization", "status"),
    [
        ("/busy", None, 401),
        ("/busy", "Bearer other", 401),
        ("/busy", "secret", 401),
        ("/busy", "Bearer secret", 429),
        ("/health", None, 200),
    ],
)
def test_a_token_is_required_except_on_open_paths(path: str, authorization: str | None, status: int) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    response = ask("GET", path, headers=headers, guard={"token": "secret"})
    assert response.status_code == status
    assert (response.headers.get("www-authenticate") == "Bearer") == (status == 401)


@pytest.mark.parametrize(("path", "status"), [("/missing", 404), ("/health?number=x", 422), ("/busy", 429)])
def test_every_error_has_a_problem_and_a_fix(path: str, status: int) -> None:
    response = ask("GET", path)
    assert response.status_code == status and problem_of(response)


def test_another_host_needs_a_token(monkeypatch) -> None:
    assert read_token("127.0.0.1", None) is None
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        read_token("0.0.0.0", None)
    monkeypatch.delenv("MOTET_TEST_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="is not set"):
        read_token("0.0.0.0", "MOTET_TEST_TOKEN")
    monkeypatch.setenv("MOTET_TEST_TOKEN", "geheim\u00e4")
    with pytest.raises(ConfigError, match="not ASCII"):
        read_token("127.0.0.1", "MOTET_TEST_TOKEN")
    monkeypatch.setenv("MOTET_TEST_TOKEN", "secret")
    assert read_token("0.0.0.0", "MOTET_TEST_TOKEN") == "secret"


def test_an_address_in_use_is_reported() -> None:
    with bind("127.0.0.1", 0) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        assert url_of(bound) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConfigError, match="cannot listen there"):
            bind("127.0.0.1", port)


def test_errors_are_json() -> None:
    error = HttpError(400, "No \x1b[31mcolour.", fix="none.")
    assert json.loads(bytes(error.response.body))["error"]["problem"] == r"No \x1b[31mcolour."
