"""The callback that tells the trackers of `run.report_to` how a run goes."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from motet.config import Recipe, to_yaml
from motet.config.choice import Choice
from motet.core.errors import ConfigError
from motet.core.registry import registry
from motet.core.trajectory import Act, ImageAct, Scores, TextAct
from motet.report.callbacks import Callback, Metrics, RolloutBatch, make_from_choice
from motet.report.rollouts import FIXED_PROMPTS
from motet.report.terminal import say
from motet.report.tracker_ids import read_tracker_ids, write_tracker_id
from motet.report.trackers.base import Results, RunInfo, Samples, ShownImage, ShownText
from motet.report.trackers.delivery import Delivery
from motet.weights.locate import latest_checkpoint, step_of

KEY = "run.report_to"
END_SECONDS = 60.0
"""How long the end of a run waits for its trackers."""
GROUPS, GENERATIONS = 8, 2
"""Groups of a track whose samples are logged, and generations of each."""


def resolve_trackers(choices: Sequence[Choice]) -> dict[str, Any]:
    """The trackers of `run.report_to` by name.

    Raises ConfigError for an unknown name or option, an object without `log`, and a library that is not installed.
    """
    trackers: dict[str, Any] = {}
    for choice in choices:
        found = registry("tracker").find(choice.name)
        missing = [module for module in getattr(found, "requires", ()) if find_spec(module) is None]
        if missing:
            extra = getattr(found, "extra", "")
            fix = f'pip install "motet[{extra}]"' if extra else f"pip install {' '.join(missing)}"
            raise ConfigError(f"{KEY}={choice.name!r} needs the package {missing[0]}.", fix=f"{fix}.")
        if choice.name in trackers:
            raise ConfigError(f"{KEY}: {choice.name!r} is given twice.", fix="remove one of them.")
        tracker = make_from_choice(choice, found, KEY)
        if not callable(getattr(tracker, "log", None)):
            raise ConfigError(
                f"{KEY}: {choice.name!r} is a {type(tracker).__name__} without the method log(step, metrics).",
                fix="give an object with the methods of motet.report.trackers.Tracker.",
            )
        trackers[choice.name] = tracker
    return trackers


class Tracking(Callback):
    """Tells every tracker, in its own thread, what the run does; warns of what a tracker misses."""

    def __init__(self, trackers: Mapping[str, Any], *, end_seconds: float = END_SECONDS) -> None:
        self.trackers, self.end_seconds = trackers, end_seconds
        self._deliveries: list[Delivery] = []
        self._folder, self._step, self._samples_every = Path(), 0, 1
        self._logged: set[str] = set()

    def on_run_start(self, recipe: Recipe, folder: Path) -> None:
        newest = latest_checkpoint(folder / "checkpoints")
        self._folder, self._step = folder, 0 if newest is None else step_of(newest)
        self._samples_every = recipe.run.log_samples_every
        name = "/".join(folder.absolute().parts[-2:])
        run = RunInfo(name, folder, recipe.model_dump(mode="json"), to_yaml(recipe), self._step)
        ids = read_tracker_ids(folder)
        lock = threading.Lock()  # all ids are in one file
        for tracker, target in self.trackers.items():
            delivery = Delivery(tracker, target, partial(_keep_id, lock, folder, tracker))
            delivery.start(run, ids.get(tracker))
            self._deliveries.append(delivery)

    def on_rollout(self, step: int, batches: Sequence[RolloutBatch]) -> None:
        if step % self._samples_every == 0:
            for batch in batches:
                self._tell("log_samples", step, rollout_samples(batch))

    def on_fixed_prompts(self, step: int, batches: Sequence[RolloutBatch]) -> None:
        for batch in batches:
            self._tell("log_samples", step, rollout_samples(batch, FIXED_PROMPTS))

    def on_step_end(self, step: int, metrics: Metrics) -> None:
        self._step, self._logged = step, set(metrics)
        self._tell("log", step, dict(metrics))

    def on_eval(self, step: int, metrics: Metrics) -> None:
        if step != self._step:
            return  # that of a step is among the step's metrics
        further = {name: value for name, value in metrics.items() if name not in self._logged}
        if further:  # the last step may have been evaluated as part of it: one point of a curve is enough
            self._tell("log", step, further)

    def on_run_end(self, step: int, metrics: Metrics) -> None:
        for name in ("before", "after"):
            shown = list(_saved_grid(self._folder / f"{name}.png"))
            if shown:
                self._tell("log_samples", 0 if name == "before" else self._step, Samples(name, shown))
        results = Results.of(_read_json(self._folder / "summary.json"))
        for delivery in self._deliveries:
            delivery.finish(results)
        self._wait()

    def _tell(self, method: str, *arguments: Any) -> None:
        for delivery in self._deliveries:
            delivery.put(method, *arguments)
            self._warn(delivery)

    def _wait(self) -> None:
        started = time.monotonic()
        slow = [d for d in self._deliveries if not d.wait(min(3.0, self.end_seconds) - (time.monotonic() - started))]
        if slow and self.end_seconds > 3.0:
            names = ", ".join(delivery.name for delivery in slow)
            say(f"Waiting for trackers, {self.end_seconds:.0f} s at most: {names}")
        for delivery in self._deliveries:
            delivery.wait(self.end_seconds - (time.monotonic() - started))
            self._warn(delivery)
            if delivery.lost is not None:
                text = f"The tracker {delivery.name!r} {delivery.lost}. The run folder has all metrics and samples."
                warnings.warn(text, stacklevel=2)

    def _warn(self, delivery: Delivery) -> None:
        for problem in delivery.problems():
            warnings.warn(f"The tracker {delivery.name!r} {problem}. The run goes on.", stacklevel=2)


def rollout_samples(batch: RolloutBatch, name: str = "samples") -> Samples:
    """Images and texts of the first generations of the first groups, with the weighted sum of their rewards if any."""
    images: list[ShownImage] = []
    texts: list[ShownText] = []
    for number, group in enumerate(batch.groups[:GROUPS]):
        for place in group.valid_indices[:GENERATIONS]:
            reward = _reward(batch.scores[number], batch.weights, place) if batch.scores else None
            for act in group.trajectories[place].acts:
                if isinstance(act, ImageAct):
                    shown = "no reward: " if reward is None else f"reward {reward:.2f}: "
                    images.append(ShownImage(act.image, f"{shown if batch.scores else ''}{_prompt(act)}"))
                elif isinstance(act, TextAct):
                    texts.append(ShownText(act.name, act.context.text, act.text, reward))
    return Samples(f"{name}/{batch.track}" if batch.track else name, images, texts)


def _reward(score: Scores, weights: Mapping[str, float], place: int) -> float | None:
    """The weighted sum of a trajectory's rewards that have a value."""
    values = {name: score.values[name][place] for name in weights if name in score.values}
    known = [weights[name] * value for name, value in values.items() if value is not None]
    return sum(known) if known else None


def _prompt(act: Act) -> str:
    return " ".join(act.context.text.split())


def _keep_id(lock: AbstractContextManager[Any], folder: Path, tracker: str, value: Any) -> None:
    with lock:
        write_tracker_id(folder, tracker, value)


def _read_json(path: Path) -> dict[str, Any]:
    """A file that the run writes at its end; empty if it has not."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _saved_grid(path: Path) -> Iterator[ShownImage]:
    if path.is_file():
        with Image.open(path) as image:
            yield ShownImage(image.convert("RGB"), path.stem)
