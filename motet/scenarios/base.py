"""What a scenario is made of.

    @scenario("reflect", acts={"draft": "image", "critique": "text", "revision": "image"}, columns=("prompt",))
    def reflect(task):
        draft = yield Draw(task.prompt, name="draft")
        critique = yield Write(task.prompt + shows(draft) + asks("What is wrong?"), name="critique")
        yield Draw(task.prompt + shows(draft) + says(critique), name="revision")

A program yields a request, or several independent ones at once as a tuple, and receives the act, or a tuple of acts.
It holds no tensors and no batching: `motet.rollout` plays P x G programs in lockstep. Siblings whose requests share one
Conversation object share one prefill, so pass `task.prompt` and `task.question` on as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast, get_args

from PIL import Image

from motet.conversation import Conversation, user
from motet.errors import ConfigError
from motet.lookup import Registry
from motet.task import Task
from motet.trajectory import Act, ActKind, TextTokens


@dataclass(frozen=True, eq=False)
class Draw:
    """Ask for a picture: image tokens or denoising steps, as the policy draws."""

    conversation: Conversation
    name: str = "drawing"
    trained: bool = True


@dataclass(frozen=True, eq=False)
class Write:
    """Ask for text."""

    conversation: Conversation
    name: str = "answer"
    trained: bool = True


Program = Callable[[Task], Generator[Any, Any, Any]]
"""Yields `Draw | Write | tuple | list` of them; receives the act, or a tuple of acts in the order of the requests."""


@dataclass(frozen=True, eq=False)
class Scenario:
    """A program and what is known of it before it runs.

    `acts` are the names and kinds of all acts that it may perform; `columns` the dataset columns that it reads;
    `frozen` the acts that are never trained, which no reward needs to name. Calling it starts the program.
    """

    name: str
    program: Program
    acts: Mapping[str, ActKind]
    columns: tuple[str, ...] = ()
    frozen: frozenset[str] = frozenset()

    def __call__(self, task: Task) -> Any:
        return self.program(task)


SCENARIOS: Registry[Scenario] = Registry("scenario", key="scenario")


def scenario(
    name: str, *, acts: Mapping[str, str], columns: Collection[str] = (), frozen: Collection[str] = ()
) -> Callable[[Program], Scenario]:
    """Make a generator function `task -> requests` a Scenario.

    Raises ConfigError for a declaration without acts, or of an unknown kind.
    """
    for act, kind in acts.items():
        if kind not in get_args(ActKind):
            raise ConfigError(
                f"Scenario {name!r} declares the act {act!r} of kind {kind!r}.",
                fix=f"use one of {', '.join(get_args(ActKind))}.",
            )
    if not acts or not set(frozen) <= set(acts):
        raise ConfigError(
            f"Scenario {name!r} declares acts {list(acts)} and frozen acts {list(frozen)}.",
            fix='name every act that it performs: acts={"answer": "text"}; frozen ones are among them.',
        )

    def declare(program: Program) -> Scenario:
        kinds = cast(Mapping[str, ActKind], MappingProxyType(dict(acts)))
        return Scenario(name, program, kinds, tuple(columns), frozenset(frozen))

    return declare


def built_in_scenarios() -> dict[str, Scenario]:
    """The scenarios that recipes may call by name."""
    return dict(SCENARIOS.entries)


def resolve_scenario(name: str) -> Scenario:
    """A built-in scenario, or the user's own at `package.module:name` or `file.py:name`. Raises ConfigError."""
    found = SCENARIOS.find(name)
    if not isinstance(found, Scenario):
        raise ConfigError(
            f"scenario={name!r} leads to {found!r}, which is no scenario.",
            fix='put @scenario("name", acts={"answer": "text"}, columns=("question",)) above the generator function.',
        )
    return found


def shows(act: Act) -> Conversation:
    """A picture that the policy drew, as its own turn. Raises ConfigError for an act without a picture."""
    if isinstance(act, TextTokens):
        raise ConfigError(f"shows() was given the text act {act.name!r}, which has no picture.", fix="use says(act).")
    return act.to_conversation()


def says(act: Act) -> Conversation:
    """Text that the policy wrote, as its own turn. Raises ConfigError for an act without text."""
    if not isinstance(act, TextTokens):
        raise ConfigError(f"says() was given the act {act.name!r}, which is a picture.", fix="use shows(act).")
    return act.to_conversation()


def asks(*contents: str | Image.Image) -> Conversation:
    """A user's turn: texts, and pictures if need be (`asks(draft.image, "What is wrong?")`)."""
    return user(*contents)
