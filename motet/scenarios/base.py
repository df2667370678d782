"""The scenario API: the decorator, the requests, and helpers for turns.

    @scenario("reflect", acts={"draft": "image", "critique": "text", "revision": "image"}, columns=("prompt",))
    def reflect(task, *, question="What is wrong?"):
        draft = yield GenerateImage(task.prompt, name="draft")
        context = task.prompt + as_image_turn(draft) + user(question)
        critique = yield GenerateText(context, name="critique")
        yield GenerateImage(context + as_text_turn(critique), name="revision")

The generator function yields a request, or several independent ones at once as a tuple, and receives the act, or a
tuple of acts. It handles no tensors and no batches: `motet.training.rollout` runs P x G generators in lockstep.
Requests that share one Conversation object share one prefill, so pass `task.prompt` and `task.question` on as they
are. Keyword-only parameters are the scenario's options. A generator need not request every declared act: see
`motet.rewards.scoring` on rewards of absent acts.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

from motet.core.act_kinds import ACT_KINDS, Makes, act_kind, kinds_making
from motet.core.conversation import Conversation
from motet.core.errors import ConfigError
from motet.core.registry import Registry, did_you_mean, registry
from motet.core.task import Task
from motet.core.trajectory import Act, ImageAct, TextAct


@dataclass(frozen=True, eq=False)
class GenerateImage:
    """A request for an image, by whichever kind of act the policy makes images with.

    `name` is the act's; `trained` False leaves the act out of the loss.
    """

    makes: ClassVar[Makes] = "image"
    conversation: Conversation
    name: str = "image"
    trained: bool = True


@dataclass(frozen=True, eq=False)
class GenerateText:
    """A request for text; fields as of `GenerateImage`."""

    makes: ClassVar[Makes] = "text"
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
    """A generator function with its declaration. Calling it with a task starts the generator.

    `acts` are the names and kinds of all acts that it may request; `columns` the dataset columns that it uses;
    `untrained_acts` those that are never trained, which need no reward.
    """

    name: str
    program: Program
    acts: Mapping[str, str]
    columns: tuple[str, ...] = ()
    untrained_acts: frozenset[str] = frozenset()

    def __call__(self, task: Task) -> Any:
        return self.program(task)

    def kind_of(self, name: str, kinds: Collection[str]) -> str | None:
        """The kind in which a policy that supports `kinds` performs an act; None: it cannot.

        That is the declared kind, or another one that makes the same. A scenario that declares acts of several kinds
        that make an image means each as declared.
        """
        declared = self.acts[name]
        accepted = kinds_making(act_kind(declared).makes)
        if len(set(self.acts.values()) & set(accepted)) > 1:
            accepted = []
        return next((kind for kind in (declared, *accepted) if kind in kinds), None)

    def acts_making(self, makes: Makes) -> list[str]:
        """The names of the acts that make texts, or images."""
        return [name for name, kind in self.acts.items() if act_kind(kind).makes == makes]

    @property
    def options(self) -> dict[str, Any]:
        """The keyword-only parameters with their values; `inspect.Parameter.empty` for one without a default."""
        parameters = inspect.signature(self.program).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def with_options(self, options: Mapping[str, Any]) -> Scenario:
        """This scenario with options set. Raises ConfigError for an unknown, a missing or a mistyped one."""
        known = self.options
        for name, value in options.items():
            if name not in known:
                available = f"its options are: {', '.join(known)}" if known else "it has no options"
                raise ConfigError(
                    f"The scenario {self.name!r} has no option {name!r}; {available}.{did_you_mean(name, known)}",
                    fix="correct or remove the option.",
                )
            default = known[name]
            if default not in (None, inspect.Parameter.empty) and not _fits(value, default):
                raise ConfigError(
                    f"The option {name}={value!r} of the scenario {self.name!r} is not a {type(default).__name__}.",
                    fix=f"give a value like the default, {default!r}.",
                )
        for name, default in known.items():
            if default is inspect.Parameter.empty and name not in options:
                raise ConfigError(f"The scenario {self.name!r} needs the option {name!r}.", fix="set the option.")
        return replace(self, program=partial(self.program, **options)) if options else self


SCENARIOS: Registry[Scenario] = registry("scenario")
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)


def scenario(
    name: str, *, acts: Mapping[str, str], columns: Collection[str] = (), untrained: Collection[str] = ()
) -> Callable[[Program], Scenario]:
    """Make a generator function `task -> requests` a Scenario; `Scenario` documents the parameters.

    Raises ConfigError for a declaration without acts, for an unknown kind, and for undeclared acts in `untrained`.
    """
    for act, kind in acts.items():
        if ACT_KINDS.get(kind) is None:
            raise ConfigError(
                f"Scenario {name!r} declares the act {act!r} of the unknown kind {kind!r}.",
                fix=f"use one of: {', '.join(ACT_KINDS.entries)}.",
            )
    if not acts or not set(untrained) <= set(acts):
        raise ConfigError(
            f"Scenario {name!r} declares the acts {list(acts)} and the untrained acts {list(untrained)}.",
            fix='declare at least one act, acts={"answer": "text"}; untrained acts must be among the acts.',
        )

    def declare(program: Program) -> Scenario:
        return Scenario(name, program, MappingProxyType(dict(acts)), tuple(columns), frozenset(untrained))

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
    """A generated image as an assistant turn. Raises ConfigError for a text act."""
    if not isinstance(act, ImageAct):
        raise ConfigError(
            f"as_image_turn() expects an image act, but {act.name!r} is a text act.", fix="use as_text_turn(act)."
        )
    return act.to_conversation()


def as_text_turn(act: Act) -> Conversation:
    """Generated text as an assistant turn. Raises ConfigError for an image act."""
    if not isinstance(act, TextAct):
        raise ConfigError(
            f"as_text_turn() expects a text act, but {act.name!r} is an image act.", fix="use as_image_turn(act)."
        )
    return act.to_conversation()


def last_answer_block_or_text(text: str) -> str:
    """The last non-empty `<answer>` block of a text, else the whole text; stripped.

    Lenient where the reward `answer_format` is strict: the image needs some prompt.
    """
    blocks = [block.strip() for block in _ANSWER.findall(text)]
    return next((block for block in reversed(blocks) if block), text.strip())


def skips_refinement(task: Task, keep: int) -> bool:
    """Whether this is one of the first `keep` generations of its group, which use the row's own prompt.

    Raises ConfigError for a negative `keep`.
    """
    if keep < 0:
        raise ConfigError(f"The option keep={keep} must be >= 0.", fix="give 0 or more.")
    return task.generation_index < keep


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, int | float if isinstance(default, float) else type(default))
