"""Speaks the frames of `motet.rewards.worker_process` without importing anything: a worker that starts at once.

The environment variable STUB_START decides how: "error" (says so), "exit" (ends), else it serves.
"""

import json
import os
import sys
import time


def read():
    header = sys.stdin.buffer.read(4)
    if len(header) < 4:
        raise SystemExit
    return json.loads(sys.stdin.buffer.read(int.from_bytes(header, "big")))


def write(message):
    body = json.dumps(message).encode()
    sys.stdout.buffer.write(len(body).to_bytes(4, "big") + body)
    sys.stdout.buffer.flush()


served = read()
start = os.environ.get("STUB_START")
if start == "error":
    write({"error": {"problem": "There is no such reward.", "fix": "name another."}})
    raise SystemExit
if start == "exit":
    raise SystemExit(5)
write({"info": {"name": "stub", "required_columns": ["gold"], "accepts": None, "reads_acts": [], "info": "a stub"}})
while True:
    request = read()
    texts = [completion[0]["content"] for completion in request["completions"]]
    if "die" in texts:
        os._exit(3)
    if "hang" in texts:
        time.sleep(60)
    if "noise" in texts:
        write({"values": [0.0, 0.0], "errors": [None, None], "metrics": {}, "extra": {}})
        continue
    if "later" in texts and os.fork() == 0:
        time.sleep(0.1)
        os.kill(os.getppid(), 9)
        os._exit(0)
    write({"values": [float(len(text)) for text in texts], "errors": [None] * len(texts), "metrics": {}, "extra": {}})
