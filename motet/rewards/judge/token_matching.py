"""CoRL's token-level text-image matching in the policy's feature space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from motet.core.conversation import Conversation, user
from motet.core.errors import ConfigError
from motet.core.protocols import FeaturePolicy, Features, Policy
from motet.rewards.base import ModelReward, reward
from motet.rewards.image.pixels import in_batches, scatter_scores, scorable_images
from motet.rewards.info import DEVICE, RewardInfo
from motet.rewards.judge.similarity import token_matching
from motet.rewards.judge.vqa import WEIGHTS, check_policy_can_judge, with_judge_weights
from motet.rewards.options import check_choice, check_int
from motet.rewards.text.multiple_choice import text_of_question


@reward("token_matching", info=RewardInfo(range="[-1, 1]", model="the policy", license="the policy's", runs=DEVICE))
@dataclass(eq=False, kw_only=True)
class TokenMatching(ModelReward):
    """Token-level text-image matching of CoRL (TIM), in [-1, 1], in the policy's own feature space.

    arXiv 2505.17534, R_TIM: with the last hidden states of the conversation [generated image, prompt], half the mean
    over image tokens of the largest cosine with a prompt token, plus half the mean over prompt tokens of the largest
    cosine with an image token. A row without a prompt gets None; an empty prompt has no tokens and gets 0.

    `weights`: `reference`, the weights that the run started from, or `current`, as the released code has it. A scorer
    that is trained too can be gamed: features that all drift into one direction score 1 for any image.
    """

    weights: Any = "reference"
    batch_size: Any = 16

    def __post_init__(self) -> None:
        check_choice("token_matching", "weights", self.weights, WEIGHTS)
        check_int("token_matching", "batch_size", self.batch_size)
        self.uses_reference = self.weights == "reference"

    def prepare(self, policy: Policy) -> None:
        check_policy_can_judge(policy, "token_matching", weights=self.weights, writes=False)
        if not isinstance(policy, FeaturePolicy):
            raise ConfigError(
                f"Reward 'token_matching' needs features, but {type(policy).__name__} has no method features().",
                fix="give the policy a method features(conversations), or use clip_score.",
            )

    def __call__(self, completions: list[Any], prompt: list[Any], *, policy: Policy) -> list[float | None]:
        """One score per completion, from its last image."""
        assert isinstance(policy, FeaturePolicy)
        places, images = scorable_images(completions, [asked is not None for asked in prompt], "token_matching")
        shown = [user(p, text_of_question(prompt[place])) for p, place in zip(images, places, strict=True)]

        def score(conversations: Sequence[Conversation]) -> list[float]:
            return match(policy.features(conversations)).tolist()

        with with_judge_weights(policy, self.weights):
            return scatter_scores(len(completions), places, in_batches(shown, self.batch_size, score))


def match(features: Sequence[Features]) -> Float[Tensor, "B"]:
    """Token matching of conversations of one image and one text, in this order."""
    image, image_mask = _padded([f.hidden[f.spans[0].start : f.spans[0].stop] for f in features])
    text, text_mask = _padded([f.hidden[f.spans[1].start : f.spans[1].stop] for f in features])
    return token_matching(image, text, image_mask, text_mask)


def _padded(rows: Sequence[Float[Tensor, "_ D"]]) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
    table = pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=table.device)
    return table, torch.arange(table.shape[1], device=table.device) < lengths.unsqueeze(1)
