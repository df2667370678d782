"""CoRL's bidirectional cycle: is the generated image similar to the real one, and its caption to the prompt?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from PIL import Image

from motet.core.errors import DataError
from motet.core.protocols import Policy
from motet.core.trajectory import Sampling
from motet.rewards.base import ModelReward, reward
from motet.rewards.captions.captioners import BlipCaptioner, Captioner
from motet.rewards.captions.similarity import SIMILARITIES, BertScore, SentenceSimilarity, Similarity, Spice, tuples
from motet.rewards.image.pixels import scatter_scores, scorable_images
from motet.rewards.image.similarity import ImageSimilarity, check_visual, open_distance
from motet.rewards.info import DEVICE, ENDPOINT, UNIT, RewardInfo
from motet.rewards.judge.endpoint import read_endpoint
from motet.rewards.judge.vqa import EndpointVQA, PolicyVQA, check_policy_can_judge, check_vqa_options
from motet.rewards.models import device_of
from motet.rewards.options import check_choice, check_non_empty, raise_option_error
from motet.rewards.text.multiple_choice import text_of_question

CAPTIONERS = ("policy", "blip", "endpoint")


@reward(
    "cycle",
    info=RewardInfo(
        range=UNIT,
        model="captioner: the policy, BLIP or an endpoint; LPIPS: VGG (motet[metrics]) or any vision backbone",
        license="of the models chosen",
        size="of the models chosen",
        runs=f"{DEVICE} or {ENDPOINT}",
    ),
)
@dataclass(eq=False, kw_only=True)
class Cycle(ModelReward):
    """Bidirectional cycle of CoRL: (1 - LPIPS(real, generated) + similarity(caption of the image, prompt)) / 2.

    arXiv 2505.17534, R_cycle: the sum is halved so that it lies in [0, 1]; a weight of 2 gives the released code's sum.
    `visual` or `text` of `none` leaves the other term alone. The real image is the row's first of column `image` or
    `images`, the prompt its column `prompt`; a row without a prompt gets None.

    `captioner` is `policy` (asked `question` about the generated image, with the `weights` that the run started from or
    the `current` ones), `blip` (at `captioner_path`) or `endpoint` (a mapping, see `motet.rewards.judge.endpoint`).
    `text` is `tuple_f1` (built in), `bertscore` (with the `encoder` at that path), `sentences` (with that encoder, or
    all-MiniLM-L6-v2) or `spice`. `visual` is `lpips` (that of torchmetrics, or the formula over `backbone` with
    `backbone_weights`), `mse` (1 - MSE) or `ssim`, of images squashed to `side` pixels.
    """

    captioner: Any = "policy"
    captioner_path: Any = None
    question: Any = "Describe the picture in one sentence."
    endpoint: Any = None
    weights: Any = "reference"
    max_tokens: Any = 50
    temperature: Any = 0.0
    text: Any = "tuple_f1"
    encoder: Any = None
    visual: Any = "lpips"
    backbone: Any = None
    backbone_weights: Any = None
    side: Any = 224
    batch_size: Any = 32
    _describe: Captioner | None = field(init=False, default=None)
    _compare: Similarity | None = field(init=False, default=None)
    _similarity: ImageSimilarity | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_choice("cycle", "text", self.text, (*SIMILARITIES, "none"))
        check_choice("cycle", "captioner", self.captioner, CAPTIONERS)
        check_vqa_options("cycle", self.weights, self.max_tokens, self.temperature, self.batch_size)
        check_non_empty("cycle", "question", self.question, "text")
        check_visual("cycle", self.visual, self.backbone, self.backbone_weights, self.side)
        if self.text == self.visual == "none":
            raise_option_error("cycle", "visual", "none", "and text='none' leave no term", fix="choose one term.")
        if self.text == "bertscore":
            check_non_empty("cycle", "encoder", self.encoder, "path of a text encoder")
        if self.text != "none" and self.captioner == "blip":
            check_non_empty("cycle", "captioner_path", self.captioner_path, "path of a BLIP captioner")
        if self.text != "none" and self.captioner == "endpoint":
            self.endpoint = read_endpoint("cycle", self.endpoint)
        if self.text == "spice":
            self._compare = Spice.open("cycle")
        self.uses_reference = self.text != "none" and self.captioner == "policy" and self.weights == "reference"

    @property
    def required_columns(self) -> tuple[str, ...]:
        return ("images",) if self.visual != "none" else ()

    def prepare(self, policy: Policy) -> None:
        device = device_of(policy)
        if self.visual != "none":
            distance = open_distance("cycle", self.visual, self.backbone, self.backbone_weights, device)
            self._similarity = ImageSimilarity(distance, self.side, self.batch_size, device)
        if self.text == "none":
            return
        if self.captioner == "policy":
            check_policy_can_judge(policy, "cycle", weights=self.weights, writes=True)
        if self.captioner == "blip":
            key = "rewards.options.captioner_path of 'cycle'"
            self._describe = BlipCaptioner.open(
                self.captioner_path, device, key=key, max_tokens=self.max_tokens, batch_size=self.batch_size
            )
        if self.text == "bertscore":
            key = "rewards.options.encoder of 'cycle'"
            self._compare = BertScore.open(self.encoder, device, key=key, batch_size=self.batch_size)
        elif self.text == "sentences":
            key = "rewards.options.encoder of 'cycle'"
            self._compare = SentenceSimilarity.open(self.encoder, device, key=key, batch_size=self.batch_size)
        elif self.text == "tuple_f1":
            self._compare = tuples

    def __call__(
        self, completions: list[Any], prompt: list[Any], images: list[Any] | None = None, *, policy: Policy
    ) -> list[float | None]:
        """One score per completion, from its last image; NaN where the captioner could not be reached."""
        places, generated = scorable_images(completions, [asked is not None for asked in prompt], "cycle")
        terms: list[list[float]] = []
        if self._similarity is not None:
            terms.append(self._similarity([_real(images, place) for place in places], generated))
        if self.text != "none":
            terms.append(self._consistency(generated, [text_of_question(prompt[place]) for place in places], policy))
        return scatter_scores(
            len(completions), places, [sum(values) / len(terms) for values in zip(*terms, strict=True)]
        )

    def _consistency(self, images: Sequence[Image.Image], prompts: Sequence[str], policy: Policy) -> list[float]:
        captions = (self._describe or self._captioner(policy))(images)
        answered = [n for n, caption in enumerate(captions) if caption is not None]
        assert self._compare is not None
        found = self._compare([captions[n] or "" for n in answered], [prompts[n] for n in answered])
        scores = dict(zip(answered, found, strict=True))
        return [scores.get(n, math.nan) for n in range(len(captions))]

    def _captioner(self, policy: Policy) -> Captioner:
        if self.captioner == "endpoint":
            vqa: Any = EndpointVQA(self.endpoint, "cycle")
        else:
            sampling = Sampling(float(self.temperature), max_tokens=self.max_tokens)
            vqa = PolicyVQA(policy, self.weights, sampling, self.batch_size)
        return partial(_with_question, vqa, self.question)


def _with_question(vqa: Any, question: str, images: Sequence[Image.Image]) -> list[str | None]:
    return vqa(images, [question] * len(images))


def _real(images: list[Any] | None, place: int) -> Image.Image:
    row = images[place] if images is not None else None
    if not row:
        raise DataError(
            "A row has no real image for the reward 'cycle' to compare with.",
            fix="map the column with data.columns.image=NAME, or set rewards.options.visual=none.",
        )
    return row[0]
