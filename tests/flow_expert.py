"""The smallest policy that draws by denoising: a velocity network on tiny latents, sampled by Flow-GRPO's SDE.

The steps are those of `motet.numerics.flow`, in sampling and in replay; the last one is deterministic, no action.
"""

import hashlib
from contextlib import contextmanager

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from motet.errors import ConfigError
from motet.numerics.flow.schedules import linear_sigmas
from motet.numerics.flow.steps import draw, log_density, ode_step, sde_step
from motet.numerics.flow.windows import stochastic_steps
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
            x, sigma, after = act.states[:-1][taken], act.times[:-1][taken], act.times[1:][taken]
            step = sde_step(x, self._velocity(x, sigma, act.encoding), sigma, after, act.sampling.noise_level)
            log_probs, offers = log_density(act.states[1:][taken], *step), step._asdict()
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
        times = linear_sigmas(sampling.num_steps)
        stochastic = stochastic_steps(times)
        encoding, x, states, log_probs = encode(request.context), noise[:1], [noise[0]], []
        for n, noisy in enumerate(stochastic):
            sigma, after = times[n : n + 1], times[n + 1 : n + 2]
            velocity = self._velocity(x, sigma, encoding)
            if noisy:
                step = sde_step(x, velocity, sigma, after, sampling.noise_level)
                x = draw(step, noise[n + 1 : n + 2]).float()
                log_probs.append(log_density(x, *step))
            else:
                x = ode_step(x, velocity, sigma, after).float()
            states.append(x[0])
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

    def _velocity(self, x, sigma, encoding):
        words = (encoding.ids.float() / 128 - 1).expand(len(x), -1)
        inputs = torch.cat([x.flatten(1), sigma.view(-1, 1), words], dim=1).to(self.velocity[0].weight)
        return self.velocity(inputs).view(-1, CHANNELS, SIDE, SIDE)


def encode(context):
    """The prompt as four bytes of its hash."""
    return Encoding(torch.tensor([*hashlib.blake2b(context.text.encode(), digest_size=WORDS).digest()]))


def to_picture(latent):
    """Grey: 0 is mid-grey, one unit a quarter of the range."""
    levels = (latent[0] / 4 + 0.5).clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(levels.numpy()).convert("RGB")
