"""Callbacks: what is told how a run goes, such as the progress bar, a tracker, a monitor, or a user's own object."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motet.config import Recipe
from motet.config.choice import Choice
from motet.core.errors import ConfigError, MotetError
from motet.core.registry import did_you_mean, first_line, registry
from motet.core.trajectory import Group, Scores

Metrics = Mapping[str, float]


class StopTraining(MotetError):
    """Raised by a callback to end the run: after this step, which is saved, so that the run can be resumed."""


@dataclass(frozen=True)
class RolloutBatch:
    """What was rolled out for one track: groups of trajectories, their scores if any, and the weights of the rewards.

    With several processes, the groups of the main one. `groups[p].trajectories[g].acts` hold texts and PIL images.
    """

    track: str
    groups: Sequence[Group]
    scores: Sequence[Scores]
    weights: Mapping[str, float]


@dataclass(frozen=True)
class Probe:
    """An evaluation that a callback asks for: a suite every `every` steps, and before the first one."""

    suite: Choice
    every: int


class Callback:
    """The events of a run. Any object with one or more of these methods is a callback; nothing needs to inherit.

    A callback that raises does not end the run, unless it raises StopTraining, or ConfigError for options that do not
    fit the run: the first exception of each callback is shown as a warning. Metrics are those of `metrics.jsonl`
    (docs/tour.md). With several processes, the callbacks are in the main one.
    """

    probe: Probe | None = None
    """An evaluation whose metrics it wants to be told by `on_probe`."""
    wants_checkpoint = False
    """While True, a checkpoint is saved after the step."""

    def state_dict(self) -> Mapping[str, Any]:
        """What the callback has to know again when the run is resumed, as JSON holds it: part of every checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take `state_dict()` of the checkpoint that a run goes on from: after `on_run_start`, before the next step."""

    def on_run_start(self, recipe: Recipe, folder: Path) -> None:
        """Before the first step, also of a resumed run, which writes to `folder`."""

    def on_rollout(self, step: int, batches: Sequence[RolloutBatch]) -> Metrics | None:
        """After step number `step` rolled out and scored trajectories, of reinforcement learning only.

        Whatever it returns is added to the step's metrics.
        """

    def on_fixed_prompts(self, step: int, batches: Sequence[RolloutBatch]) -> None:
        """After fixed rows of each track were rolled out for a person to look at, when `step` steps are done.

        Every `run.log_samples_every` steps, of supervised training too. Without scores where the track has no rewards.
        """

    def on_probe(self, step: int, metrics: Metrics) -> Metrics | None:
        """After its `probe` was evaluated when `step` steps are done; what it returns is added to the metrics."""

    def on_step_end(self, step: int, metrics: Metrics) -> None:
        """After step number `step`, counted from 1."""

    def on_eval(self, step: int, metrics: Metrics) -> None:
        """After an evaluation when `step` steps are done, with its metrics, `eval/NAME`."""

    def on_checkpoint(self, step: int, checkpoint: Path) -> None:
        """After a checkpoint was written."""

    def on_run_end(self, step: int, metrics: Metrics) -> None:
        """At the end, also of a run that was interrupted or failed, with the last step done and its metrics."""


EVENTS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class CallbackList(Callback):
    """Calls every callback, in order, for the events that it has methods for."""

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self.callbacks = list(callbacks)
        self._failed: set[int] = set()
        self.last: tuple[int, Metrics] = (0, {})
        """The last step done and its metrics."""
        self.stop: StopTraining | None = None
        """Why a callback ends the run."""

    @property
    def wants_checkpoint(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether one of them asks for a checkpoint."""
        return any(getattr(callback, "wants_checkpoint", False) for callback in self.callbacks)

    @property
    def probes(self) -> list[tuple[int, Probe]]:
        """The evaluations that callbacks ask for, each with its callback's place in the list."""
        asked = [(place, getattr(callback, "probe", None)) for place, callback in enumerate(self.callbacks)]
        return [(place, probe) for place, probe in asked if probe is not None]

    def has(self, event: str) -> bool:
        """Whether one of them has a method of its own for the event."""
        methods = (getattr(type(callback), event, getattr(callback, event, None)) for callback in self.callbacks)
        return any(method is not None and method is not getattr(Callback, event) for method in methods)

    def state_dict(self) -> dict[str, Any]:
        """The states of those that have one, by class and by number among those of that class."""
        states: dict[str, Any] = {}
        for name, callback in self._named():
            state = self._try(callback, "state_dict")
            if not state:
                continue
            try:
                states[name] = json.loads(json.dumps(state))
            except (TypeError, ValueError) as error:
                self._warn_once(callback, "state_dict", error)
        return states

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give each its own state back; one that is new has none."""
        for name, callback in self._named():
            if name in state:
                self._try(callback, "load_state_dict", state[name])

    def add(self, callback: Any, states: Mapping[str, Any]) -> None:
        """Add one to a run that has started, with its state among `states`, those of the checkpoint."""
        self.callbacks.append(callback)
        name, _ = self._named()[-1]
        if name in states:
            self._try(callback, "load_state_dict", states[name])

    def _named(self) -> list[tuple[str, Any]]:
        names = [type(callback).__name__ for callback in self.callbacks]
        return [(f"{name} {names[:n].count(name) + 1}", self.callbacks[n]) for n, name in enumerate(names)]

    def on_run_start(self, recipe: Recipe, folder: Path) -> None:
        self._call("on_run_start", recipe, folder)

    def on_rollout(self, step: int, batches: Sequence[RolloutBatch]) -> Metrics:
        return self._call("on_rollout", step, batches)

    def on_fixed_prompts(self, step: int, batches: Sequence[RolloutBatch]) -> None:
        self._call("on_fixed_prompts", step, batches)

    def on_probe_of(self, place: int, step: int, metrics: Metrics) -> Metrics:
        """Tell the callback that asked for the probe."""
        return self._call_one(self.callbacks[place], "on_probe", step, metrics)

    def on_step_end(self, step: int, metrics: Metrics) -> None:
        self.last = step, metrics
        self._call("on_step_end", step, metrics)

    def on_eval(self, step: int, metrics: Metrics) -> None:
        self._call("on_eval", step, metrics)

    def on_checkpoint(self, step: int, checkpoint: Path) -> None:
        self._call("on_checkpoint", step, checkpoint)

    def on_run_end(self, step: int, metrics: Metrics) -> None:
        self._call("on_run_end", step, metrics)

    def _call(self, event: str, *arguments: Any) -> Metrics:
        returned: dict[str, float] = {}
        for callback in self.callbacks:
            returned |= self._call_one(callback, event, *arguments)
        return returned

    def _call_one(self, callback: Any, event: str, *arguments: Any) -> Metrics:
        """The metrics that the callback returns."""
        returned = self._try(callback, event, *arguments)
        return {str(k): float(v) for k, v in returned.items()} if isinstance(returned, Mapping) else {}

    def _try(self, callback: Any, name: str, *arguments: Any) -> Any:
        """What a method returns; None where the callback has no such method, or where it raises."""
        method = getattr(callback, name, None)
        if method is None:
            return None
        try:
            return method(*arguments)
        except StopTraining as stop:
            self.stop = self.stop or stop
        except ConfigError:
            raise
        except Exception as error:
            self._warn_once(callback, name, error)
        return None

    def _warn_once(self, callback: Any, method: str, error: Exception) -> None:
        if id(callback) not in self._failed:
            self._failed.add(id(callback))
            warnings.warn(
                f"The callback {type(callback).__name__} raised {first_line(error)} in {method}(); the run goes "
                "on. Further exceptions of this callback are not shown.",
                stacklevel=4,
            )


def resolve_callbacks(choices: Sequence[Choice]) -> list[Any]:
    """The callbacks that a recipe's `run.callbacks` names; a class is called with the options as keyword arguments.

    Raises ConfigError for an unknown name or option, and for what has no method of `Callback`.
    """
    resolved = []
    for choice in choices:
        found = registry("callback").find(choice.name)
        callback = make_from_choice(choice, found, "run.callbacks")
        if not any(callable(getattr(callback, event, None)) for event in EVENTS):
            own = [attribute for attribute in dir(callback) if attribute.startswith("on")]
            hint = "".join(did_you_mean(attribute, EVENTS) for attribute in own[:1])
            raise ConfigError(
                f"run.callbacks: {choice.name!r} is a {type(callback).__name__} without any of the methods "
                f"{', '.join(EVENTS)}.{hint}",
                fix="give an object with at least one of them (see motet.report.callbacks.Callback).",
            )
        resolved.append(callback)
    return resolved


def make_from_choice(choice: Choice, found: Any, key: str) -> Any:
    """What a choice of the key names; a class is called with the options. ConfigError for options that it lacks."""
    options = choice.options
    if not inspect.isclass(found):
        if options:
            raise ConfigError(
                f"{key}: {choice.name!r} is an object, not a class, and has no options; given: {', '.join(options)}.",
                fix="remove the options, or name a class, which gets them as keyword arguments.",
            )
        return found
    parameters = inspect.signature(found).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in () if anything else options:
        if option not in parameters:
            raise ConfigError(
                f"{key}: {choice.name!r} has no option {option!r}; its options are: "
                f"{', '.join(parameters) or 'none'}.{did_you_mean(option, parameters)}",
                fix="correct or remove the option.",
            )
    try:
        return found(**options)
    except MotetError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{key}: {choice.name!r} cannot be created: {first_line(error)}.", fix="correct its options."
        ) from error
