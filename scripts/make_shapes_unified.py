"""Make the initial model of the unified model's cold start: tokenizer, autoencoder, pretrained vision tower.

    python scripts/make_shapes_unified.py --output runs/unified_init --seed 0

Three stages from random weights, without reinforcement learning:
1. a byte-level BPE tokenizer on the world's texts and its scenarios' prompts;
2. the autoencoder: one latent per cell, decoded correctly in spite of noise, so that a denoiser need not be exact;
3. the vision tower: predict each cell's colour, shape and position from its patches.
Continue with `motet train recipes/shapes_unified_cold_start.yaml`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from motet.policies.diffusion.models.image_tensors import to_pixels
from motet.policies.tiny.qwen_vl import tiny_vlm_tokenizer
from motet.policies.tiny.unified import TinyUnifiedSizes, make_tiny_unified
from motet.policies.unified import UnifiedPolicy
from motet.scenarios import resolve_scenario
from motet.shapes.render import render
from motet.shapes.scene import COLOURS, SHAPES, Scene, ShapeInstance
from motet.shapes.verifier import parse_scenes
from motet.shapes.world import ShapesRows

VOCABULARY = 600
"""Size of the vocabulary: every word of the world is one token."""
LATENT_NOISE = 0.5
"""Most noise on latents of unit scale that the autoencoder is trained with; it increases in the first half."""
PROMPT_COLUMNS = {
    "prompts": "question",
    "reasoning": "question",
    "layouts": "prompt",
    "edits": "instruction",
    "drafts": "prompt",
}
TARGET_COLUMNS = {
    "prompts": ("solution", "prompt", "scene"),
    "reasoning": ("solution",),
    "layouts": ("thought",),
    "edits": ("inverse", "edited_scene"),
    "drafts": ("critique",),
}
"""Columns of each task that are prompts, and columns that the model generates."""


def corpus(seed: int, count: int) -> list[str]:
    """Texts with the surrounding characters of the chat template: after a line break, after an image, in a sentence."""
    texts = ["system\n", "user\n", "assistant\n"]
    texts += [str(resolve_scenario("reflect").options[name]) for name in ("question", "regenerate_prompt")]
    for task, prompt_column in PROMPT_COLUMNS.items():
        rows = ShapesRows("train", seed, {"task": task, "caption_fraction": 0.1})
        for row in map(rows.row, range(count)):
            texts += [
                f"user\n{row[prompt_column]}",
                str(row[prompt_column]),
                *(row[column] for column in TARGET_COLUMNS[task]),
            ]
            for name, column in (
                ("think_then_generate", "prompt"),
                ("refine_prompt", "prompt"),
                ("refine_edit", "instruction"),
            ):
                if column in row:
                    texts.append(str(resolve_scenario(name).options["instruction"]).format(**{column: row[column]}))
    return texts


def random_scene(rng: np.random.Generator, grid: int) -> Scene:
    """A scene whose cells are full or empty at random: more objects per image than in the world's scenes."""
    full = rng.random((grid, grid)) < rng.random()
    names = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    return Scene(
        grid, tuple(ShapeInstance(r, c, *names[rng.integers(len(names))]) for r, c in np.argwhere(full).tolist())
    )


def sample_images(rng: np.random.Generator, count: int, options: Any) -> tuple[list[Image.Image], list[Scene]]:
    """Images of random scenes, and the scenes."""
    scenes = [random_scene(rng, options.grid) for _ in range(count)]
    return [render(scene, options.canvas) for scene in scenes], scenes


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Fifty warmup steps, then a cosine schedule to 0."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / 50) * 0.5 * (1 + float(np.cos(np.pi * s / steps)))
    )


def train_autoencoder(policy: UnifiedPolicy, steps: int, seed: int, options: Any) -> None:
    """Train for latents of unit scale and zero mean that are decoded correctly under noise; then set the scale."""
    denoiser: Any = policy.denoiser
    vae = denoiser.vae.requires_grad_(True)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = cosine(optimizer, steps)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        pixels = to_pixels(sample_images(rng, 16, options)[0], options.canvas, options.canvas)
        latents = vae.encode(pixels).latent
        noise = (
            min(1.0, 2 * step / steps) * LATENT_NOISE * torch.rand(len(latents), 1, 1, 1) * torch.randn_like(latents)
        )
        reconstruction = F.mse_loss(vae.decode(latents + noise).sample, pixels)
        scale = (latents.square().mean((0, 2, 3)) - 1).square().mean() + latents.mean((0, 2, 3)).square().mean()
        loss = reconstruction + 0.01 * scale
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"autoencoder {step:5d}  pixels {reconstruction.item():.5f} scale {scale.item():.4f}", flush=True)
    vae.requires_grad_(False)
    with torch.no_grad():
        pixels = to_pixels(sample_images(rng, 256, options)[0], options.canvas, options.canvas)
        vae.register_to_config(scaling_factor=round(1 / float(vae.encode(pixels).latent.std()), 4))


@torch.no_grad()
def reconstruction_accuracy(policy: UnifiedPolicy, noise: float, count: int, options: Any) -> float:
    """Fraction of test images that the verifier parses identically after encoding, adding noise, and decoding."""
    rows = ShapesRows("test", 0, {})
    images = [rows.row(number)["target"] for number in range(count)]
    latents = policy.denoiser.encode(images, options.canvas, options.canvas)
    decoded = policy.denoiser.decode(latents + noise * torch.randn_like(latents))
    before, after = parse_scenes(images, options.grid), parse_scenes(decoded, options.grid)
    return float(np.mean([a.scene == b.scene and not a.unreadable for a, b in zip(after, before, strict=True)]))


def warm_up_vision(policy: UnifiedPolicy, steps: int, seed: int, options: Any) -> float:
    """Train the tower to predict each merged patch's position and the content of its cell; returns the accuracy.

    Position matters: the language model's rotary positions are relative, so "cell b3" can only be found if the features
    contain their position. The linear probes are discarded.
    """
    model, encoder = policy.text_policy.model, policy.text_policy.encoder
    visual = model.model.visual.requires_grad_(True)
    sizes = [len(COLOURS) + 1, len(SHAPES) + 1, options.grid, options.grid]
    width, num_features = model.config.text_config.hidden_size, 1 + len(visual.deepstack_visual_indexes)
    probes = nn.ModuleList(nn.Linear(width, sum(sizes)) for _ in range(num_features))
    optimizer = torch.optim.AdamW([*visual.parameters(), *probes.parameters()], lr=2e-3, weight_decay=0.0)
    schedule = cosine(optimizer, steps)
    rng, accuracy = np.random.default_rng(seed + 1), 0.0
    for step in range(steps):
        images, scenes = sample_images(rng, 16, options)
        found = encoder.image_processor(images=images, return_tensors="pt")
        seen = visual(found["pixel_values"], grid_thw=found["image_grid_thw"])
        labels = _labels(scenes, options.grid)
        loss = torch.zeros(())
        for probe, features in zip(probes, [seen.pooler_output, *seen.deepstack_features], strict=True):
            logits = probe(features).split(sizes, dim=1)
            loss = loss + torch.stack([F.cross_entropy(x, y) for x, y in zip(logits, labels, strict=True)]).sum()
            correct = torch.stack([x.argmax(1) == y for x, y in zip(logits, labels, strict=True)]).all(0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        accuracy = 0.9 * accuracy + 0.1 * float(correct.float().mean())
        if step % 100 == 0 or step == steps - 1:
            print(f"vision {step:5d}  loss {loss.item():.4f}  cells correct {accuracy:.3f}", flush=True)
    with torch.no_grad():  # give the features the scale of the token embeddings
        scale = model.model.language_model.embed_tokens.weight.std()
        mergers = [visual.merger, *visual.deepstack_merger_list]
        for merger, features in zip(mergers, [seen.pooler_output, *seen.deepstack_features], strict=True):
            merger.linear_fc2.weight.mul_(scale / features.std())
            merger.linear_fc2.bias.mul_(scale / features.std())
    visual.requires_grad_(False)
    return accuracy


def _labels(scenes: Sequence[Scene], grid: int) -> list[Tensor]:
    """Per cell `[scenes * grid * grid]`: its colour and shape (0 if empty), its row, its column."""
    colour = torch.zeros(len(scenes), grid, grid, dtype=torch.long)
    shape = torch.zeros_like(colour)
    for number, scene in enumerate(scenes):
        for obj in scene.objects:
            colour[number, obj.row, obj.column] = list(COLOURS).index(obj.colour) + 1
            shape[number, obj.row, obj.column] = SHAPES.index(obj.shape) + 1
    row = torch.arange(grid).view(1, grid, 1).expand_as(colour)
    column = torch.arange(grid).view(1, 1, grid).expand_as(colour)
    return [part.flatten() for part in (colour, shape, row, column)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--autoencoder-steps", type=int, default=2000)
    parser.add_argument("--vision-steps", type=int, default=400)
    arguments = parser.parse_args()
    started = time.monotonic()
    options = ShapesRows("train", arguments.seed, {}).options
    tokenizer = tiny_vlm_tokenizer(corpus(arguments.seed, 2000), VOCABULARY)
    policy = make_tiny_unified(tokenizer, TinyUnifiedSizes(), arguments.seed)
    train_autoencoder(policy, arguments.autoencoder_steps, arguments.seed, options)
    for noise in (0.0, 0.2, 0.4, 0.6):
        print(f"images exact with latent noise {noise}: {reconstruction_accuracy(policy, noise, 200, options):.3f}")
    warm_up_vision(policy, arguments.vision_steps, arguments.seed, options)
    policy.save(arguments.output)
    print(f"wrote {arguments.output} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
