"""`motet serve` as a process: it answers, stops at Ctrl-C, and says what it cannot do."""

import os
import signal
import subprocess
import sys

import httpx
import pytest

from tests.runs import motet_command

pytest.importorskip("fastapi")


def test_it_serves_until_ctrl_c(tiny_checkpoint):
    command = [sys.executable, "-m", "motet", "serve", str(tiny_checkpoint), "--port", "0", "--name", "tiny"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("motet serves 'tiny' at http://127.0.0.1:")
        url = line.split(" at ")[1].split()[0]
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
        assert httpx.post(f"{url}/chat/completions", json=body, timeout=60).json()["usage"]["completion_tokens"] > 0
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130 and out == "" and err == ""
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines"),
        (["--token-variable", "MOTET_NO_TOKEN"], "MOTET_NO_TOKEN: the environment variable is not set"),
        (["--host", "192.0.2.1", "--token-variable", "MOTET_TEST_TOKEN"], "a server cannot listen there"),
    ],
)
def test_it_says_where_it_cannot_listen(capsys, monkeypatch, options, problem):
    monkeypatch.setitem(os.environ, "MOTET_TEST_TOKEN", "secret")
    answer = motet_command(capsys, "serve", "no-such-checkpoint", "--port", "0", *options)
    assert answer.code == 2 and problem in answer.err and answer.err.count("\n") == 1
