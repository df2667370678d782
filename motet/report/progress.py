"""Progress of what takes long: a bar on a terminal, elsewhere a line per minute; with rate, time left and metrics."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

from motet.core.printable import printable
from motet.report.callbacks import Callback
from motet.report.terminal import Terminal

SECONDS_TO_FIRST_LINE, SECONDS_BETWEEN_LINES = 10.0, 60.0
"""Off a terminal: how long a phase without a count lasts before it is mentioned, and how often there is a line."""

TRAIN = "train"
"""The phase of the steps of a run, which a time limit can end."""
LOADING = "load the policy, data and rewards"

SHOWN = (  # metric, label, format; metrics that a run does not log are left out
    ("reward", "reward", "{:.3f}"),
    ("frac_reward_zero_std", "zero-var", "{:.0%}"),
    ("text/kl", "kl text", "{:.4f}"),
    ("image/kl", "kl image", "{:.4f}"),
    ("denoising/kl", "kl steps", "{:.4f}"),
    ("image/ratio_max", "ratio", "{:.3f}"),
    ("text/train_rollout_logprob_diff", "|Δlogp|", "{:.1e}"),
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

LEGEND = {
    "frac_reward_zero_std": "zero-var: groups of equal rewards, without a gradient",
    "text/train_rollout_logprob_diff": "|Δlogp|: log-probs of training against those of sampling, 0 if they agree",
}
"""What is said once, before the first metrics, of labels that do not explain themselves."""

_REWARD = re.compile(r"(?P<track>\w+/)?rewards/(?P<name>.+)/mean")


def describe(metrics: Mapping[str, float]) -> list[str]:
    """The main metrics as `label value`, most important first; zero failures are left out.

    Rewards come first: of every track, then its single rewards (if it has several), then evaluation results.
    """
    nonzero = {key: value for key, value in metrics.items() if not (key == "failures" and value == 0)}
    reward, *others = SHOWN
    labelled = [*_select([reward], nonzero), *_rewards(nonzero), *_eval_metrics(nonzero), *_select(others, nonzero)]
    return [f"{label} {value}" for label, value in labelled]


def _select(rows: Sequence[tuple[str, str, str]], metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for key, label, pattern in rows:
        if key in metrics:
            yield label, pattern.format(metrics[key])


def _rewards(metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """`TRACK/reward` of every track, then `[TRACK/]rewards/NAME/mean` where a track has several rewards."""
    single = [(match, value) for key, value in metrics.items() if (match := _REWARD.fullmatch(key))]
    tracks, names = Counter(match["track"] for match, _ in single), Counter(match["name"] for match, _ in single)
    for track in tracks:
        if track and f"{track}reward" in metrics:
            yield track[:-1], f"{metrics[f'{track}reward']:.3f}"
    for match, value in single:
        if not match["track"] or tracks[match["track"]] > 1:
            yield (
                match["name"] if names[match["name"]] == 1 else f"{match['track'] or ''}{match['name']}",
                f"{value:.3f}",
            )


def _eval_metrics(metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for key, value in metrics.items():
        if key.startswith("eval/") and not key.endswith("/interval"):
            half = metrics.get(f"{key}/interval")
            yield key, f"{value:.3f}" + ("" if half is None else f" \u00b1 {half:.3f}")


class _FittingLine:
    """Parts side by side, as many as fit into the terminal's width; none is cut."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        line = Text("", no_wrap=True, overflow="crop", end="")
        for part in self.parts:
            longer = Text.assemble(line, "  " if line.plain else "", printable(part, lines=False))
            if longer.cell_len > options.max_width:
                break
            line = longer
        yield line


class _MetricsColumn(ProgressColumn):
    """The metrics of a task, in the width that the other columns leave."""

    max_refresh = None

    def render(self, task: Task) -> _FittingLine:
        return _FittingLine(task.fields["parts"])


class _TimeLeftColumn(TimeRemainingColumn):
    """The time left, at most until the time limit of training; after it, that no step follows the one that goes on."""

    def __init__(self, seconds_left: Callable[[], float]) -> None:
        super().__init__()
        self.seconds_left = seconds_left

    def render(self, task: Task) -> Text:
        limit = self.seconds_left()
        if task.finished or limit > (task.time_remaining or 0.0) > 0 or math.isinf(limit):
            return super().render(task)
        return Text("last step" if limit <= 0 else format_seconds(limit), style="progress.remaining")


class _RateColumn(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(format_seconds(task.elapsed or 0.0))
        speed = task.finished_speed or task.speed
        return Text("" if not speed else format_rate(speed))


def format_rate(per_second: float) -> str:
    """`12.3/s`, to three digits."""
    return f"{per_second:.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"


def format_seconds(seconds: float) -> str:
    """`0:07` or `1:02:03`."""
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{left:02}" if minutes >= 60 else f"{minutes}:{left:02}"


@dataclass
class _Phase:
    """What is going on: `done` of `total` items since `started`, from `first` on; without a total there is no count."""

    name: str
    started: float
    first: int = 0
    done: int = 0
    total: int | None = None

    def describe(self, now: float, seconds_left: float = math.inf) -> list[str]:
        """Its count, rate and time left, or how long it has lasted. `seconds_left`: until the time limit of a run."""
        seconds = now - self.started
        over = f"{format_seconds(-seconds_left)} over run.minutes, this step is the last" if seconds_left <= 0 else ""
        if self.total is None:
            return [f"{self.name}: {format_seconds(seconds)} so far", *([over] if over else [])]
        rate = (self.done - self.first) / seconds if seconds > 0 else 0.0
        if rate <= 0:
            return [f"{self.name} {self.done}/{self.total}"]
        counted = [f"{self.name} {self.done}/{self.total}", format_rate(rate)]
        if self.done >= self.total:
            return counted
        left = min((self.total - self.done) / rate, seconds_left)
        return [*counted, over or f"{format_seconds(left)} left"]


class ProgressBar(Callback):
    """Progress of training, of evaluations and of other phases. Use as a context manager.

    `live` False: lines on a terminal too, where other libraries show bars of their own.
    """

    def __init__(self, console: Console, *, live: bool = True) -> None:
        self.console = console
        self._live = live and console.is_terminal
        self.steps: Callable[[], int] = lambda: 0
        """The number of steps of the run, which a time limit may lower."""
        self.explain_fewer: Callable[[int], str] = lambda steps: ""
        """What is said once when the number of steps, now `steps`, has been lowered; empty: nothing."""
        self.seconds_left: Callable[[], float] = lambda: math.inf
        """Seconds of training until the run's time limit: negative after it, infinite without one."""
        self._explained = self._legend_shown = False
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=12), MofNCompleteColumn(),
            _RateColumn(), _TimeLeftColumn(self._seconds_left),
            _MetricsColumn(table_column=Column(ratio=1, no_wrap=True)),
            console=console, transient=True, expand=True,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._lock, self._ended = threading.RLock(), threading.Event()
        self._phase = _Phase("", time.monotonic())
        self._next_line = float("inf")
        self._ticker = threading.Thread(target=self._tick, name="motet progress", daemon=True)

    def __enter__(self) -> ProgressBar:
        if self._live:
            self._bar.start()
        elif not self.console.quiet:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._live:  # the oldest rich ends a bar that never started with an empty line
            self._bar.stop()

    def phase(self, name: str) -> None:
        """Show that something has started, of which no item is finished yet."""
        with self._lock:
            now = time.monotonic()
            self._phase, self._next_line = _Phase(name, now), now + SECONDS_TO_FIRST_LINE
        if self._live:
            self._show_task(name, None, 0, [])

    def on_step_end(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show a finished training step with its metrics."""
        steps, legend = self.steps(), "; ".join(text for key, text in LEGEND.items() if key in metrics)
        if not self._legend_shown and legend:
            self._legend_shown = True
            self.console.print(legend, highlight=False, soft_wrap=True, markup=False)
        if not self._explained and (reason := self.explain_fewer(steps)):
            self._explained = True
            self.console.print(reason, highlight=False, soft_wrap=True, markup=False)
        self._show(TRAIN, step - 1, step, steps, describe(metrics))

    def items(self, name: str, done: int, total: int, seconds: float | None = None) -> None:
        """Show that `done` of `total` items of an evaluation are finished, or of as many as `seconds` leave time for.

        The seconds count from the start of the phase; None: no time limit.
        """
        self._show(name, 0, done, total, [], seconds)

    def _show(
        self, name: str, first: int, done: int, total: int, parts: Sequence[str], seconds: float | None = None
    ) -> None:
        """`first`: how many had been finished before, where this is the first time that the name is shown."""
        with self._lock:
            now, phase = time.monotonic(), self._phase
            begins = phase.name != name or phase.total is None
            if begins:
                phase = self._phase = _Phase(name, phase.started if phase.name == name else now, first)
            ended = done == total
            if seconds is not None and now > phase.started:
                total = min(total, max(done + 1, round((done - first) * seconds / (now - phase.started))))
            phase.done, phase.total = done, total
            if not self._live and (begins or now >= self._next_line or ended):
                self._print([*phase.describe(now, self._seconds_left()), *parts])
        if self._live:
            self._show_task(name, total, done, parts)

    def _seconds_left(self) -> float:
        """Until the time limit of training, where that is what goes on."""
        return self.seconds_left() if self._phase.name == TRAIN else math.inf

    def _show_task(self, name: str, total: int | None, done: int, parts: Sequence[str]) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(printable(name, lines=False), total=total, parts=())
        for other, task in self._tasks.items():  # show one line at a time
            self._bar.update(task, visible=other == name)
        self._bar.update(self._tasks[name], total=total, completed=done, parts=parts)

    def _print(self, parts: Sequence[str]) -> None:
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
        self.console.print(printable("  ".join(parts), lines=False), highlight=False, soft_wrap=True, markup=False)

    def _tick(self) -> None:
        """Off a terminal: a line per minute also while no item is finished."""
        while not self._ended.wait(1.0):
            with self._lock:
                now = time.monotonic()
                if now >= self._next_line and self._phase.name and self._phase.done != self._phase.total:
                    self._print(self._phase.describe(now, self._seconds_left()))


@contextmanager
def waiting(what: str, *, quiet: bool = False) -> Iterator[ProgressBar]:
    """Say that the block takes long: a line after 10 seconds and one per minute, on standard error, so that the output
    stays what the command is asked for. Downloads show bars of their own."""
    with ProgressBar(Terminal(stderr=True, quiet=quiet), live=False) as bar:
        bar.phase(what)
        yield bar
