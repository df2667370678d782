"""The progress bar of a run: the numbers that people watch, live on a terminal, line by line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SHOWN = (  # metric, label, format; only those that a run reports are shown
    ("reward", "reward", "{:.3f}"),
    ("frac_reward_zero_std", "zero-var", "{:.0%}"),
    ("text/kl", "kl text", "{:.4f}"),
    ("image/kl", "kl image", "{:.4f}"),
    ("denoising/kl", "kl steps", "{:.4f}"),
    ("image/ratio_max", "ratio", "{:.3f}"),
    ("text/log_prob_gap", "|Δlogp|", "{:.1e}"),
    ("text/entropy", "ent text", "{:.2f}"),
    ("image/entropy", "ent image", "{:.2f}"),
    ("completion_length/mean", "length", "{:.0f}"),
    ("text/nll", "nll text", "{:.3f}"),
    ("image/nll", "nll image", "{:.3f}"),
    ("images_per_second", "images/s", "{:.0f}"),
    ("step_time", "s/step", "{:.1f}"),
    ("failures", "failed", "{:.0f}"),
    ("skipped", "skipped", "{:.0f}"),
)


def describe(numbers: Mapping[str, float]) -> str:
    """One line of the numbers that people watch; zero failures are not worth a word."""
    parts = [
        f"{label} {pattern.format(numbers[key])}"
        for key, label, pattern in SHOWN
        if key in numbers and not (key == "failures" and numbers[key] == 0)
    ]
    for key, value in numbers.items():
        head, _, tail = key.partition("/")
        if head == "rewards" and tail.endswith("/mean"):
            parts.insert(1, f"{tail.removesuffix('/mean')} {value:.3f}")
        elif tail == "reward":  # of a track
            parts.insert(0, f"{head} {value:.3f}")
        elif key.startswith("eval/"):
            parts.append(f"{key} {value:.3f}")
    return "  ".join(parts)


class ProgressBar:
    """A `Watcher`, and a bar for evaluations. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[line]}", markup=False),
            console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self._tasks: dict[str, object] = {}
        self._printed = 0.0

    def __enter__(self) -> ProgressBar:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def step(self, step: int, steps: int, numbers: Mapping[str, float]) -> None:
        """A step is done."""
        self._show("train", step, steps, describe(numbers))

    def items(self, name: str, done: int, total: int) -> None:
        """So many items of an evaluation are done."""
        self._show(name, done, total, "")

    def _show(self, name: str, done: int, total: int, line: str) -> None:
        if not self.console.is_terminal:
            now = time.monotonic()
            if now - self._printed > 10 or done in (1, total):
                self._printed = now
                self.console.print(f"{name} {done}/{total}  {line}", highlight=False, soft_wrap=True, markup=False)
            return
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total, line="")
        self._bar.update(self._tasks[name], completed=done, line=line)  # type: ignore[arg-type]
