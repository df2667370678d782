"""Trajectories: conversations some parts of which were acted by the policy.

An *act* is one uninterrupted piece of policy output. There are three kinds, and each exposes its actions as one axis
`N` with one log-probability each: a text token, an image token, and a stochastic denoising step are all actions.

Dimension letters of the whole package:
    P prompts   G siblings of a prompt   B sequences (acts)   N actions of an act   A actions of all acts, concatenated
    T tokens    S denoising steps        V vocabulary         D features            C H W channels, height, width
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from motet.core.conversation import Conversation, ImagePart, Message, assistant
from motet.core.sampling import Sampling
from motet.core.task import Task

ActKind = Literal["text", "image", "denoising"]


@dataclass(frozen=True, eq=False)
class Encoding:
    """What the model saw of a context, kept so that replay never derives it again.

    `ids` are the context's token ids (image places hold the image token's id); `pixels` the preprocessed images, as
    the model's vision tower takes them, and `image_sizes` their sizes where it needs them (Qwen-VL: time, height and
    width in patches); `null_ids` the ids of the unconditional branch, None when there was none. Shared by the
    generations of a group.
    """

    ids: Int[Tensor, "T"]
    pixels: Float[Tensor, "..."] | None = None
    null_ids: Int[Tensor, "T2"] | None = None
    image_sizes: Int[Tensor, "I 3"] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Act:
    """One uninterrupted piece of policy output: what all kinds share.

    `log_probs` are those of the scoring distribution at sampling time, float32, None for an act that a dataset gives.
    `behaviour_log_probs` are those of the distribution that was really sampled from, where it differs.
    `trained` False: sampled for its effect, left out of the loss.
    """

    name: str
    context: Conversation
    encoding: Any
    sampling: Sampling
    log_probs: Float[Tensor, "N"] | None
    behaviour_log_probs: Float[Tensor, "N"] | None = None
    trained: bool = True
    policy_version: int = 0

    @property
    def kind(self) -> ActKind:
        """Which of the three kinds this act is."""
        raise NotImplementedError

    @property
    def num_actions(self) -> int:
        """N."""
        raise NotImplementedError

    def to_conversation(self) -> Conversation:
        """The act as an assistant turn, for the context of later acts."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, kw_only=True)
class TextTokens(Act):
    """Text that the policy wrote. `ids` include the final end-of-sequence token when `finished`."""

    ids: Int[Tensor, "N"]
    text: str
    finished: bool

    @property
    def kind(self) -> ActKind:
        return "text"

    @property
    def num_actions(self) -> int:
        return len(self.ids)

    def to_conversation(self) -> Conversation:
        return assistant(self.text)


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageTokens(Act):
    """A picture drawn token by token. `ids` are codebook indices in raster order; `image` is their one decoding."""

    ids: Int[Tensor, "N"]
    image: Image.Image

    @property
    def kind(self) -> ActKind:
        return "image"

    @property
    def num_actions(self) -> int:
        return len(self.ids)

    def to_conversation(self) -> Conversation:
        return Conversation((Message("assistant", (ImagePart(self.image, tuple(map(int, self.ids))),)),))


@dataclass(frozen=True, eq=False, kw_only=True)
class DenoisingSteps(Act):
    """A picture drawn by stochastic denoising: `states[s] -> states[s + 1]` is step s, an action where `stochastic[s]`.

    `times` are the schedule's noise levels sigma, from 1 (noise) to 0 (picture): the schedule of the rollout is stored,
    so replay cannot use another. Latents and log-probs are float32; a step's log-density is averaged over the latent
    dimensions (Flow-GRPO, arXiv 2505.05470), so its clip range sits near 1e-4.

    A demonstrated act (`log_probs` None) is one step from `x_sigma = (1 - sigma) x_0 + sigma noise` to the picture
    `x_0`. Its log-prob is minus the flow-matching loss there: the likelihood of supervised training.
    """

    states: Float[Tensor, "S1 *D"]
    times: Float[Tensor, "S1"]
    stochastic: tuple[bool, ...]
    image: Image.Image

    @property
    def kind(self) -> ActKind:
        return "denoising"

    @property
    def num_actions(self) -> int:
        return sum(self.stochastic)

    def to_conversation(self) -> Conversation:
        return assistant(self.image)


@dataclass(frozen=True, eq=False)
class Failure:
    """Why a trajectory has no result: which boundary broke, and what it said."""

    where: Literal["scenario", "policy", "reward"]
    message: str


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One sibling's play of a scenario on a task: its acts in order, or the failure that ended it."""

    task: Task
    acts: tuple[Act, ...]
    failure: Failure | None = None

    @property
    def completion(self) -> list[dict[str, Any]]:
        """The acts as TRL-style assistant messages: text as a plain string, a picture as one image part."""
        return completion_of(self.acts)


def completion_of(acts: Sequence[Act]) -> list[dict[str, Any]]:
    """Acts as TRL-style assistant messages, each with the act's `name`."""
    messages: list[dict[str, Any]] = []
    for act in acts:
        content: Any = act.text if isinstance(act, TextTokens) else act.to_conversation().to_chat()[0]["content"]
        messages.append({"role": "assistant", "name": act.name, "content": content})
    return messages


@dataclass(frozen=True, eq=False)
class Group:
    """The G siblings of one task."""

    task: Task
    trajectories: tuple[Trajectory, ...]

    @property
    def valid_indices(self) -> list[int]:
        """Siblings that did not fail."""
        return [g for g, trajectory in enumerate(self.trajectories) if trajectory.failure is None]


@dataclass(frozen=True, eq=False)
class Scores:
    """The rewards of one group: for every reward its G values; None where it does not apply or its sibling failed.

    `dropped` are the siblings without a usable score, with the reason; they carry no gradient and are counted.
    `logged` is what rewards logged of single siblings: sibling -> reward -> column -> value.
    """

    values: Mapping[str, tuple[float | None, ...]]
    dropped: Mapping[int, Failure] = field(default_factory=dict[int, Failure])
    logged: Mapping[int, Mapping[str, Mapping[str, Any]]] = field(
        default_factory=dict[int, Mapping[str, Mapping[str, Any]]]
    )


@dataclass(frozen=True, eq=False)
class ActWithAdvantage:
    """An act with the advantage that its actions share."""

    act: Act
    advantage: float
