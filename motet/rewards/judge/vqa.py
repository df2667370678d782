"""VQA models: the policy itself, or a model behind an endpoint, answers questions about images.

By default the policy answers with the weights that the run started from: a co-trained judge can drift towards its own
outputs, and the score would rise without better images.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from motet.core.conversation import user
from motet.core.errors import ConfigError
from motet.core.protocols import Policy, Request, TrainablePolicy
from motet.core.trajectory import Sampling, TextAct
from motet.rewards.judge.endpoint import Endpoint, ask
from motet.rewards.options import check_choice, check_int, check_number

WEIGHTS = ("reference", "current")


@runtime_checkable
class VQAModel(Protocol):
    """Answers one question per image, in order; None where it could not."""

    def __call__(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[str | None]: ...


@dataclass(frozen=True, eq=False)
class PolicyVQA:
    """The policy, greedy at temperature 0; `batch_size` images at a time.

    At another temperature the n-th image of a step always gets the same sampling noise.
    """

    policy: Policy
    weights: str
    sampling: Sampling
    batch_size: int

    def __call__(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[str | None]:
        requests = [
            Request("text", "judgement", user(image, question), (n,), trained=False)
            for n, (image, question) in enumerate(zip(images, questions, strict=True))
        ]
        texts: list[str | None] = []
        with with_judge_weights(self.policy, self.weights):
            for start in range(0, len(requests), self.batch_size):
                for act in self.policy.act(requests[start : start + self.batch_size], self.sampling):
                    assert isinstance(act, TextAct)
                    texts.append(act.text.strip())
        return texts


@dataclass(frozen=True, eq=False)
class EndpointVQA:
    """A model behind an OpenAI-compatible endpoint; `reward` is named in errors."""

    endpoint: Endpoint
    reward: str

    def __call__(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[str | None]:
        return ask(self.endpoint, images, questions, self.reward)


def with_judge_weights(policy: Policy, weights: str) -> AbstractContextManager[None]:
    """Context in which the policy has the weights that it answers with: `reference` or `current`."""
    if weights == "current":
        return nullcontext()
    assert isinstance(policy, TrainablePolicy)
    return policy.reference()


def check_vqa_options(reward: str, weights: Any, max_tokens: Any, temperature: Any, batch_size: Any) -> None:
    """Validate the options of a policy as VQA model. Raises ConfigError."""
    check_choice(reward, "weights", weights, WEIGHTS)
    check_int(reward, "max_tokens", max_tokens)
    check_number(reward, "temperature", temperature)
    check_int(reward, "batch_size", batch_size)


def check_policy_can_judge(policy: Policy, reward: str, *, weights: str, writes: bool) -> None:
    """Raise ConfigError if `weights` needs reference weights, or `writes` text, that the policy does not have."""
    if weights == "reference" and not isinstance(policy, TrainablePolicy):
        raise ConfigError(
            f"Reward {reward!r} needs the reference weights, but {type(policy).__name__} has no reference().",
            fix="set rewards.options.weights=current, or give the policy freeze_reference() and reference().",
        )
    if writes and "text" not in policy.kinds:
        raise ConfigError(
            f"Reward {reward!r} asks the policy about images, but {type(policy).__name__} does not generate text.",
            fix="use an endpoint, or a policy that generates text about images.",
        )
