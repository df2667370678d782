"""Policy x scenario x tasks -> groups of trajectories.

P x G programs run in lockstep. At every tick all pending requests of a kind go to the policy in one call; the policy
merges equal contexts, which are the same Conversation object for all generations of a task.

What stops the run and what is only counted:

- A program that raises anything but a MotetError loses its own trajectory: `Failure("scenario")`.
- A context that does not fit (ContextError) loses its trajectory, `Failure("policy")`, if the policy's own earlier acts
  are in it; if not, the data's prompt is too long, which the user has to correct: it propagates.
- Every other MotetError (a missing column, a misdeclared act, a number that is not finite) propagates, and so does
  whatever else the policy raises: those are the user's to correct, or bugs.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from motet.core.act_kinds import ACT_KINDS, act_kind
from motet.core.errors import ConfigError, ContextError, DataError, MotetError
from motet.core.protocols import Policy, Request
from motet.core.registry import did_you_mean, first_line
from motet.core.task import Task
from motet.core.trajectory import Act, Failure, Group, Sampling, Trajectory
from motet.scenarios import GenerateImage, GenerateText, Scenario

Perform = Callable[[str, Sequence[tuple["_ScenarioExecution", Request]]], list[Act]]


@dataclass(frozen=True, eq=False)
class RolloutRequest:
    """What one track brings to a rollout: a scenario and its tasks; `track` is its number."""

    scenario: Scenario
    tasks: Sequence[Task]
    track: int = 0


def rollout(
    policy: Policy,
    scenario: Scenario,
    tasks: Sequence[Task],
    num_generations: int,
    *,
    samplings: Mapping[str, Sampling],
    seed: int,
    step: int,
    track: int = 0,
) -> list[Group]:
    """Play a scenario G = `num_generations` times on each of P tasks: P groups, in the order of the tasks.

    The n-th act of a trajectory draws its noise from `(seed, step, task.index, generation_index, n)`, whatever the
    batch; on a
    `track` other than the first, its number follows the step, so that tracks on the same rows do not share noise.
    Raises ConfigError when the scenario asks for acts that it did not declare or that the policy cannot perform.
    """
    request = RolloutRequest(scenario, tasks, track)
    (groups,) = rollout_tracks(policy, [request], num_generations, samplings=samplings, seed=seed, step=step)
    return groups


def rollout_tracks(
    policy: Policy,
    requests: Sequence[RolloutRequest],
    num_generations: int,
    *,
    samplings: Mapping[str, Sampling],
    seed: int,
    step: int,
) -> list[list[Group]]:
    """`rollout` for several tracks at once: requests of a kind go to the policy in one call, whatever their track."""

    def perform(kind: str, asked: Sequence[tuple[_ScenarioExecution, Request]]) -> list[Act]:
        if kind not in samplings:
            raise ConfigError(f"There is no sampling for acts of kind {kind!r}.", fix=f"pass samplings[{kind!r}].")
        return policy.act([request for _, request in asked], samplings[kind])

    runs = [
        [
            _ScenarioExecution(request.scenario, task.for_generation(g), _key(seed, step, request.track))
            for task in request.tasks
            for g in range(num_generations)
        ]
        for request in requests
    ]
    _run([one for own in runs for one in own], policy, perform)
    return [
        [
            Group(task, tuple(one.trajectory for one in own[n * num_generations : (n + 1) * num_generations]))
            for n, task in enumerate(request.tasks)
        ]
        for request, own in zip(requests, runs, strict=True)
    ]


def encode_demonstrations(
    policy: Policy,
    scenario: Scenario,
    tasks: Sequence[Task],
    targets: Mapping[str, str],
    *,
    samplings: Mapping[str, Sampling] | None = None,
    prompt_dropout: float = 0.0,
    source_dropout: float = 0.0,
    joint_dropout: float = 0.0,
    seed: int = 0,
    step: int = 0,
    track: int = 0,
) -> list[Trajectory]:
    """Play a scenario once per task with acts that the dataset gives: act `name` is the column `targets[name]`.

    Noise is keyed as in `rollout`. A share `prompt_dropout` of the images, chosen by their keys, is encoded without its
    prompt: the unconditional branch of classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, algorithm 1).
    Of the edits, images whose context has an image, further shares go without that, and without both
    (InstructPix2Pix, arXiv 2211.09800, section 3.2.1).

    With `samplings` the policy performs what has no target itself.

    Nothing here fails by chance, so nothing is only counted: raises ConfigError for an act without a target column
    and for a program that raises, DataError for a target that is missing or of the wrong kind, ContextError for a row
    that does not fit.
    """
    for name in targets:
        if name not in scenario.acts:
            raise ConfigError(
                f"data.targets names the act {name!r}, which the scenario {scenario.name!r} does not perform; its acts "
                f"are: {', '.join(scenario.acts)}.{did_you_mean(name, scenario.acts)}",
                fix="name acts of the scenario in data.targets.",
            )

    def perform(kind: str, asked: Sequence[tuple[_ScenarioExecution, Request]]) -> list[Act]:
        dropouts = (prompt_dropout, source_dropout, joint_dropout)
        if samplings is not None and any(request.name not in targets for _, request in asked):
            given = [policy.act([r], samplings[kind])[0] if r.name not in targets else None for _, r in asked]
            return [act or perform(kind, [one])[0] for act, one in zip(given, asked, strict=True)]
        shown = [_target(one.task, request, targets) for one, request in asked]
        return policy.encode_targets([_apply_condition_dropout(request, *dropouts) for _, request in asked], shown)

    runs = [_ScenarioExecution(scenario, task, _key(seed, step, track), errors_are_failures=False) for task in tasks]
    _run(runs, policy, perform)
    return [one.trajectory for one in runs]


def _key(seed: int, step: int, track: int) -> tuple[int, ...]:
    return (seed, step, track) if track else (seed, step)


def _apply_condition_dropout(request: Request, prompt: float, source: float, joint: float) -> Request:
    """The request without its prompt, its source image, or both, at random."""
    if act_kind(request.kind).makes == "text":
        return request
    chance = np.random.default_rng(request.key).random()
    if not request.context.images:
        source = joint = 0.0
    gone = chance < prompt + joint, prompt <= chance < prompt + joint + source
    return replace(request, drop_prompt=bool(gone[0]), drop_source_image=bool(gone[1]))


def _target(task: Task, request: Request, targets: Mapping[str, str]) -> Any:
    """What the row shows for an act: text for a text act, an image for an image act."""
    if request.name not in targets:
        raise ConfigError(
            f"The scenario performs {request.name!r}, but data.targets names no column for it.",
            fix=f"set data.targets.{request.name}=COLUMN.",
        )
    column = targets[request.name]
    value = task[column]
    is_text = act_kind(request.kind).makes == "text"
    if is_text and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str if is_text else Image.Image):
        wanted = "text" if is_text else "an image"
        raise DataError(
            f"{task.location}, column {column!r}, contains {value!r:.80}, which is not {wanted} for {request.name!r}.",
            fix=f"correct the row, or set data.targets.{request.name} to a column that holds {wanted}.",
        )
    return value


@dataclass(eq=False)
class _ScenarioExecution:
    """One program on its way: where it stands, what it waits for, what it has done."""

    scenario: Scenario
    task: Task
    key: tuple[int, ...]
    errors_are_failures: bool = True  # whether what goes wrong with it alone is a Failure, or an error
    acts: list[Act] = field(default_factory=list)
    pending: list[GenerateImage | GenerateText] = field(default_factory=list)
    failure: Failure | None = None
    program: Generator[Any, Any, Any] | None = None
    single: bool = True  # whether the program yielded one request, not a tuple

    @property
    def trajectory(self) -> Trajectory:
        return Trajectory(self.task, tuple(self.acts), self.failure)

    def advance(self, received: list[Act]) -> None:
        """Start the program, or hand it the acts that it waits for; it ends, fails, or has new requests pending."""
        self.acts += received
        self.pending = []
        try:
            if self.program is None:
                self.program = self._start()
                asked = next(self.program)
            else:
                asked = self.program.send(received[0] if self.single else tuple(received))
        except StopIteration:
            if not self.acts:
                raise ConfigError(
                    f"Scenario {self.scenario.name!r} ended without an act.",
                    fix="yield at least one GenerateImage or GenerateText.",
                ) from None
            return
        except MotetError:
            raise
        except (Exception, SystemExit) as error:  # sys.exit(0) would end the run as a success
            said = f"{first_line(error)} {_place(error)}"
            if not self.errors_are_failures:
                raise ConfigError(
                    f"Scenario {self.scenario.name!r} raised {said} on row {self.task.index}.", fix="correct it."
                ) from error
            self.fail("scenario", said)
            return
        self.single = not isinstance(asked, tuple | list)
        self.pending = self._checked([asked] if self.single else list(asked))

    def fail(self, where: Any, message: str) -> None:
        """End as a failure."""
        self.failure, self.pending = Failure(where, message), []
        self.close()

    def close(self) -> None:
        """Let the program clean up; what it raises then is of no consequence."""
        if self.program is not None:
            with suppress(Exception, SystemExit):
                self.program.close()

    def requests(self, kinds: frozenset[str]) -> list[Request]:
        """The pending requests, as the policy takes them: kinds resolved, keys assigned."""
        return [
            Request(
                kind=self._kind(asked, kinds),
                name=asked.name,
                context=asked.conversation,
                key=(*self.key, self.task.index, self.task.generation_index, len(self.acts) + number),
                trained=asked.trained,
            )
            for number, asked in enumerate(self.pending)
        ]

    def _start(self) -> Generator[Any, Any, Any]:
        program = self.scenario(self.task)
        if not isinstance(program, Generator):
            raise ConfigError(
                f"Scenario {self.scenario.name!r} returned a {type(program).__name__}: not a generator function.",
                fix="yield requests: `act = yield GenerateText(task.question)`.",
            )
        return program

    def _checked(self, asked: list[Any]) -> list[GenerateImage | GenerateText]:
        name, acts = self.scenario.name, self.scenario.acts
        if not asked:
            raise ConfigError(
                f"Scenario {name!r} yielded an empty tuple.", fix="yield at least one GenerateImage or GenerateText."
            )
        for one in asked:
            if not isinstance(one, GenerateImage | GenerateText):
                raise ConfigError(
                    f"Scenario {name!r} yielded a {type(one).__name__}, {one!r:.80}.",
                    fix="yield a GenerateImage or a GenerateText, or a tuple of them.",
                )
            declared = acts.get(one.name)
            if declared is None or act_kind(declared).makes != one.makes:
                there = ", ".join(f"{act} ({kind})" for act, kind in acts.items())
                raise ConfigError(
                    f"Scenario {name!r} asked for the {one.makes} {one.name!r}, but it declares: {there}."
                    f"{did_you_mean(one.name, acts) if declared is None else ''}",
                    fix="make `acts` of @scenario and the names of its requests agree.",
                )
            if one.trained and one.name in self.scenario.untrained_acts:
                raise ConfigError(
                    f"Scenario {name!r} declares {one.name!r} as frozen, but asks for it as trained.",
                    fix=f"yield it with trained=False, or take {one.name!r} out of `frozen`.",
                )
        return asked

    def _kind(self, asked: GenerateImage | GenerateText, kinds: frozenset[str]) -> str:
        kind = self.scenario.kind_of(asked.name, kinds)
        if kind is None:
            raise ConfigError(
                f"Scenario {self.scenario.name!r} asks for {asked.name!r} ({self.scenario.acts[asked.name]}), but the "
                f"policy performs only: {', '.join(sorted(kinds))}.",
                fix="choose a policy that performs it, or another scenario.",
            )
        return kind


def _run(runs: Sequence[_ScenarioExecution], policy: Policy, perform: Perform) -> None:
    """Advance all programs in lockstep until every one has ended or failed."""
    try:
        for one in runs:
            one.advance([])
        while waiting := [one for one in runs if one.pending]:
            asked = [(one, request) for one in waiting for request in one.requests(policy.kinds)]
            received: dict[_ScenarioExecution, dict[int, Act]] = {one: {} for one in waiting}
            for kind in ACT_KINDS.entries:
                batch = [(one, request) for one, request in asked if request.kind == kind]
                for (one, request), act in _run_batch_or_split(kind, batch, perform) if batch else ():
                    received[one][request.key[-1]] = act
            for one, acts in received.items():
                if one.failure is None:
                    one.advance([acts[number] for number in sorted(acts)])
    finally:
        for one in runs:
            one.close()


def _run_batch_or_split(
    kind: str, batch: Sequence[tuple[_ScenarioExecution, Request]], perform: Perform
) -> list[tuple[tuple[_ScenarioExecution, Request], Act]]:
    """Perform a batch. When a context does not fit, halve the batch until the one at fault is alone, and fail it.

    Noise is keyed by trajectory, so the acts of the others do not depend on the halving.
    """
    batch = [(one, request) for one, request in batch if one.failure is None]
    try:
        acts = perform(kind, batch) if batch else []
        return list(zip(batch, acts, strict=True))
    except ContextError as error:
        if all(not one.acts or not one.errors_are_failures for one, _ in batch):
            raise  # the dataset's own doing
        if len(batch) == 1:
            batch[0][0].fail("policy", str(error))
            return []
    half = len(batch) // 2
    return _run_batch_or_split(kind, batch[:half], perform) + _run_batch_or_split(kind, batch[half:], perform)


def _place(error: BaseException) -> str:
    """`(file.py:12)`: the innermost line of a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
