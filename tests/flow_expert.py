"""The smallest policy that draws by denoising: a velocity network on tiny latents, sampled by Flow-GRPO's SDE.

A flow takes noise (sigma 1) to a picture (sigma 0) along `dx = v dsigma`. Flow-GRPO (arXiv 2505.05470) adds noise to
each step without changing the marginals. With D = sigma' - sigma < 0 and S = sigma, or the schedule's second sigma
where sigma = 1 (the formula would divide by zero there):

    s    = a sqrt(sigma / (1 - S))
    mean = x (1 + s^2 D / (2 sigma)) + v (1 + s^2 (1 - sigma) / (2 sigma)) D
    std  = s sqrt(-D)

The log-density is averaged over the latent's dimensions, not summed: a ratio's clip range then sits near 1e-4.
The last step is deterministic, so it is no action.
"""

import hashlib
import math
from contextlib import contextmanager

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from motet.errors import ConfigError
from motet.protocols import Replay
from motet.testing import number_of
from motet.trajectory import DenoisingSteps, Encoding

CHANNELS, SIDE, WORDS = 1, 4, 4
DIMENSIONS = CHANNELS * SIDE * SIDE


class FlowExpert(nn.Module):
    """Draws 4 x 4 grey pictures; implements `motet.protocols.LearningPolicy`. Float64 weights are welcome."""

    kinds = frozenset({"denoising"})
    autocast = None

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

    def transcribe(self, requests, targets):
        raise ConfigError("The flow expert has no encoder.", fix="sample its acts.")

    def replay(self, acts, needs=()):
        """The stored states under the current weights, on the stored schedule."""
        replays = []
        for act in acts:
            taken = torch.tensor(act.stochastic)
            means, stds = self._steps(act.states[:-1], act.times, act.encoding, act.sampling.noise_level)
            log_probs = log_density(act.states[1:].to(means)[taken], means[taken], stds[taken])
            offers = {"mean": means[taken], "std": stds[taken]}
            replays.append(Replay(log_probs, {name: offers[name] for name in needs if name in offers}))
        return replays

    def cost(self, act):
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
        generator = torch.Generator().manual_seed(number_of(request.key))
        noise = torch.randn(sampling.num_steps + 1, CHANNELS, SIDE, SIDE, generator=generator)
        times = torch.linspace(1.0, 0.0, sampling.num_steps + 1)
        stochastic = (True,) * (sampling.num_steps - 1) + (False,)
        encoding, states, log_probs = encode(request.context), [noise[0]], []
        for step, noisy in enumerate(stochastic):
            x, sigma = states[-1][None], times[step : step + 1]
            if noisy:
                mean, std = self._steps(x, times, encoding, sampling.noise_level, slice(step, step + 1))
                states.append((mean + std.view(-1, 1, 1, 1) * noise[step + 1])[0].float())
                log_probs.append(log_density(states[-1][None], mean, std))
            else:
                velocity = self._velocity(x, sigma, encoding)
                states.append((x + velocity * (times[step + 1] - sigma))[0].float())
        return DenoisingSteps(
            name=request.name,
            context=request.context,
            encoding=encoding,
            sampling=sampling,
            log_probs=torch.cat(log_probs).float(),
            trained=request.trained,
            policy_version=self.version,
            states=torch.stack(states),
            times=times,
            stochastic=stochastic,
            image=to_picture(states[-1]),
        )

    def _steps(self, x, times, encoding, noise_level, which=slice(None)):
        """Means `[S, C, H, W]` and standard deviations `[S]` of the steps that leave the states `x`."""
        sigma, after = times[:-1][which], times[1:][which]
        safe = torch.where(sigma == 1, times[1], sigma)
        s, D = noise_level * (sigma / (1 - safe)).sqrt(), after - sigma
        velocity = self._velocity(x, sigma, encoding)
        keep, move = 1 + s**2 * D / (2 * sigma), (1 + s**2 * (1 - sigma) / (2 * sigma)) * D
        mean = x.to(velocity) * keep.view(-1, 1, 1, 1) + velocity * move.view(-1, 1, 1, 1)
        return mean, s * (-D).sqrt()

    def _velocity(self, x, sigma, encoding):
        words = (encoding.ids.float() / 128 - 1).expand(len(x), -1)
        inputs = torch.cat([x.flatten(1), sigma.view(-1, 1), words], dim=1).to(self.velocity[0].weight)
        return self.velocity(inputs).view(-1, CHANNELS, SIDE, SIDE)


def log_density(x, mean, std):
    """Of N(mean, std^2), averaged over the latent's dimensions."""
    std = std.view(-1, 1, 1, 1).to(mean)
    density = -((x.to(mean) - mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)
    return density.mean(dim=(1, 2, 3))


def encode(context):
    """The prompt as four bytes of its hash."""
    return Encoding(torch.tensor([*hashlib.blake2b(context.text.encode(), digest_size=WORDS).digest()]))


def to_picture(latent):
    """Grey: 0 is mid-grey, one unit a quarter of the range."""
    levels = (latent[0] / 4 + 0.5).clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels.numpy()).convert("RGB")
