"""Rewards in a process of their own: one that hangs is killed, one that dies is started again, no request is lost."""

import asyncio
import sys
from pathlib import Path

import pytest

from motet.core.errors import ConfigError
from motet.serving.rewards_runner import ProcessRunner
from tests.serving.service import config, serve, text

STUB = Path(__file__).parent / "stub_worker.py"


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A configuration whose reward's `python` is the stub."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{STUB}"\n')
    program.chmod(0o755)

    def make(start="", **reward):
        monkeypatch.setenv("STUB_START", start)
        return config({"name": "stub", "python": str(program), "timeout": 5.0, **reward})

    return make


async def ask(client, said):
    return await client.score("stub", text(said), gold=[None])


def restarts(client):
    return client.service.queues["stub"].runner.restarts


def test_values_come_from_the_process(stub) -> None:
    async def use(client):
        listed = await client.http.get("/v1/rewards")
        assert listed.json()["rewards"][0]["required_columns"] == ["gold"]
        return await ask(client, "three")

    assert serve(stub(), use).json()["values"] == [5.0]


def test_a_process_that_hangs_is_killed_and_started_again(stub, capsys) -> None:
    async def use(client):
        late = await ask(client, "hang")
        await client.ready()
        return late, await ask(client, "again"), restarts(client)

    late, again, count = serve(stub(timeout=0.3), use)
    assert late.status_code == 504 and "took longer than 0.3 s" in late.json()["error"]["problem"]
    assert again.json()["values"] == [5.0] and count == 1
    assert "was killed (status -9); it is started again" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["die", "noise"])
def test_a_process_that_dies_or_talks_nonsense_is_started_again(stub, said) -> None:
    async def use(client):
        lost = await ask(client, said)
        await client.ready()
        return lost, await ask(client, "again"), restarts(client)

    lost, again, count = serve(stub(), use)
    assert lost.status_code == 503 and lost.headers["retry-after"]
    assert again.json()["values"] == [5.0] and count == 1


def test_a_process_that_dies_between_calls_is_started_again(stub) -> None:
    async def use(client):
        await ask(client, "later")
        async with asyncio.timeout(10):
            while restarts(client) == 0:
                await asyncio.sleep(0.01)
        await client.ready()
        return await ask(client, "again")

    assert serve(stub(), use).json()["values"] == [5.0]


def test_requests_that_wait_when_it_dies_are_told_so(stub) -> None:
    async def use(client):
        return await asyncio.gather(*(ask(client, said) for said in ("die", "one", "two")))

    settings = stub().model_copy(update={"batching": config({"name": "x"}, batching={"max_batch": 1}).batching})
    assert [answer.status_code for answer in serve(settings, use)] == [503, 503, 503]


@pytest.mark.parametrize(
    ("start", "problem"), [("error", "There is no such reward"), ("exit", "ended with status 5 while it loaded")]
)
def test_a_process_that_cannot_load_its_reward_is_an_error(stub, start, problem) -> None:
    async def use(client):
        with pytest.raises(ConfigError, match=problem):
            await client.ready()

    serve(stub(start), use, ready=False)


def test_a_python_that_does_not_exist_is_an_error() -> None:
    async def start():
        served = config({"name": "stub", "python": "/missing/bin/python"}).rewards[0]
        with pytest.raises(ConfigError, match="cannot be started: No such file"):
            await ProcessRunner(served).start()

    asyncio.run(start())
