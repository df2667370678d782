"""What a scenario is made of.

    @scenario("reflect", acts={"draft": "image", "critique": "text", "revision": "image"}, columns=("prompt",))
    def reflect(task, *, question="What is wrong?"):
        draft = yield GenerateImage(task.prompt, name="draft")
        context = task.prompt + as_image_turn(draft) + user(question)
        critique = yield GenerateText(context, name="critique")
        yield GenerateImage(context + as_text_turn(critique), name="revision")

A program yields a request, or several independent ones at once as a tuple, and receives the act, or a tuple of acts.
It holds no tensors and no batching: `motet.training.rollout` runs P x G programs in lockstep. Programs whose requests
share one Conversation object share one prefill, so pass `task.prompt` and `task.question` on as they are. Keyword-only
parameters are the scenario's options. A program need not request every declared act: see `motet.rewards.scoring` on
rewards of absent acts.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, cast, get_args

from motet.core.conversation import Conversation
from motet.core.errors import ConfigError
from motet.core.registry import Registry, did_you_mean, registry
from motet.core.task import Task
from motet.core.trajectory import Act, ActKind, TextTokens


@dataclass(frozen=True, eq=False)
class GenerateImage:
    """Ask for a picture: image tokens or denoising steps, as the policy draws."""

    conversation: Conversation
    name: str = "drawing"
    trained: bool = True


@dataclass(frozen=True, eq=False)
class GenerateText:
    """Ask for text."""

    conversation: Conversation
    name: str = "answer"
    trained: bool = True


Program = Callable[..., Generator[Any, Any, Any]]
"""Takes the task, and options as keyword-only parameters.

Yields `GenerateImage | GenerateText | tuple | list` of them; receives the act, or a tuple of acts in the order of the
requests.
"""


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

    def kind_of(self, name: str, kinds: Collection[ActKind]) -> ActKind | None:
        """How a policy of these kinds performs an act: as declared, or a picture the other way; None: not at all.

        A scenario that declares both ways of drawing tells them apart: there is then no other.
        """
        ways: tuple[ActKind, ...] = (self.acts[name],)
        if ways != ("text",) and not {"image", "denoising"} <= set(self.acts.values()):
            ways = (*ways, "image", "denoising")
        return next((kind for kind in ways if kind in kinds), None)

    @property
    def options(self) -> dict[str, Any]:
        """The program's keyword-only parameters with what they are set to; `inspect.Parameter.empty`: not yet set."""
        parameters = inspect.signature(self.program).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def with_options(self, options: Mapping[str, Any]) -> Scenario:
        """This scenario with options set. Raises ConfigError for an unknown, a missing or a mistyped one."""
        known = self.options
        for name, value in options.items():
            if name not in known:
                there = f"its options are: {', '.join(known)}" if known else "it has none"
                raise ConfigError(
                    f"The scenario {self.name!r} has no option {name!r}; {there}.{did_you_mean(name, known)}",
                    fix="correct or remove the option.",
                )
            default = known[name]
            if default not in (None, inspect.Parameter.empty) and not _fits(value, default):
                raise ConfigError(
                    f"The option {name}={value!r} of the scenario {self.name!r} is no {type(default).__name__}, such "
                    f"as {default!r}.",
                    fix="correct the value.",
                )
        for name, default in known.items():
            if default is inspect.Parameter.empty and name not in options:
                raise ConfigError(f"The scenario {self.name!r} needs the option {name!r}.", fix="set it.")
        return replace(self, program=partial(self.program, **options)) if options else self


SCENARIOS: Registry[Scenario] = registry("scenario")
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)


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


def resolve_scenario(name: str | Scenario) -> Scenario:
    """A registered scenario, the user's own at `package.module:name` or `file.py:name`, or the scenario itself."""
    found = SCENARIOS.find(name)
    if not isinstance(found, Scenario):
        raise ConfigError(
            f"scenario={name!r} leads to {found!r}, which is not a scenario.",
            fix='put @scenario("name", acts={"answer": "text"}, columns=("question",)) above the generator function.',
        )
    return found


def as_image_turn(act: Act) -> Conversation:
    """A picture that the policy drew, as its own turn. Raises ConfigError for an act without a picture."""
    if isinstance(act, TextTokens):
        raise ConfigError(
            f"as_image_turn() was given the text act {act.name!r}, which has no picture.", fix="use as_text_turn(act)."
        )
    return act.to_conversation()


def as_text_turn(act: Act) -> Conversation:
    """Text that the policy wrote, as its own turn. Raises ConfigError for an act without text."""
    if not isinstance(act, TextTokens):
        raise ConfigError(
            f"as_text_turn() was given the act {act.name!r}, which is a picture.", fix="use as_image_turn(act)."
        )
    return act.to_conversation()


def last_answer_block_or_text(text: str) -> str:
    """What a thought comes to: its last `<answer>` block that holds something, else the whole text; trimmed.

    Lenient where the reward `answer_format` is strict: the picture has to be drawn from something.
    """
    blocks = [block.strip() for block in _ANSWER.findall(text)]
    return next((block for block in reversed(blocks) if block), text.strip())


def skips_refinement(task: Task, keep: int) -> bool:
    """Whether this sibling is one of the first `keep`, which go on with what the row says. Raises ConfigError."""
    if keep < 0:
        raise ConfigError(f"The option keep={keep} is no number of siblings.", fix="give 0 or more.")
    return task.generation_index < keep


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, int | float if isinstance(default, float) else type(default))
