"""Counters of a reward service in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Counts of values at most as large as each of the bounds, by label."""

    def __init__(self, name: str, meaning: str, bounds: Sequence[float]) -> None:
        self.name, self.meaning, self.bounds = name, meaning, bounds
        self._counts: dict[Labels, list[int]] = defaultdict(lambda: [0] * (len(bounds) + 1))
        self._sums: dict[Labels, float] = defaultdict(float)

    def add(self, value: float, **labels: str) -> None:
        """Count one value."""
        key = tuple(labels.items())
        self._counts[key][bisect_left(self.bounds, value)] += 1
        self._sums[key] += value

    def lines(self) -> Iterator[str]:
        """The lines of the metric."""
        yield from _head(self.name, self.meaning, "histogram")
        for labels, counts in self._counts.items():
            below = 0
            for bound, count in zip((*map(_number, self.bounds), "+Inf"), counts, strict=True):
                below += count
                yield f"{self.name}_bucket{_labels((*labels, ('le', bound)))} {below}"
            yield f"{self.name}_sum{_labels(labels)} {_number(self._sums[labels])}"
            yield f"{self.name}_count{_labels(labels)} {below}"


class Count:
    """A number that only grows, by label."""

    def __init__(self, name: str, meaning: str) -> None:
        self.name, self.meaning = name, meaning
        self._counts: Counter[Labels] = Counter()

    def add(self, number: int = 1, **labels: str) -> None:
        """Add to the number."""
        self._counts[tuple(labels.items())] += number

    def lines(self) -> Iterator[str]:
        """The lines of the metric."""
        yield from _head(self.name, self.meaning, "counter")
        for labels, count in self._counts.items():
            yield f"{self.name}{_labels(labels)} {count}"


class ServiceMetrics:
    """All that a reward service counts."""

    def __init__(self) -> None:
        self.requests = Count("motet_reward_requests_total", "Requests by reward and status.")
        self.completions = Count("motet_reward_completions_total", "Completions by reward: value, none or error.")
        self.latency = Histogram("motet_reward_request_seconds", "Seconds from a whole request to its reply.", SECONDS)
        self.calls = Histogram("motet_reward_call_seconds", "Seconds of one call of a reward.", SECONDS)
        self.batches = Histogram("motet_reward_batch_completions", "Completions of one call of a reward.", SIZES)

    def text(self, now: Mapping[str, Mapping[str, float]]) -> str:
        """The page; `now` are names of numbers that may also fall, with their values by reward."""
        lines: list[str] = []
        for metric in (self.requests, self.completions, self.latency, self.calls, self.batches):
            lines += metric.lines()
        for name, values in now.items():
            lines += _head(f"motet_reward_{name}", name.replace("_", " ").capitalize() + ".", "gauge")
            lines += [f"motet_reward_{name}{_labels((('reward', r),))} {_number(v)}" for r, v in values.items()]
        return "\n".join([*lines, ""])


def _head(name: str, meaning: str, kind: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]


def _labels(labels: Sequence[tuple[str, str]]) -> str:
    if not labels:
        return ""
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


def _number(value: float) -> str:
    return f"{value:.9g}"
