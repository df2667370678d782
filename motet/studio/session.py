"""What the page does, without the page: policies side by side on one input, from the same noise, with scores."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from PIL import Image
from torch import Tensor

from motet.core.act_kinds import act_kind, kinds_making
from motet.core.errors import ConfigError, DataError, MotetError
from motet.core.protocols import Policy
from motet.core.sampling import Sampling
from motet.core.task import Task
from motet.core.trajectory import Act, Failure, ImageAct
from motet.policies.generation.token_listener import listen_to_tokens
from motet.scenarios import resolve_scenario
from motet.serving.openai_text import text_decoder
from motet.studio.abilities import TASKS, scenarios_of
from motet.studio.background import Report, while_running
from motet.studio.scoring import ImageScorers
from motet.training.rollout import rollout

MAX_GENERATIONS = 16
MAX_SEED = 2**32 - 1
_RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, MAX_SEED),
    "generations": (1, MAX_GENERATIONS),
    "image_temperature": (0.0, 10.0),
    "text_temperature": (0.0, 10.0),
    "max_tokens": (1, 4096),
    "guidance_scale": (1.0, 100.0),
}
"""Lowest and highest value of a setting; whole numbers where these are."""


@dataclass(frozen=True)
class StudioSettings:
    """How acts are sampled and scored. `reward` None: images are not scored."""

    seed: int = 0
    generations: int = 4
    image_temperature: float = 1.0
    text_temperature: float = 0.0
    max_tokens: int = 128
    guidance_scale: float = 1.0
    reward: str | None = None

    @classmethod
    def read(cls, reward: str | None, **values: Any) -> StudioSettings:
        """The settings from a form's values. Raises ConfigError for one that is not a number in its range."""
        for name, value in values.items():
            lowest, highest = _RANGES[name]
            whole = isinstance(lowest, int)
            if not isinstance(value, int if whole else int | float) or not lowest <= value <= highest:
                raise ConfigError(
                    f"{name.replace('_', ' ').capitalize()} is {value!r}.",
                    fix=f"give a {'whole ' if whole else ''}number from {lowest} to {highest}.",
                )
            values[name] = value if whole else float(value)
        return cls(**values, reward=reward)

    def samplings(self, policy: Policy) -> dict[str, Sampling]:
        """The sampling of every kind of act of a policy."""
        guided = {"guidance": "guided", "guidance_scale": self.guidance_scale} if self.guidance_scale > 1.0 else {}
        changes = {
            "text": {"temperature": self.text_temperature, "max_tokens": self.max_tokens},
            "image": {"temperature": self.image_temperature, **guided},
        }
        records = {kind: act_kind(kind) for kind in policy.kinds}
        return {kind: one.sampling(**{**one.interactive, **changes[one.makes]}) for kind, one in records.items()}


@dataclass(frozen=True, eq=False)
class StudioRequest:
    """A scenario for one row: its `columns` (prompt, question, instruction, image).

    Images are scored against `score_prompt`; None: against the row's prompt, and not at all without one.
    """

    scenario: str
    columns: Mapping[str, Any]
    settings: StudioSettings = field(default_factory=StudioSettings)
    score_prompt: str | None = None

    @property
    def prompt_of_score(self) -> str | None:
        """What images are scored against."""
        return self.score_prompt or self.columns.get("prompt")

    @property
    def streams(self) -> bool:
        """Whether texts are shown while they are generated: those of an answer, which nothing follows."""
        return self.scenario == "answer"


@dataclass(frozen=True, eq=False)
class ScoredAct:
    """An act with its score; None: it was not scored."""

    act: Act
    score: float | None = None


@dataclass(frozen=True, eq=False)
class Generation:
    """One rollout: its acts in order, and the failure that ended it, if one did."""

    acts: tuple[ScoredAct, ...]
    failure: Failure | None = None

    @property
    def final_score(self) -> float | None:
        """The score of its last image."""
        return next((one.score for one in reversed(self.acts) if isinstance(one.act, ImageAct)), None)


@dataclass(frozen=True, eq=False)
class PolicyOutput:
    """What one policy generated, by its label; `problem`: why it could not, or why nothing is scored.

    `partial` are the texts so far of a policy that still generates.
    """

    label: str
    generations: tuple[Generation, ...] = ()
    problem: MotetError | None = None
    partial: tuple[str, ...] = ()

    @property
    def mean_score(self) -> float | None:
        """The mean over generations of the score of the last image; None without scores."""
        scores = [one.final_score for one in self.generations if one.final_score is not None]
        return fmean(scores) if scores else None

    @property
    def images(self) -> dict[str, Image.Image]:
        """Every image by a name that people recognise: policy, number of the generation, act where it has several."""
        found: dict[str, Image.Image] = {}
        for number, one in enumerate(self.generations, 1):
            images = [scored.act for scored in one.acts if isinstance(scored.act, ImageAct)]
            for act in images:
                found[f"{self.label} {number}{f' {act.name}' if len(images) > 1 else ''}"] = act.image
        return found


@dataclass(eq=False)
class StudioSession:
    """Policies by label, and the rewards that may score what they generate.

    One generation runs at a time: policies keep caches between calls. The g-th generation draws the noise of its n-th
    act from `(seed, 0, 0, g, n)` for every policy, so that policies differ by their weights alone.
    """

    policies: Mapping[str, Policy]
    scorers: ImageScorers = field(default_factory=ImageScorers)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        able = {task: self._scenarios(task) for task in TASKS}
        self.tasks: dict[str, list[str]] = {task: names for task, names in able.items() if names}
        """The tasks that a policy can do, each with its scenarios."""

    @property
    def makes_images(self) -> bool:
        """Whether a policy generates images."""
        return any(kinds_making("image", policy.kinds) for policy in self.policies.values())

    @property
    def makes_texts(self) -> bool:
        """Whether a policy generates texts."""
        return any(kinds_making("text", policy.kinds) for policy in self.policies.values())

    @property
    def image_temperature(self) -> float:
        """The temperature of images unless somebody chooses another: 0 (the ODE) where all policies denoise."""
        kinds = {kind for policy in self.policies.values() for kind in kinds_making("image", policy.kinds)}
        return max((act_kind(kind).interactive.get("temperature", 1.0) for kind in kinds), default=1.0)

    def run(self, request: StudioRequest) -> Iterator[list[PolicyOutput] | None]:
        """Perform a request with every policy that can; yields the outputs so far, also while a text is generated.

        Yields None every second without any. To close the iterator ends the generation.
        Raises DataError for a column that is empty, ConfigError for a scenario that no policy can perform; an error of
        one policy is the `problem` of its output.
        """
        for name, value in request.columns.items():
            if value is None or (isinstance(value, str) and not value.strip()):
                raise DataError(
                    f"The {name} is missing.", fix="choose an image." if name == "image" else f"write the {name}."
                )
        able = {
            label: policy
            for label, policy in self.policies.items()
            if any(request.scenario in scenarios_of(task, policy) for task in TASKS)
        }
        if not able:
            raise ConfigError(f"No policy can perform the scenario {request.scenario!r}.", fix="choose another one.")
        done: list[PolicyOutput] = []
        for label, policy in able.items():
            with self._lock:
                output = PolicyOutput(label)
                for news in while_running(lambda report, one=policy: self._generate(one, request, report)):
                    output = output if news is None else replace(news, label=label)
                    yield None if news is None else [*done, output]
            done.append(output)

    def _generate(self, policy: Policy, request: StudioRequest, report: Report) -> PolicyOutput:
        decode = text_decoder(policy)
        texts: dict[int, str] = {}

        def on_tokens(sequence: int, ids: Tensor) -> None:
            report.check()
            if decode is not None and request.streams:
                texts[sequence] = decode(ids)
                report(PolicyOutput("", partial=tuple(texts[n] for n in sorted(texts))))

        task, settings = Task(0, request.columns), request.settings
        try:
            with listen_to_tokens(on_tokens, report.check):
                (group,) = rollout(
                    policy,
                    resolve_scenario(request.scenario),
                    [task],
                    settings.generations,
                    samplings=settings.samplings(policy),
                    seed=settings.seed,
                    step=0,
                )
        except MotetError as error:
            return PolicyOutput("", problem=error)
        plain = tuple(Generation(tuple(map(ScoredAct, one.acts)), one.failure) for one in group.trajectories)
        return self._scored(plain, request)

    def _scored(self, generations: tuple[Generation, ...], request: StudioRequest) -> PolicyOutput:
        acts = [scored.act for one in generations for scored in one.acts]
        images = [act for act in acts if isinstance(act, ImageAct)]
        prompt = request.prompt_of_score
        if request.settings.reward is None or prompt is None:
            return PolicyOutput("", generations)
        try:
            values = self.scorers.score(request.settings.reward, prompt, [act.image for act in images])
        except MotetError as error:
            return PolicyOutput("", generations, problem=error)
        score_of = dict(zip(map(id, images), values, strict=True))
        scored = (
            replace(one, acts=tuple(ScoredAct(own.act, score_of.get(id(own.act))) for own in one.acts))
            for one in generations
        )
        return PolicyOutput("", tuple(scored))

    def _scenarios(self, task: str) -> list[str]:
        found = {name for policy in self.policies.values() for name in scenarios_of(task, policy)}
        return [name for name in TASKS[task] if name in found]
