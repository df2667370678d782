"""Steps of GRPO on image tokens as the published code of unified RL runs them, for `motet bench learner`.

Written from descriptions of the method (CoRL, arXiv 2505.17534, and what its released code does): every prompt's G
images by transformers' eager `generate` with guidance, conditional and unconditional branch as one batch; log-probs by
one forward pass over G whole sequences of prompt and image, conditional branch only, all logits in float32; reference
log-probs by a second one; gradients added prompt by prompt; AdamW.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import GenerationConfig

from motet.core.conversation import user
from motet.core.trajectory import Encoding
from motet.evaluation.bench_models import IMAGE_GUIDANCE_SCALE, Seconds, StepShape
from motet.evaluation.measuring import measure_seconds
from motet.policies.janus import JanusPolicy
from motet.weights.hf_output import suppress_hf_output


class EagerSteps:
    """The eager loop on a copy of a policy's weights. `lengths` are those of the last step's images."""

    name = "eager loop, transformers generate"

    def __init__(self, policy: JanusPolicy, shape: StepShape) -> None:
        self.shape, self.encoder = shape, policy.adapter.encoder
        self.model: Any = copy.deepcopy(policy.model)
        self.reference: Any = copy.deepcopy(policy.model).requires_grad_(False) if shape.beta else None
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.adamw = torch.optim.AdamW(self.parameters, lr=shape.learning_rate, weight_decay=0.0)
        self.encodings = policy.encoder.encode_all(
            [user(text) for text in shape.texts()], max_new_tokens=policy.num_image_tokens, kind="image", with_null=True
        )
        self.lengths: list[int] = []

    def run(self, steps: int, before_step: Callable[[], None]) -> list[Seconds]:
        """Train for some steps, calling `before_step` before each; their times."""
        times: list[Seconds] = []
        for step in range(steps):
            before_step()
            torch.manual_seed(step)
            images: list[Tensor] = []

            def generate(images: list[Tensor] = images) -> None:
                images += [self._generate(encoding) for encoding in self.encodings]

            def learn(images: list[Tensor] = images) -> None:
                self._learn(images)

            device = self.model.device
            seconds = {"generate": measure_seconds(generate, device), "learn": measure_seconds(learn, device)}
            times.append({**seconds, "step": sum(seconds.values())})
            self.lengths = [ids.shape[1] for ids in images for _ in ids]
        return times

    @torch.no_grad()
    def _generate(self, encoding: Encoding) -> Int[Tensor, "G N"]:
        """One prompt's group of images, decoded."""
        encoder = self.encoder
        ids = encoding.ids.to(self.model.device).expand(self.shape.generations, -1)
        config = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            guidance_scale=IMAGE_GUIDANCE_SCALE,
            bos_token_id=encoder.bos_id,
            pad_token_id=encoder.pad_id,
            generation_kwargs={"boi_token_id": encoder.begin_image_id},
        )
        with suppress_hf_output():
            tokens = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_mode="image", generation_config=config
            )
        self.model.decode_image_tokens(tokens)
        return tokens

    def _learn(self, images: Sequence[Int[Tensor, "G N"]]) -> None:
        """GRPO's update of all groups: ratio 1 at the first and only pass, k3 KL, mean over all actions."""
        total = sum(ids.numel() for ids in images)
        rewards = torch.tensor([float(g % 3) for g in range(self.shape.generations)], device=self.model.device)
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        self.adamw.zero_grad(set_to_none=True)
        for encoding, ids in zip(self.encodings, images, strict=True):
            log_probs = _log_probs(self.model, encoding, ids)
            loss = -(log_probs - log_probs.detach()).exp() * advantages.unsqueeze(1)
            if self.reference is not None:
                with torch.no_grad():
                    reference = _log_probs(self.reference, encoding, ids)
                gap = reference - log_probs
                loss = loss + self.shape.beta * (gap.exp() - gap - 1)
            (loss.sum() / total).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adamw.step()


def _log_probs(model: Any, encoding: Encoding, ids: Int[Tensor, "G N"]) -> Float[Tensor, "G N"]:
    """Of image tokens, by a pass over whole sequences."""
    prompt = encoding.ids.to(ids.device).expand(len(ids), -1)
    embedded = [model.get_input_embeddings()(prompt), model.prepare_embeddings_for_image_generation(ids[:, :-1])]
    hidden = model.model.language_model(inputs_embeds=torch.cat(embedded, dim=1), use_cache=False).last_hidden_state
    logits = model.model.generation_head(hidden[:, prompt.shape[1] - 1 :]).float()
    return logits.log_softmax(dim=-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
