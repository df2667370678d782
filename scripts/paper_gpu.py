"""Count the kernel launches, syncs and copies of every path of motet on the GPU on paper (motet.testing.paper_gpu).

    python scripts/paper_gpu.py                 a table of all paths, as in docs/reference/paper_gpu.md
    python scripts/paper_gpu.py janus --where   of one model, the lines that cause the syncs

The models are tiny and random. Each path is run at two lengths: the difference is what one unit of length costs (a
token, a denoising step, a micro-batch), the remainder is what a call costs however long it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from PIL import Image

from motet.config import AlgorithmConfig, OptimizerConfig
from motet.core.conversation import user
from motet.core.protocols import Replay, Request
from motet.core.trajectory import Act, Sampling
from motet.policies.emu3 import Emu3Policy
from motet.policies.janus import JanusPolicy
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.tiny.emu3 import TinyEmu3Sizes, make_tiny_emu3
from motet.policies.tiny.janus import TinySizes, tiny_janus, tiny_processor, tiny_tokenizer
from motet.policies.tiny.qwen_vl import TinyVlmSizes, make_tiny_vlm, tiny_vlm_tokenizer
from motet.policies.tiny.unified import TinyUnifiedSizes, make_tiny_unified
from motet.testing import PaperGPU, paper_gpu
from motet.training.batches import StepBatch
from motet.training.frozen_replays import replay_frozen
from motet.training.losses import resolve_loss
from motet.training.optimizer_step import PolicyOptimizer

PROMPTS = ["two red circles", "a green square left of a big blue triangle", "what colour is it?"]
VLM = TinyVlmSizes(
    hidden=32, layers=2, heads=4, intermediate=64, image=16, vision_hidden=32, vision_layers=2, vision_heads=2,
    vision_intermediate=64, max_positions=160,
)  # fmt: skip
SQUARE = Image.radial_gradient("L").resize((16, 16)).convert("RGB")
GUIDED = Sampling(guidance="guided", guidance_scale=2.0)


class Counts(NamedTuple):
    """Launches, syncs and copies to the device."""

    launches: float
    syncs: float
    copies: float


@dataclass(frozen=True)
class Cost:
    """What a path costs: of each `unit` of its length, and beside them. `where` are the lines of its syncs."""

    path: str
    unit: str
    each: Counts
    fixed: Counts
    where: str


def janus(image: int = 16) -> JanusPolicy:
    sizes = TinySizes(
        hidden=32, layers=2, heads=4, intermediate=64, image=image, codes=32, vision_hidden=32, vision_layers=1,
        vision_heads=2, max_positions=256,
    )  # fmt: skip
    tokenizer = tiny_tokenizer(PROMPTS, vocab_size=320)
    return JanusPolicy(tiny_janus(tokenizer, sizes, 0), tiny_processor(tokenizer, sizes))


def unified() -> Any:
    sizes = TinyUnifiedSizes(vlm=VLM, vae_channels=(16, 16, 16), width=16, layers=1, heads=2, queries=4)
    return make_tiny_unified(tiny_vlm_tokenizer(PROMPTS, 320), sizes)


def emu3(image: int = 32) -> Emu3Policy:
    return Emu3Policy(*make_tiny_emu3(PROMPTS, sizes=TinyEmu3Sizes(image=image)))


def qwen_vl(family: str) -> VlmPolicy:
    return VlmPolicy(*make_tiny_vlm(family, sizes=VLM, corpus=PROMPTS, vocab_size=320))


def modules(policy: Any) -> list[torch.nn.Module]:
    """All weights of a policy of motet."""
    if hasattr(policy, "denoiser"):
        vae = [] if policy.denoiser.vae is None else [policy.denoiser.vae]
        return [policy.text_policy.model, policy.connector, policy.denoiser.transformer, *policy.parts.values(), *vae]
    return [policy.model]


def requests(kind: str, image: Image.Image | None = None) -> list[Request]:
    """Two prompts of different lengths, two generations of each."""
    contexts = [user(text) if image is None else user(image, text) for text in PROMPTS[:2]]
    return [Request(kind, kind, contexts[n // 2], (0, 0, n // 2, n % 2, 0)) for n in range(4)]


def sampled(policy: Any, kind: str, sampling: Sampling, image: Image.Image | None = None) -> list[Act]:
    return policy.act(requests(kind, image), sampling)


def texts(policy: Any, num_tokens: int) -> list[Act]:
    """The longest of them has so many tokens."""
    acts = sampled(policy, "text", Sampling(max_tokens=num_tokens), SQUARE)
    assert max(act.num_actions for act in acts) == num_tokens
    return acts


class Optimized:
    """Optimizer steps of so many micro-batches over the same acts, of every kind, with a KL to the reference."""

    def __init__(self, policy: Any, acts: Sequence[Act]) -> None:
        policy.train_parts([name for name in policy.parts if name not in ("vision_model", "visual", "vqmodel")])
        policy.freeze_reference()
        self.policy, self.acts = policy, acts
        config = AlgorithmConfig(beta=0.04)
        self.losses = {act.kind: resolve_loss(config, act.kind) for act in acts}
        self.needs = sorted({name for one in self.losses.values() for name in one.needs(True).reference})
        self.optimizer = PolicyOptimizer(policy, OptimizerConfig(max_tokens_per_microbatch=1), 100)

    def reference(self, count: int) -> list[Replay]:
        with self.policy.reference():
            return [replay for _ in range(count) for replay in replay_frozen(self.policy, self.acts, 10**9, self.needs)]

    def step(self, count: int, reference: Sequence[Replay]) -> None:
        acts = [act for _ in range(count) for act in self.acts]
        advantages = [(-1.0) ** n for n in range(len(acts))]
        old = [Replay(act.log_probs) for act in acts if act.log_probs is not None]
        units = [n for n in range(count) for _ in self.acts]
        batch = StepBatch(acts, advantages, old, reference[: len(acts)], units=units)
        self.optimizer.step(batch, self.losses)


class Bench:
    """Runs the paths of one model on a GPU on paper."""

    def __init__(self, model: str, gpu: PaperGPU) -> None:
        self.model, self.gpu = model, gpu

    def on_paper(self, policy: Any) -> Any:
        for module in modules(policy):
            self.gpu.move(module)
            if hasattr(module, "set_attn_implementation"):
                module.set_attn_implementation("sdpa")  # as on a GPU
        getattr(policy, "text_policy", policy).static_cache = True  # as on CUDA
        return policy

    def count(self, work: Callable[[], Any]) -> Counts:
        self.gpu.clear()
        work()
        return Counts(self.gpu.num_launches, self.gpu.num_syncs, self.gpu.num_copies)

    def cost(self, path: str, unit: str, lengths: tuple[int, int], work: Callable[[int], Any]) -> Iterator[Cost]:
        """Of the path that `work` runs at a length."""
        first, second = lengths
        work(first)  # what is made once (a sampler's weights, AdamW's state) is not counted
        short = self.count(lambda: work(first))
        long = self.count(lambda: work(second))
        each = Counts(*((b - a) / (second - first) for a, b in zip(short, long, strict=True)))
        fixed = Counts(*(whole - first * one for whole, one in zip(short, each, strict=True)))
        yield Cost(f"{self.model}: {path}", unit, each, fixed, self.gpu.summary(30))

    def training(self, policy: Any, acts: Sequence[Act]) -> Iterator[Cost]:
        optimized = Optimized(policy, acts)
        kept = optimized.reference(2)
        yield from self.cost("replay under the reference", "micro-batch", (1, 2), optimized.reference)
        yield from self.cost("optimizer step", "micro-batch", (1, 2), lambda n: optimized.step(n, kept))


def janus_costs(bench: Bench) -> Iterator[Cost]:
    policies = {16: bench.on_paper(janus(16)), 64: bench.on_paper(janus(32))}
    yield from bench.cost("images, guided", "token", (16, 64), lambda n: sampled(policies[n], "image", GUIDED))
    yield from bench.cost("texts", "token", (8, 16), lambda n: texts(policies[16], n))
    yield from bench.training(policies[16], sampled(policies[16], "image", GUIDED) + texts(policies[16], 8))


def emu3_costs(bench: Bench) -> Iterator[Cost]:
    policies = {16: bench.on_paper(emu3(32)), 36: bench.on_paper(emu3(48))}
    yield from bench.cost("images, guided", "token", (16, 36), lambda n: sampled(policies[n], "image", GUIDED))
    yield from bench.cost("texts", "token", (8, 16), lambda n: texts(policies[16], n))
    yield from bench.training(policies[16], sampled(policies[16], "image", GUIDED) + texts(policies[16], 8))


def qwen_costs(bench: Bench, family: str) -> Iterator[Cost]:
    policy = bench.on_paper(qwen_vl(family))
    yield from bench.cost("texts", "token", (8, 16), lambda n: texts(policy, n))
    yield from bench.training(policy, texts(policy, 8))


def unified_costs(bench: Bench) -> Iterator[Cost]:
    policy = bench.on_paper(unified())

    def images(steps: int, source: Image.Image | None = None) -> list[Act]:
        return sampled(policy, "denoising", replace(GUIDED, num_steps=steps), source)

    yield from bench.cost("images, guided", "step", (3, 5), images)
    yield from bench.cost("edits, guided", "step", (3, 5), lambda n: images(n, SQUARE))
    yield from bench.cost("texts", "token", (8, 16), lambda n: texts(policy, n))
    yield from bench.training(policy, images(3) + images(3, SQUARE) + texts(policy, 8))


MODELS: dict[str, Callable[[Bench], Iterator[Cost]]] = {
    "janus": janus_costs,
    "emu3": emu3_costs,
    "qwen2_5_vl": partial(qwen_costs, family="qwen2_5_vl"),
    "qwen3_vl": partial(qwen_costs, family="qwen3_vl"),
    "unified": unified_costs,
}


def costs(models: Sequence[str] = ()) -> Iterator[Cost]:
    """The costs of all paths of these models, or of all models."""
    for name in models or MODELS:
        with paper_gpu() as gpu:
            yield from MODELS[name](Bench(name, gpu))


def table(rows: Iterable[Cost]) -> Iterator[str]:
    """As Markdown, row by row."""
    yield "| path | unit | launches | syncs | copies | launches beside | syncs beside | copies beside |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        values = (f"{value:.3g}" for value in (*row.each, *row.fixed))
        yield f"| {row.path} | {row.unit} | {' | '.join(values)} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; none: all")
    parser.add_argument("--where", action="store_true", help="show the lines that cause syncs, in place of the table")
    asked = parser.parse_args()
    if unknown := set(asked.models) - MODELS.keys():
        parser.error(f"unknown model {', '.join(sorted(unknown))}; expected some of {', '.join(MODELS)}")
    torch.set_num_threads(1)
    rows = costs(asked.models)
    for line in (f"{row.path}: {row.where}\n" for row in rows) if asked.where else table(rows):
        print(line, flush=True)


if __name__ == "__main__":
    main()
