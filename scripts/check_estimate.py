"""Compare `motet estimate`'s arithmetic with what a Janus with random weights takes on this machine's CPU.

    python scripts/check_estimate.py [--width 512] [--layers 8] [--dtype float32] [--json FILE]

Memory: bytes of weights, gradients, moments, the reference and the sampler's copy are counted from the tensors
themselves, activations by torch's saved-tensor hooks. Seconds: of one thread's processor time, against rates that are
measured first (a matrix product and a copy) and the stated shares of them. Exits with 1 where memory differs by more
than 5 %, or seconds by more than a factor of 3.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from motet.config import PolicyConfig
from motet.core.conversation import user
from motet.core.protocols import Request
from motet.core.sampling import Sampling
from motet.core.trajectory import Act
from motet.estimation.building import model_size
from motet.estimation.counting import kept_bytes
from motet.estimation.efficiency import Efficiency
from motet.estimation.hardware import measure_cpu
from motet.estimation.memory import Settings, held_all_the_time, memory, micro_batch, snapshot_bytes
from motet.estimation.model_size import FLOAT32, ModelSize
from motet.estimation.step_time import Machine, act_seconds, optimizer_seconds, replay_flops
from motet.estimation.workload import ActLoad
from motet.policies import load_policy
from motet.policies.tiny.janus import TinySizes, random_janus, tiny_processor, tiny_tokenizer

PROMPTS, GROUP, TEXT = 2, 4, 48
MEMORY, TIME = 1.05, 3.0
"""The largest ratios, in either direction, of measured to estimated bytes and seconds."""
WORDS = ["a red circle to the left of a blue star", "three green squares below a yellow triangle"]

Row = tuple[str, float, float]
"""What, estimated, measured."""


def make_janus(folder: Path, width: int, layers: int) -> None:
    """A Janus of some 50 million random weights, whose images have 64 tokens."""
    tokenizer = tiny_tokenizer(WORDS)
    text = LlamaConfig(
        vocab_size=32_000,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=512,
    )
    vision = JanusVisionConfig(
        hidden_size=192, num_hidden_layers=4, num_attention_heads=4, image_size=128, num_image_tokens=64,
        projection_dim=width,
    )  # fmt: skip
    vq = JanusVQVAEConfig(
        num_embeddings=4096, base_channels=32, latent_channels=32, channel_multiplier=[1] * 5, num_res_blocks=1,
        projection_dim=width, image_token_embed_dim=width,
    )  # fmt: skip
    random_janus(tokenizer, text, vision, vq, seed=0).save_pretrained(folder)
    tiny_processor(tokenizer, TinySizes(image=128, patch=16)).save_pretrained(folder)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time of the second call, and what it returned."""
    work()
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def sample(policy: Any, kind: str) -> tuple[float, list[Act]]:
    """Acts of PROMPTS groups."""
    sampling = Sampling(max_tokens=TEXT) if kind == "text" else Sampling(guidance="guided", guidance_scale=5.0)
    contexts = [user(words) for words in WORDS[:PROMPTS]]
    requests = [
        Request(kind, kind, context, (0, row, generation, 0))
        for row, context in enumerate(contexts)
        for generation in range(GROUP)
    ]

    def work() -> list[Act]:
        policy.free_sampler()
        return policy.act(requests, sampling)

    return seconds(work)


def load_of(acts: list[Act], kind: str, size: ModelSize) -> ActLoad:
    """The acts as the arithmetic takes them."""
    context = round(sum(len(act.encoding.ids) for act in acts) / len(acts))
    longest = max(act.num_actions for act in acts)
    mean = sum(act.num_actions for act in acts) / len(acts)
    branches = 2 if kind == "image" else 1
    return ActLoad("", kind, kind, PROMPTS, GROUP, context, 0, longest, longest, mean, branches, branches)


def compare(policy: Any, size: ModelSize, settings: Settings) -> tuple[list[Row], list[Row]]:
    """Rows of bytes, and of seconds."""
    machine = Machine(measure_cpu(clock=time.process_time), Efficiency(kernel_seconds=0.0))
    policy.freeze_reference()
    parameters = list(policy.trainable().values())
    adamw = torch.optim.AdamW(parameters)
    language = size.language
    assert language is not None
    of_bytes: list[Row] = []
    of_seconds: list[Row] = []
    for kind in ("image", "text"):
        taken, acts = sample(policy, kind)
        load = load_of(acts, kind, size)
        of_seconds.append((f"rollout of {kind}s", act_seconds(size, load, settings, machine), taken))
        if kind == "image":
            copied = sum(linear.weight.nbytes for linear in fused_layers(policy))
            if settings.rollout_dtype == "bfloat16":  # heads are copied too
                copied += 2 * (language.text_head + language.image_head)
            of_bytes.append(("sampler's layers", float(snapshot_bytes(size, settings)), float(copied)))
        frozen = kept_bytes(lambda acts=acts: policy.replay(acts), policy.model.parameters(), "float32")
        forward, *_ = micro_batch(size, load, settings)
        logits = FLOAT32 * sum(act.num_actions for act in acts) * language.logits(kind)  # one chunk, which is kept
        expected = forward["activations"] + forward["weight casts"] + logits
        of_bytes.append((f"activations, {kind}s", expected, float(frozen)))
        flops = replay_flops(size, load, settings)
        with torch.no_grad():
            taken, _ = seconds(lambda acts=acts: policy.replay(acts))
        of_seconds.append((f"forward pass of {kind}s", machine.products(flops[0], settings.dtype), taken))
        taken, _ = seconds(lambda acts=acts: sum(r.log_probs.sum() for r in policy.replay(acts)).backward())
        of_seconds.append((f"both passes of {kind}s", machine.products(sum(flops), settings.dtype), taken))
    taken, _ = seconds(lambda: (torch.nn.utils.clip_grad_norm_(parameters, 1.0), adamw.step()))
    of_seconds.append(("optimizer step", optimizer_seconds(size, settings, machine), taken))
    return [*held(policy, size, settings, adamw), *of_bytes], of_seconds


def fused_layers(policy: Any) -> list[Any]:
    """The linear layers that the sampler does not share with the model."""
    parts = [
        part
        for layer in policy._sampler[1].language.layers
        for part in (layer.qkv, layer.out, layer.gate_up, layer.down)
    ]
    shared = {parameter.data_ptr() for parameter in policy.model.parameters()}
    return [part for part in parts if part.weight.data_ptr() not in shared]


def held(policy: Any, size: ModelSize, settings: Settings, adamw: torch.optim.AdamW) -> list[Row]:
    """What a run holds all the time, and gradients."""
    parameters = list(policy.trainable().values())
    own = {id(parameter) for parameter in parameters}
    moments = [t for state in adamw.state.values() for name, t in state.items() if name != "step"]
    measured = {
        "trainable weights": sum(p.nbytes for p in parameters),
        "frozen weights": sum(p.nbytes for p in policy.model.parameters() if id(p) not in own),
        "AdamW moments": sum(t.nbytes for t in moments),
        "reference": sum(t.nbytes for t in policy._reference.start.values()),
        "gradients": sum(p.grad.nbytes for p in parameters if p.grad is not None),
    }
    estimated = held_all_the_time(size, settings) | {
        "gradients": memory(size, [], settings).phases["learn"]["gradients"]
    }
    return [(name, estimated[name], float(measured[name])) for name in measured]


def report(title: str, unit: str, rows: list[Row], divisor: float, limit: float) -> bool:
    """Print a table; whether all ratios are within the limit."""
    print(f"\n| {title} | estimated, {unit} | measured, {unit} | measured / estimated |\n|---|---|---|---|")
    for name, estimated, measured in rows:
        print(f"| {name} | {estimated / divisor:.4g} | {measured / divisor:.4g} | {measured / estimated:.3f} |")
    return all(1 / limit <= measured / estimated <= limit for _, estimated, measured in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        make_janus(Path(name), arguments.width, arguments.layers)
        config = PolicyConfig(path=name, device="cpu", dtype=arguments.dtype, rollout_dtype=arguments.dtype)
        size = model_size(config, arguments.dtype, attention="eager")
        policy = load_policy(name, config)
        settings = Settings(1, "replicas", arguments.dtype, arguments.dtype, 10**6, None, False, True)
        of_bytes, of_seconds = compare(policy, size, replace(settings, has_reference=True))
    print(
        f"{size.parameters / 1e6:.1f} million parameters, {size.trainable / 1e6:.1f} of them train; {arguments.dtype}"
    )
    fits = report("memory", "MB", of_bytes, 1e6, MEMORY)
    fits &= report("seconds of one thread", "s", of_seconds, 1.0, TIME)
    if arguments.json is not None:
        rows = {"memory": of_bytes, "seconds": of_seconds}
        arguments.json.write_text(
            json.dumps({"parameters": size.parameters, **rows}, indent=2) + "\n", encoding="utf-8"
        )
    sys.exit(0 if fits else 1)


if __name__ == "__main__":
    main()
