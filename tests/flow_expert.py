"""The smallest policy that draws by denoising: a velocity network on tiny latents, sampled by Flow-GRPO's SDE.

The steps are those of `motet.numerics.flow`, in sampling and in replay; the last one is deterministic, no action.
"""

import hashlib
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from motet.core.trajectory import DenoisingSteps, Encoding, Sampling
from motet.numerics.flow.schedules import linear_sigmas
from motet.policies.diffusion import guidance_branches, make_flow_matching_pairs, replay_log_probs, sample_latents

CHANNELS, SIDE, WORDS = 1, 4, 4
DIMENSIONS = CHANNELS * SIDE * SIDE


class FlowExpert(nn.Module):
    """Draws 4 x 4 grey pictures; implements `motet.core.protocols.TrainablePolicy`. Float64 weights are welcome."""

    kinds = frozenset({"denoising"})
    autocast = rollout_autocast = None

    def __init__(self, seed=0, width=16):
        super().__init__()
        self.version = 0
        torch.manual_seed(seed)
        self.velocity = nn.Sequential(nn.Linear(DIMENSIONS + 1 + WORDS, width), nn.Tanh(), nn.Linear(width, DIMENSIONS))
        self._start = None

    @torch.no_grad()
    def act(self, requests, sampling):
        """One latent after the other, each with its own noise."""
        return [self._draw(request, sampling) for request in requests]

    def encode_targets(self, requests, targets):
        """Grey pictures as latents."""
        clean = torch.stack([to_latent(image) for image in targets])
        steps = make_flow_matching_pairs(clean, [request.key for request in requests])
        return [
            DenoisingSteps(
                name=request.name,
                context=request.context,
                encoding=encode(request.context),
                sampling=Sampling(),
                log_probs=None,
                states=states,
                times=times,
                stochastic=(True,),
                image=image,
            )
            for request, image, (states, times) in zip(requests, targets, steps, strict=True)
        ]

    def replay(self, acts, needs=()):
        """The stored states under the current weights, on the stored schedule."""
        return replay_log_probs(
            self._velocity, acts, [branches(act.encoding) for act in acts], torch.device("cpu"), needs
        )

    def num_tokens(self, act):
        return len(act.states)

    def trainable(self):
        return dict(self.named_parameters())

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: p.detach().clone() for name, p in self.trainable().items()}, folder / "flow.safetensors")

    def freeze_reference(self):
        self._start = {name: p.detach().clone() for name, p in self.named_parameters()}

    @contextmanager
    def reference(self):
        now = {name: p.data for name, p in self.named_parameters()}
        try:
            for name, parameter in self.named_parameters():
                parameter.data = self._start[name]
            with torch.no_grad():
                yield
        finally:
            for name, parameter in self.named_parameters():
                parameter.data = now[name]

    def _draw(self, request, sampling):
        encoding = encode(request.context)
        times = linear_sigmas(sampling.num_steps, sampling.shift or 1.0)
        shape = (CHANNELS, SIDE, SIDE)
        samples = sample_latents(self._velocity, [branches(encoding)], [request.key], shape, times, sampling)
        return DenoisingSteps(
            name=request.name,
            context=request.context,
            encoding=encoding,
            sampling=sampling,
            log_probs=samples.log_probs[0],
            trained=request.trained,
            policy_version=self.version,
            states=samples.states[0],
            times=times,
            stochastic=samples.stochastic,
            image=to_image(samples.clean[0]),
        )

    def _velocity(self, x, sigma, encodings):
        words = torch.stack([encoding.ids.float() / 128 - 1 for encoding in encodings])
        inputs = torch.cat([x.flatten(1), sigma.view(-1, 1), words], dim=1).to(self.velocity[0].weight)
        return self.velocity(inputs).view(-1, CHANNELS, SIDE, SIDE)


def branches(encoding):
    """Without guidance: the encoding alone."""
    return guidance_branches(Sampling(), encoding)


def encode(context):
    """The prompt as four bytes of its hash."""
    return Encoding(torch.tensor([*hashlib.blake2b(context.text.encode(), digest_size=WORDS).digest()]))


def to_latent(image):
    """The inverse of `to_image`, up to rounding."""
    levels = torch.tensor(np.asarray(image.convert("L")), dtype=torch.float32)
    return ((levels / 255 - 0.5) * 4)[None]


def to_image(latent):
    """Grey: 0 is mid-grey, one unit a quarter of the range."""
    levels = (latent[0] / 4 + 0.5).clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels.numpy()).convert("RGB")
