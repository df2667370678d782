"""What a training step of a recipe generates and trains on: acts, tokens and guidance branches, without data or model.

Contexts are found by running each scenario once on a placeholder row: which texts and images a request's conversation
holds is then known, whatever the scenario. How long texts are is not, so `Lengths` states it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from motet.config import Recipe, TrackConfig
from motet.core.act_kinds import act_kind
from motet.core.conversation import Conversation
from motet.core.errors import ConfigError
from motet.core.sampling import Sampling
from motet.core.task import Task
from motet.core.trajectory import Act, DenoisingSteps, Encoding, ImageTokens, TextTokens
from motet.estimation.model_size import ModelSize
from motet.scenarios import Scenario, resolve_scenario


@dataclass(frozen=True)
class Lengths:
    """Lengths that a recipe does not say. `prompt`: tokens of a row's text with its template. `text`: mean tokens of a
    text act; None: half of sampling.text.max_tokens. `images`: input images per row, for scenarios that show them.
    """

    prompt: int = 64
    text: int | None = None
    images: int = 1

    def mean_text(self, longest: int) -> float:
        """Mean tokens of a text act of at most `longest`. Raises ConfigError for a mean above it."""
        if self.text is not None and self.text > longest:
            raise ConfigError(
                f"--text-tokens is {self.text}, but texts end at sampling.text.max_tokens={longest}.",
                fix="lower --text-tokens.",
            )
        return float(self.text) if self.text is not None else max(1.0, longest / 2)


@dataclass(frozen=True)
class ActLoad:
    """One act of a scenario, over a step. There are `groups` x `group_size` of it.

    `context` are the tokens before it, of which `shown` images go through the vision tower. It has at most `actions`
    actions in `positions` positions of the network, `mean_positions` of them on average. `branches` are what is
    sampled (2 or 3 with guidance), `replayed` what is replayed with gradient. Denoising acts have `evaluations` of the
    transformer while sampling; their `actions` are stochastic steps.
    """

    track: str
    name: str
    kind: str
    groups: int
    group_size: int
    context: int
    shown: int
    actions: int
    positions: int
    mean_positions: float
    branches: int = 1
    replayed: int = 1
    evaluations: int = 0
    conditions_once: bool = False
    trained: bool = True

    @property
    def count(self) -> int:
        """Acts in a step."""
        return self.groups * self.group_size

    @property
    def tokens(self) -> int:
        """Tokens that the longest act's replay takes (`Policy.num_tokens`): what micro-batches are cut by.

        The conditions of denoising acts are counted per step for a pipeline, whose transformer takes them, and once for
        a unified model, whose language model computes them.
        """
        if self.kind != "denoising":
            return self.replayed * (self.context + self.positions)
        per_step = 0 if self.conditions_once else self.context
        once = self.context if self.conditions_once else 0
        return once + self.replayed * (self.positions + self.actions * per_step)


@dataclass(frozen=True)
class _Shown:
    """A request as it was made: its act, how many images its context holds, and which acts' texts."""

    name: str
    kind: str
    images: int
    texts: tuple[str, ...]
    trained: bool


def workload(recipe: Recipe, size: ModelSize, lengths: Lengths) -> list[ActLoad]:
    """The acts of one step of reinforcement learning. Raises ConfigError where the policy cannot perform them."""
    loads: list[ActLoad] = []
    for name, track in recipe.resolved_tracks().items():
        scenario = resolve_scenario(track.scenario.name).with_options(track.scenario.options)
        loads += [_load(one, recipe, size, lengths, (name, track)) for one in _requests(scenario, size, lengths)]
    return loads


def _load(
    one: _Shown,
    recipe: Recipe,
    size: ModelSize,
    lengths: Lengths,
    place: tuple[str, TrackConfig],
) -> ActLoad:
    (track, config), longest = place, recipe.sampling.text.max_tokens
    language, denoiser = size.language, size.denoiser
    per_image = 0 if language is None else language.shown_tokens
    context = lengths.prompt + one.images * per_image + round(len(one.texts) * lengths.mean_text(longest))
    sampling: Sampling = recipe.sampling.kinds()[one.kind].at()
    guided = sampling.guidance != "none"
    numbers: dict[str, Any]
    if one.kind == "text":
        numbers = {"actions": longest, "positions": longest, "mean_positions": lengths.mean_text(longest)}
    elif one.kind == "image":
        assert language is not None
        positions = language.image_positions
        numbers = {"actions": language.image_actions, "positions": positions, "mean_positions": float(positions)}
    else:
        assert denoiser is not None
        context = context + denoiser.conditioned_on if denoiser.conditioned_on else denoiser.condition_tokens
        window = recipe.sampling.denoising.sde_window
        actions = recipe.sampling.denoising.num_steps - 1 if window is None else window.size
        numbers = {"actions": actions, "positions": actions * denoiser.tokens}
        numbers |= {"mean_positions": float(actions * denoiser.tokens), "evaluations": sampling.num_steps}
        numbers |= {"conditions_once": bool(denoiser.conditioned_on)}
    return ActLoad(
        track=track,
        name=one.name,
        kind=one.kind,
        groups=config.prompts_per_step,
        group_size=recipe.algorithm.num_generations,
        context=context,
        shown=one.images,
        branches=1 + guided,
        replayed=1 + (sampling.guidance == "guided"),
        trained=one.trained,
        **numbers,
    )


_PROMPT_COLUMNS = ("prompt", "question", "instruction", "inverse")


def _requests(scenario: Scenario, size: ModelSize, lengths: Lengths) -> Iterator[_Shown]:
    """Run the scenario once on a placeholder row; generation indices that skip a refinement are not the usual case."""
    columns: dict[str, Any] = {name: f"the row's {name}" for name in {*_PROMPT_COLUMNS, *scenario.columns}}
    columns |= {"image": None, "images": [_placeholder()] * lengths.images}
    program = scenario(Task(0, columns, generation_index=10**6))
    answer: Any = None
    texts: dict[str, str] = {}
    try:
        while True:
            asked = program.send(answer)
            many = isinstance(asked, tuple | list)
            acts: list[Act] = []
            for request in asked if many else (asked,):
                kind = scenario.kind_of(request.name, size.kinds)
                if kind is None:
                    raise ConfigError(
                        f"The scenario {scenario.name!r} asks for an act {request.name!r} of kind "
                        f"{scenario.acts[request.name]}, which a {size.family} policy does not perform.",
                        fix="choose another scenario, or another policy.",
                    )
                conversation = request.conversation
                known = tuple(name for name, text in texts.items() if text in conversation.text)
                yield _Shown(request.name, kind, len(conversation.images), known, request.trained)
                acts.append(_placeholder_act(request.name, kind, conversation))
                if isinstance(acts[-1], TextTokens):
                    texts[request.name] = f"the text of {request.name}"
            answer = tuple(acts) if many else acts[0]
    except StopIteration:
        return


def _placeholder() -> Image.Image:
    return Image.new("RGB", (8, 8))


def _placeholder_act(name: str, kind: str, context: Conversation) -> Act:
    fields: dict[str, Any] = {
        "name": name,
        "context": context,
        "encoding": Encoding(torch.zeros(0, dtype=torch.long)),
        "log_probs": None,
    }
    fields |= {"sampling": Sampling()}
    if act_kind(kind).makes == "text":
        text = f"<answer>the text of {name}</answer>"
        return TextTokens(ids=torch.zeros(1, dtype=torch.long), text=text, finished=True, **fields)
    if kind == "denoising":
        states = torch.zeros(2, 1)
        return DenoisingSteps(states=states, times=torch.zeros(2), stochastic=(True,), image=_placeholder(), **fields)
    return ImageTokens(ids=torch.zeros(1, dtype=torch.long), image=_placeholder(), **fields)
