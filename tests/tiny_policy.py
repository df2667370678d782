"""A whole policy in a hundred lines: a bigram model of letters and of colours, which really samples and trains."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from motet.core.errors import ConfigError
from motet.core.protocols import Replay
from motet.core.trajectory import Encoding, ImageTokens, Sampling, TextTokens
from motet.numerics.logprobs import action_log_probs, entropy, sample, scoring_logits
from motet.policies.generation.noise import uniforms

LETTERS = " abcdefghijklmnopqrstuvwxyz"
END, VOCAB, IMAGE_TOKENS = len(LETTERS), len(LETTERS) + 1, 4


class TinyPolicy:
    """Implements `motet.core.protocols.TrainablePolicy`. Every step is a method, so that a test can break one."""

    kinds = frozenset({"text", "image"})
    autocast = rollout_autocast = None

    def __init__(self, seed: int = 0) -> None:
        self.version = 0
        generator = torch.Generator().manual_seed(seed)
        self.bigrams = nn.Parameter(torch.randn(VOCAB, VOCAB, generator=generator))
        self.prompts = nn.Parameter(torch.randn(256, VOCAB, generator=generator))
        self.frozen = torch.randn(VOCAB, generator=generator)
        self.start: dict[str, torch.Tensor] = {}

    def act(self, requests, sampling):
        if not requests:
            return []
        self.check_kinds(requests)
        if sampling.guidance != "none":
            raise ConfigError("TinyPolicy has no guidance.", fix="use guidance: none.")
        noise = self.noise([request.key for request in requests], sampling)
        return [self.perform(request, sampling, own) for request, own in zip(requests, noise, strict=True)]

    def encode_targets(self, requests, targets):
        return [self.target(request, target) for request, target in zip(requests, targets, strict=True)]

    def replay(self, acts, needs=()):
        return [self.replayed(act, needs) for act in acts]

    def num_tokens(self, act):
        return len(act.encoding.ids) + act.num_actions

    def trainable(self):
        return {"bigrams": self.bigrams, "prompts": self.prompts}

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: p.detach().clone() for name, p in self.trainable().items()}
        save_file(tensors, folder / "tiny.safetensors")

    @classmethod
    def load(cls, folder: Path):
        policy = cls()
        with torch.no_grad():
            for name, value in load_file(folder / "tiny.safetensors").items():
                policy.trainable()[name].copy_(value)
        return policy

    def freeze_reference(self):
        self.start = {name: p.detach().clone() for name, p in self.trainable().items()}

    @contextmanager
    def reference(self):
        now = {name: p.data for name, p in self.trainable().items()}
        try:
            for name, p in self.trainable().items():
                p.data = self.start[name]
            with torch.no_grad():
                yield
        finally:
            for name, p in self.trainable().items():
                p.data = now[name]

    # ---- steps ------------------------------------------------------------------------------------------------------

    def check_kinds(self, requests):
        kinds = {request.kind for request in requests}
        if len(kinds) > 1 or not kinds <= self.kinds:
            raise ConfigError(f"TinyPolicy was asked for {sorted(kinds)}.", fix="ask for text, or for images.")

    def noise(self, keys, sampling):
        return uniforms(keys, max(sampling.max_tokens, IMAGE_TOKENS))

    def encode(self, context, drop_prompt=False):
        text = "" if drop_prompt else context.text
        return Encoding(torch.tensor([0, *text.encode()], dtype=torch.long))

    @torch.no_grad()
    def perform(self, request, sampling, noise):
        encoding, ids = self.encode(request.context), torch.zeros(0, dtype=torch.long)
        for uniform in noise[: IMAGE_TOKENS if request.kind == "image" else sampling.max_tokens]:
            logits = self.logits(encoding, ids)[-1:]
            ids = torch.cat([ids, self.choose(logits, sampling, uniform[None])])
            if request.kind == "text" and int(ids[-1]) == END:
                break
        return self.finished(request, encoding, sampling, ids)

    def choose(self, logits, sampling, uniform):
        scores = scoring_logits(logits, **sampling.scoring)
        return scores.argmax(dim=-1) if sampling.temperature == 0 else sample(scores, uniform)

    def logits(self, encoding, ids):
        """`[N + 1, V]`: of each action and of the one that would follow."""
        before = torch.cat([torch.tensor([END]), ids])
        return self.bigrams[before] + self.prompts[encoding.ids].mean(dim=0) + self.frozen

    def score(self, encoding, ids, sampling):
        logits = scoring_logits(self.logits(encoding, ids)[:-1], **sampling.scoring, keep=ids)
        return action_log_probs(logits, ids), entropy(logits)

    def replayed(self, act, needs):
        log_probs, entropies = self.score(act.encoding, act.ids, act.sampling)
        return Replay(log_probs, {"entropy": entropies} if "entropy" in needs else {})

    def finished(self, request, encoding, sampling, ids, log_probs=None):
        fields = {
            "name": request.name,
            "context": request.context,
            "encoding": encoding,
            "sampling": sampling,
            "log_probs": self.score(encoding, ids, sampling)[0] if log_probs is None else log_probs,
            "trained": request.trained,
            "policy_version": self.version,
        }
        if request.kind == "text":
            text = "".join(LETTERS[n] for n in ids.tolist() if n != END)
            return TextTokens(ids=ids, text=text, finished=int(ids[-1]) == END, **fields)
        return ImageTokens(ids=ids, image=Image.new("RGB", (8, 8), (int(ids[0]), 0, 0)), **fields)

    @torch.no_grad()
    def target(self, request, target):
        if request.kind == "text":
            ids = torch.tensor([*map(LETTERS.index, target), END])
        else:
            ids = torch.full((IMAGE_TOKENS,), target.getpixel((0, 0))[0] % VOCAB)
        encoding = self.encode(request.context, request.drop_prompt)
        return replace(self.finished(request, encoding, Sampling(), ids), log_probs=None)
