"""Asking about pictures: the policy itself, or a model behind an endpoint, looks at each picture and answers in text.

The policy that trains is also the judge here. By default it judges with the weights that the run started from: a judge
that trains along can learn to read its own drawings kindly, and the score would rise without a better picture.
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
from motet.core.trajectory import Sampling, TextTokens
from motet.rewards.judge.endpoint import Endpoint, ask
from motet.rewards.options import number, one_of, whole

WEIGHTS = ("reference", "current")


@runtime_checkable
class VQAModel(Protocol):
    """Answers questions about pictures, in order; None where it could not."""

    def __call__(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[str | None]: ...


@dataclass(frozen=True, eq=False)
class PolicyVQA:
    """The policy, greedy at temperature 0; `batch_size` pictures at a time.

    At another temperature the n-th picture of a step always meets the same noise.
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
                    assert isinstance(act, TextTokens)
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
    """Inside, the policy has the weights that it judges with: `reference` or `current`."""
    if weights == "current":
        return nullcontext()
    assert isinstance(policy, TrainablePolicy)
    return policy.reference()


def check_judge(reward: str, weights: Any, max_tokens: Any, temperature: Any, batch_size: Any) -> None:
    """Options of a policy as judge. Raises ConfigError."""
    one_of(reward, "weights", weights, WEIGHTS)
    whole(reward, "max_tokens", max_tokens)
    number(reward, "temperature", temperature)
    whole(reward, "batch_size", batch_size)


def require(policy: Policy, reward: str, *, weights: str, writes: bool) -> None:
    """Raise ConfigError unless the policy has a reference, if it is asked for, and can write, if it is to."""
    if weights == "reference" and not isinstance(policy, TrainablePolicy):
        raise ConfigError(
            f"Reward {reward!r} asks for the starting weights, and {type(policy).__name__} has no reference().",
            fix="set rewards.options.weights=current, or give the policy freeze_reference() and reference().",
        )
    if writes and "text" not in policy.kinds:
        raise ConfigError(
            f"Reward {reward!r} asks the policy about pictures, and {type(policy).__name__} writes no text.",
            fix="let an endpoint judge, or use a policy that reads and writes.",
        )
