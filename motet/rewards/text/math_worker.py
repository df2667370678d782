"""Compares mathematical answers in a process of its own: `python math_worker.py MEGABYTES SECONDS`, started by
`math_answers.py`.

Reads lines `{"gold": TEXT, "answer": TEXT}`, writes lines `{"equal": BOOL}`. It imports nothing of motet, so that it
starts fast. Its parent stops it when a comparison takes too long, since computer algebra may take hours and gigabytes
over a short text; SECONDS end a comparison whose parent is gone.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
from typing import Any

_DELIMITED = re.compile(r"\$|\\\(|\\\[|\\boxed|\\begin")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")


def read(text: str) -> list[Any]:
    """The expression of a text, as math-verify finds it; a text that is nothing but a formula is read as a whole."""
    from math_verify import parse  # pyright: ignore[reportMissingImports]  # an extra

    found = parse(text, parsing_timeout=None)  # pyright: ignore[reportArgumentType]
    whole = bool(found) and isinstance(found[-1], str) and found[-1].strip() == text.strip()
    if not whole and not _DELIMITED.search(text) and not _WORD.search(text) and "%" not in text:
        return parse(f"${text}$", parsing_timeout=None) or found  # pyright: ignore[reportArgumentType]
    return found


def equal(gold: str, answer: str) -> bool:
    """Whether the answer's expression equals the gold one's."""
    from math_verify import verify  # pyright: ignore[reportMissingImports]

    return bool(verify(read(gold), read(answer), timeout_seconds=None))


def main() -> None:
    """Answer line by line until the input ends."""
    logging.disable()  # it would warn that it has no timeout of its own, and log what it cannot parse
    try:
        import resource

        most = int(sys.argv[1]) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, ValueError, OSError):  # not on this system
        pass
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends this one
    timed = hasattr(signal, "setitimer")
    for line in sys.stdin:
        pair = json.loads(line)
        if timed:
            signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
        try:
            same = equal(pair["gold"], pair["answer"])
        except Exception:  # what cannot be compared is not equal
            same = False
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"equal": same}), flush=True)


if __name__ == "__main__":
    main()
