"""The progress bar of a run: the numbers that people watch, live on a terminal, line by line elsewhere."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from rich.console import Console, ConsoleOptions
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

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

_REWARD = re.compile(r"(?P<track>\w+/)?rewards/(?P<name>.+)/mean")


def describe(numbers: Mapping[str, float]) -> list[str]:
    """The numbers that people watch, each with its label, most important first; zero failures are left out.

    Rewards come first: of every track, then of its single rewards (where it has several), then the measurements.
    """
    counted = {key: value for key, value in numbers.items() if not (key == "failures" and value == 0)}
    first, *others = SHOWN
    known = [*_shown([first], counted), *_rewards(counted), *_measured(counted), *_shown(others, counted)]
    return [f"{label} {value}" for label, value in known]


def _shown(rows: Sequence[tuple[str, str, str]], numbers: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for key, label, pattern in rows:
        if key in numbers:
            yield label, pattern.format(numbers[key])


def _rewards(numbers: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """`TRACK/reward` of every track, then `[TRACK/]rewards/NAME/mean` of every reward that has others beside it."""
    single = [(match, value) for key, value in numbers.items() if (match := _REWARD.fullmatch(key))]
    tracks, names = Counter(match["track"] for match, _ in single), Counter(match["name"] for match, _ in single)
    for track in tracks:
        if track and f"{track}reward" in numbers:
            yield track[:-1], f"{numbers[f'{track}reward']:.3f}"
    for match, value in single:
        if not match["track"] or tracks[match["track"]] > 1:
            yield (
                match["name"] if names[match["name"]] == 1 else f"{match['track'] or ''}{match['name']}",
                f"{value:.3f}",
            )


def _measured(numbers: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for key, value in numbers.items():
        if key.startswith("eval/"):
            yield key, f"{value:.3f}"


class _Fitting:
    """Parts side by side, as many as the terminal has room for: a number is shown whole or not at all."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        line = Text("", no_wrap=True, overflow="crop", end="")
        for part in self.parts:
            longer = Text.assemble(line, "  " if line.plain else "", part)
            if longer.cell_len > options.max_width:
                break
            line = longer
        yield line


class _NumbersColumn(ProgressColumn):
    """The numbers of a task, in the room that the other columns leave."""

    max_refresh = None

    def render(self, task: Task) -> _Fitting:
        return _Fitting(task.fields["parts"])


class ProgressBar:
    """A `Callback`, and a bar for evaluations. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=12), MofNCompleteColumn(),
            TimeRemainingColumn(), _NumbersColumn(table_column=Column(ratio=1, no_wrap=True)),
            console=console, disable=not console.is_terminal, transient=True, expand=True,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
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
        self._show(name, done, total, [])

    def _show(self, name: str, done: int, total: int, parts: Sequence[str]) -> None:
        if not self.console.is_terminal:
            now = time.monotonic()
            if now - self._printed > 10 or done in (1, total):
                self._printed = now
                line = "  ".join([f"{name} {done}/{total}", *parts])
                self.console.print(line, highlight=False, soft_wrap=True, markup=False)
            return
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total, parts=())
        for other, task in self._tasks.items():  # one line: what came before has no more to say
            self._bar.update(task, visible=other == name)
        self._bar.update(self._tasks[name], completed=done, parts=parts)
