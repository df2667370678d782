"""The progress bar of a run: its main metrics, updated in place on a terminal, line by line elsewhere."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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

from motet.report.callbacks import Callback

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
        if key.startswith("eval/"):
            yield key, f"{value:.3f}"


class _FittingLine:
    """Parts side by side, as many as fit into the terminal's width; none is cut."""

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


class _MetricsColumn(ProgressColumn):
    """The metrics of a task, in the width that the other columns leave."""

    max_refresh = None

    def render(self, task: Task) -> _FittingLine:
        return _FittingLine(task.fields["parts"])


class ProgressBar(Callback):
    """Progress of training and of evaluations. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.steps: Callable[[], int] = lambda: 0
        """The number of steps of the run, which a time limit may lower."""
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=12), MofNCompleteColumn(),
            TimeRemainingColumn(), _MetricsColumn(table_column=Column(ratio=1, no_wrap=True)),
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

    def on_step_end(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show a finished training step with its metrics."""
        self._show("train", step, self.steps(), describe(metrics))

    def items(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` items of an evaluation are finished."""
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
        for other, task in self._tasks.items():  # show one line at a time
            self._bar.update(task, visible=other == name)
        self._bar.update(self._tasks[name], completed=done, parts=parts)
