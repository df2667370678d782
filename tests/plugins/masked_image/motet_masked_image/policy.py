"""A policy that performs `masked_image`: sampling, replay, and what training asks beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from motet.core.errors import ConfigError
from motet.core.protocols import RandomKey, Replay, Request
from motet.core.sampling import Sampling
from motet.core.trajectory import Act
from motet.numerics.logprobs import scoring_logits
from motet.policies.interactive import InteractiveMixin
from motet.policies.trainable import ReferenceWeights
from motet_masked_image.act import MaskedImage
from motet_masked_image.model import MASK, NUM_TOKENS, MaskedTransformer, decode, encode
from motet_masked_image.settings import MaskedSampling, MaskedSamplingConfig

WEIGHTS = "masked_transformer.safetensors"


class MaskedImagePolicy(InteractiveMixin):
    """Images of a few coloured cells, conditioned on a prompt; `motet.core.protocols.TrainablePolicy`."""

    kinds: frozenset[str] = frozenset({"masked_image"})
    autocast: torch.dtype | None = None
    rollout_autocast: torch.dtype | None = None

    def __init__(self, model: MaskedTransformer) -> None:
        self.version, self.model = 0, model
        self._reference: ReferenceWeights | None = None

    @torch.no_grad()
    def act(self, requests: Sequence[Request], sampling: Sampling) -> list[Act]:
        """Un-mask the tokens of each image in `num_steps` steps."""
        sampling = _supported(sampling)
        if not requests:
            return []
        if others := {one.kind for one in requests} - self.kinds:
            raise ConfigError(f"The policy does not perform {others}.", fix="ask for acts of masked_image.")
        noise = [np.random.Generator(np.random.Philox(np.random.SeedSequence(_words(one.key)))) for one in requests]
        ids = torch.full((len(requests), NUM_TOKENS), MASK)
        steps = torch.zeros_like(ids)
        log_probs = torch.zeros(ids.shape)
        for step in range(sampling.num_steps):
            logits = self._logits(ids, [_prompt(one) for one in requests], sampling)
            gumbel = torch.from_numpy(np.stack([one.gumbel(size=(NUM_TOKENS, MASK + 1)) for one in noise])).float()
            noisy = logits if sampling.temperature == 0 else logits + gumbel[..., :MASK]
            tokens = noisy.argmax(dim=-1)
            chosen = logits.gather(-1, tokens[..., None]).squeeze(-1)
            left = num_masked(step + 1, sampling)
            # Of the likeliest token, not of the sampled one as in Show-o: the choice of positions must not change the
            # distribution of their tokens, which is the scored one. The noise is annealed as there.
            order_noise = sampling.order_noise * left / NUM_TOKENS if sampling.temperature else 0.0
            confidence = logits.amax(dim=-1) + order_noise * gumbel[..., MASK]
            confidence = confidence.masked_fill(ids != MASK, -torch.inf)
            count = num_masked(step, sampling) - left
            unmasked = torch.zeros_like(ids, dtype=torch.bool).scatter_(1, confidence.topk(count).indices, True)
            ids = torch.where(unmasked, tokens, ids)
            steps = torch.where(unmasked, step, steps)
            log_probs = torch.where(unmasked, chosen, log_probs)
        return [
            self._act(request, sampling, ids[n], steps[n], decode(ids[n]), log_probs[n])
            for n, request in enumerate(requests)
        ]

    def encode_targets(self, requests: Sequence[Request], targets: Sequence[Any]) -> list[Act]:
        """A dataset's images as acts that un-mask their tokens in a random order, which the request's key decides."""
        sampling = MaskedSamplingConfig().at()
        acts: list[Act] = []
        for request, target in zip(requests, targets, strict=True):
            order = torch.from_numpy(np.random.default_rng(_words(request.key)).permutation(NUM_TOKENS))
            left = torch.tensor([num_masked(step + 1, sampling) for step in range(sampling.num_steps)])
            steps = (NUM_TOKENS - left[:, None] <= order).sum(dim=0)
            acts.append(self._act(request, sampling, encode(target), steps, target, None))
        return acts

    def replay(self, acts: Sequence[Act], needs: Collection[str] = ()) -> list[Replay]:
        """One forward pass of every act at every step, with the tokens masked that the step saw masked."""
        replays: list[Replay] = []
        for act in acts:
            assert isinstance(act, MaskedImage)
            sampling = _supported(act.sampling)
            seen = torch.arange(sampling.num_steps)[:, None] <= act.steps  # masked at the beginning of a step
            states = torch.where(seen, MASK, act.ids)
            logits = self._logits(states, [act.encoding] * sampling.num_steps, sampling)
            own = logits[act.steps, torch.arange(NUM_TOKENS)]  # of each position at the step that un-masks it
            entropy = -(own.exp() * own.masked_fill(own.isinf(), 0.0)).sum(dim=-1)
            extras = {"entropy": entropy} if "entropy" in needs else {}
            replays.append(Replay(own.gather(-1, act.ids[:, None]).squeeze(-1), extras))
        return replays

    def num_tokens(self, act: Act) -> int:
        """Tokens of all forward passes of a replay."""
        return NUM_TOKENS * act.sampling.num_steps

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """All weights."""
        return dict(self.model.named_parameters())

    def save(self, folder: Path) -> None:
        """Write a checkpoint that `motet.load_policy` loads by its `model_type`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "masked_transformer"}))
        save_file({name: weight.detach() for name, weight in self.model.state_dict().items()}, folder / WEIGHTS)

    def freeze_reference(self) -> None:
        """Remember the present weights as the reference of the KL."""
        self._reference = ReferenceWeights(self.trainable())

    def reference(self) -> AbstractContextManager[None]:
        """Inside, replay answers with the reference weights."""
        assert self._reference is not None
        return self._reference.active()

    def _logits(self, ids: Int[Tensor, "B N"], prompts: list[str], sampling: MaskedSampling) -> Float[Tensor, "B N K"]:
        return torch.log_softmax(scoring_logits(self.model(ids, prompts), **sampling.scoring), dim=-1)

    def _act(
        self, request: Request, sampling: Sampling, ids: Tensor, steps: Tensor, image: Any, log_probs: Tensor | None
    ) -> MaskedImage:
        return MaskedImage(
            name=request.name,
            context=request.context,
            encoding=_prompt(request),
            sampling=sampling,
            log_probs=log_probs,
            trained=request.trained,
            policy_version=self.version,
            image=image,
            ids=ids,
            steps=steps,
        )


def build_policy(config: Any = None) -> MaskedImagePolicy:
    """The policy of a recipe's `policy.path: motet_masked_image.policy:build_policy`, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedImagePolicy(MaskedTransformer())


def load(folder: Path) -> MaskedImagePolicy:
    """The policy that `MaskedImagePolicy.save` wrote."""
    policy = build_policy()
    policy.model.load_state_dict(load_file(folder / WEIGHTS))
    return policy


def num_masked(step: int, sampling: MaskedSampling) -> int:
    """How many tokens are masked after so many steps; every step un-masks at least one while any is masked."""
    done = step / sampling.num_steps
    share = math.cos(math.pi / 2 * done) if sampling.schedule == "cosine" else 1 - done
    return max(0, min(NUM_TOKENS - step, math.floor(NUM_TOKENS * share + 1e-9)))


def _supported(sampling: Sampling) -> MaskedSampling:
    if not isinstance(sampling, MaskedSampling):
        raise ConfigError(
            f"Acts of masked image tokens were asked for with {type(sampling).__name__}.",
            fix='use act_kind("masked_image").sampling().',
        )
    if sampling.guidance != "none" or not 1 <= sampling.num_steps <= NUM_TOKENS:
        raise ConfigError(
            f"Acts of masked image tokens support no guidance, and 1 to {NUM_TOKENS} steps.",
            fix="set guidance to none, and num_steps to a number that fits.",
        )
    return sampling


def _prompt(request: Request) -> str:
    """What the model is shown of a request: its prompt, or nothing where that is dropped."""
    return "" if request.drop_prompt else request.context.text


def _words(key: RandomKey) -> list[int]:
    return [number & 0xFFFFFFFF for number in key]
