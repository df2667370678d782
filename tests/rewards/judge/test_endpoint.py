"""A judge behind HTTP: what is sent, what is tried again, and what is rejected. The server is in this process."""

import base64
import io
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from PIL import Image

from motet.core.errors import ConfigError, RewardError
from motet.rewards.judge.endpoint import Endpoint, ask, read_endpoint
from tests.rewards.judges import Raw, chat_server, image


@pytest.fixture
def server():
    with chat_server() as running:
        yield running


def patient(server, **changes):
    return replace(Endpoint(base_url=server.url, model="judge", retries=2, backoff=0.001, timeout=5.0), **changes)


def test_the_request_is_a_chat_with_the_image_as_png(server, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "s3cret")
    replies = ask(patient(server, key_variable="JUDGE_KEY", max_tokens=7), [image("blue")], ["What?"], "cycle")
    assert replies == ["a red dog"]
    headers, body = server.seen[0]
    assert headers["path"] == "/v1/chat/completions" and headers["Authorization"] == "Bearer s3cret"
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("judge", 7, 0.0)
    shown, asked = body["messages"][0]["content"]
    assert asked == {"type": "text", "text": "What?"}
    scheme, _, data = shown["image_url"]["url"].partition(",")
    assert scheme == "data:image/png;base64"
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert sent.tobytes() == image("blue").tobytes() and sent.size == (20, 16)


def test_replies_keep_their_order_and_run_at_the_same_time(server):
    gate = threading.Barrier(3, timeout=5.0)

    def reply(request):
        question = request["messages"][0]["content"][1]["text"]
        gate.wait()
        time.sleep(0.05 if question == "0" else 0)
        return f"reply {question}"

    server.reply = reply
    assert ask(patient(server, concurrency=3), [image()] * 3, ["0", "1", "2"], "r") == [f"reply {n}" for n in range(3)]
    assert server.busiest == 3


def test_concurrency_is_a_limit(server):
    server.reply = lambda request: time.sleep(0.02) or "x"
    ask(patient(server, concurrency=2), [image()] * 6, ["?"] * 6, "r")
    assert server.busiest == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, status):
    left = [status, status]
    server.reply = lambda request: left.pop() if left else "at last"
    assert ask(patient(server), [image()], ["?"], "r") == ["at last"]
    assert len(server.seen) == 3


def test_what_stays_broken_is_none_beside_what_works(server):
    server.reply = lambda request: 503 if request["messages"][0]["content"][1]["text"] == "bad" else "fine"
    assert ask(patient(server), [image()] * 2, ["bad", "good"], "r") == [None, "fine"]
    assert len(server.seen) == 4  # the bad one three times


@pytest.mark.parametrize(
    ("reply", "calls", "message"),
    [
        (401, 1, "HTTP Error 401"),
        (302, 1, "HTTP Error 302"),  # a redirect would carry the key along
        (500, 3, "HTTP Error 500"),
        (b"<html>", 1, "not a chat completion: b'<html>'"),
        (b'{"choices": [{"mess', 3, "IncompleteRead"),
        (b"", 3, "IncompleteRead"),
        (b" " * (1 << 21), 1, "longer than"),
        (b'{"choices": []}', 1, "not a chat completion"),
        (b'{"choices": [{"message": {"content": null}}]}', 1, "not a chat completion"),
    ],
)
def test_when_nothing_is_answered_the_run_stops(server, reply, calls, message):
    server.reply = lambda request: reply
    with pytest.raises(RewardError, match=message) as caught:
        ask(patient(server), [image()], ["?"], "cycle")
    assert "'cycle'" in str(caught.value) and len(server.seen) == calls


def test_a_server_that_says_nothing_times_out(server):
    server.reply = lambda request: time.sleep(0.5) or "late"
    with pytest.raises(RewardError, match=r"all requests failed: .*[Tt]ime"):
        ask(patient(server, timeout=0.05, retries=0), [image()], ["?"], "r")


def test_a_reply_that_is_cut_off_is_asked_for_again(server):
    """The connection ends before the length that the header promises."""
    left = [Raw(b'{"choices": [{"message": {"content": "a red', length=500)] * 2
    server.reply = lambda request: left.pop() if left else "whole"
    assert ask(patient(server), [image()], ["?"], "r") == ["whole"]
    assert len(server.seen) == 3


@pytest.mark.parametrize("head", [True, False])
def test_a_server_that_sends_a_byte_now_and_then_has_a_total_limit(server, head):
    server.reply = lambda request: Raw(b" " * 1000, pause=0.1, head=head)
    began = time.monotonic()
    with pytest.raises(RewardError, match="no whole reply within"):
        ask(patient(server, timeout=0.5, retries=1), [image()], ["?"], "r")
    assert time.monotonic() - began < 4


INTERRUPTED = """
import signal, sys, threading, time
from PIL import Image
from motet.training.signals import Interrupt
from motet.rewards.judge.endpoint import Endpoint, ask

endpoint = Endpoint(sys.argv[1], "judge", timeout=60.0, retries=3)
with Interrupt():
    print("asking", flush=True)
    ask(endpoint, [Image.new("RGB", (4, 4))] * 20, ["?"] * 20, "r")
"""


def test_two_interrupts_during_a_hanging_judge_act_at_once(server):
    asked, hold = threading.Event(), threading.Event()
    server.reply = lambda request: asked.set() or hold.wait(60) or "late"
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, server.url], stderr=subprocess.PIPE, text=True)
    try:
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None  # the first one lets the step end
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 20:  # on a busy machine two signals can become one
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        assert time.monotonic() - began < 10
        assert "KeyboardInterrupt" in process.stderr.read()
    finally:
        hold.set()
        process.kill()


def test_a_server_that_is_not_there(server):
    server.server_close()
    with pytest.raises(RewardError, match="all requests failed"):
        ask(patient(server, retries=0), [image()], ["?"], "r")


def test_a_key_that_is_not_set(server, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="key_variable='JUDGE_KEY' of 'r' is not set"):
        ask(patient(server, key_variable="JUDGE_KEY"), [image()], ["?"], "r")
    assert server.seen == [] and ask(patient(server, key_variable="JUDGE_KEY"), [], [], "r") == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("http://x/v1", "endpoint='http://x/v1' of 'cycle' is not a mapping"),
        ({"base_url": "http://x", "model": "m", "modle": 1}, r"endpoint.modle of 'cycle'.*Did you mean 'model'"),
        ({"model": "m"}, "endpoint.base_url=None of 'cycle' is not a text"),
        ({"base_url": "http://x", "model": ""}, "endpoint.model='' of 'cycle' is not a text"),
        ({"base_url": "file:///x", "model": "m"}, "is not an http"),
        ({"base_url": "http://x", "model": "m", "timeout": 0}, "endpoint.timeout=0 of 'cycle' must be a number"),
        ({"base_url": "http://x", "model": "m", "retries": -1}, "endpoint.retries=-1"),
        ({"base_url": "http://x", "model": "m", "retries": True}, "endpoint.retries=True"),
        ({"base_url": "http://x", "model": "m", "concurrency": 0}, "endpoint.concurrency=0"),
        ({"base_url": "http://x", "model": "m", "temperature": float("nan")}, "endpoint.temperature=nan"),
        ({"base_url": "http://x", "model": "m", "key_variable": " "}, "endpoint.key_variable=' '"),
    ],
)
def test_a_wrong_endpoint_raises(value, message):
    with pytest.raises(ConfigError, match=message):
        read_endpoint("cycle", value)


def test_an_endpoint_as_a_recipe_writes_it():
    found = read_endpoint("cycle", {"base_url": "http://x/v1", "model": "m", "timeout": 5})
    assert found == Endpoint("http://x/v1", "m", timeout=5.0)
