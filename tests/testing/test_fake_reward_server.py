"""The fake reward service answers as the real one, and fails as it is told."""

import json
import socket

import httpx
import pytest

from motet.rewards.remote.protocol import parse_error, parse_reply
from motet.testing import FakeRewardServer, Fault


def lengths(completions, answer=None):
    return [float(len(completion[0]["content"])) for completion in completions]


def ask(server, reward="lengths", said=("a", "bb"), **settings):
    completions = [[{"role": "assistant", "content": text}] for text in said]
    body = {"prompts": [[]] * len(said), "completions": completions}
    return httpx.post(f"{server.url}/v1/score/{reward}", json=body, timeout=5, **settings)


def test_rewards_are_called_and_requests_recorded() -> None:
    with FakeRewardServer({"lengths": lengths, "half": 0.5}) as server:
        assert parse_reply(ask(server).content, 2).values == [1.0, 2.0]
        assert parse_reply(ask(server, "half").content, 2).values == [0.5, 0.5]
        listed = httpx.get(f"{server.url}/v1/rewards").json()["rewards"]
        assert [(one["name"], one["required_columns"], one["accepts"]) for one in listed] == [
            ("lengths", [], ["answer", "completions"]),
            ("half", [], ["completions"]),
        ]
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert [len(request.completions) for request in server.requests] == [2, 2]
        assert ask(server, "other").status_code == 404
        assert httpx.post(f"{server.url}/v1/score/half", content=b"{").status_code == 422


def test_a_reward_that_raises_is_an_error_of_every_completion() -> None:
    def broken(completions):
        raise ValueError("no")

    with FakeRewardServer({"broken": broken}) as server:
        reply = parse_reply(ask(server, "broken").content, 2)
    assert reply.values == [None, None] and reply.errors == ["ValueError: no"] * 2


def test_faults_come_in_order_and_then_replies() -> None:
    with FakeRewardServer({"lengths": lengths}) as server:
        server.faults.extend([Fault(status=503, retry_after=2), Fault(body=b"{}"), Fault(errors={1: "lost"}), None])
        busy = ask(server)
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "2") and "scripted" in parse_error(busy.content)
        assert ask(server).content == b"{}"
        assert json.loads(ask(server).content)["errors"] == [None, "lost"]
        assert ask(server).json()["values"] == ask(server).json()["values"] == [1.0, 2.0]


@pytest.mark.parametrize("fault", [Fault(truncate=True), Fault(disconnect=True)])
def test_replies_can_be_cut_off(fault) -> None:
    with FakeRewardServer({"lengths": lengths}) as server:
        server.fault = fault
        for _ in range(2):
            with pytest.raises(httpx.RemoteProtocolError):
                ask(server)


def test_a_hang_ends_with_the_server_whose_port_is_then_free() -> None:
    with FakeRewardServer({"lengths": lengths}) as server:
        server.fault = Fault(hang=True)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/score/lengths", json={"prompts": [[]], "completions": [[]]}, timeout=0.2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
    with FakeRewardServer({"lengths": lengths}, port=server.port) as again:
        assert again.url == server.url and ask(again).status_code == 200


def test_a_token_is_required() -> None:
    with FakeRewardServer({"lengths": lengths}, token="secret") as server:
        assert ask(server).status_code == 401
        assert ask(server, headers={"authorization": "Bearer secret"}).status_code == 200
