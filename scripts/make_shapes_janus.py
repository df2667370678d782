"""Make the starting point of the shapes world's cold start: tokenizer, image tokenizer, warmed-up vision tower.

    python scripts/make_shapes_janus.py --output runs/shapes_init --seed 0

Three stages, all from random weights, none of them reinforcement learning:
1. a byte-level BPE tokenizer on the world's prompts, questions and solutions;
2. the image tokenizer (VQ): a plain autoencoder, then k-means codes on the unit sphere trained with the codes in place;
3. the vision tower: each cell's colour and shape from its patches, so that perception does not start from noise.
What follows is `motet sft recipes/shapes_sft.yaml`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration

from motet.policies.janus.tiny import TinySizes, tiny_janus, tiny_processor, tiny_tokenizer
from motet.shapes.check import read_scenes
from motet.shapes.scene import COLOURS, SHAPES
from motet.shapes.world import ShapesRows


def corpus(rows: ShapesRows, count: int) -> list[str]:
    """Texts in the positions in which the chat template puts them."""
    texts = []
    for index in range(count):
        row = rows.row(index)
        texts += [f": {row['prompt']}\n\n", f": {row['question']}\n\n", f"\n{row['question']}\n\n", row["solution"]]
    return texts


def pictures(rows: ShapesRows, start: int, count: int) -> tuple[Tensor, list]:
    """Normalised pictures `[2 * count, 3, H, W]` in [-1, 1] (targets and question pictures), and the PIL originals."""
    images = [row[key] for i in range(start, start + count) for row in [rows.row(i)] for key in ("target", "image")]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    return pixels.float().div(127.5).sub(1).contiguous(), images


def train_image_tokenizer(model: JanusForConditionalGeneration, rows: ShapesRows, steps: int, plain_steps: int) -> None:
    """Autoencoder first; then codes by k-means, kept on the unit sphere (decode normalises them), moved by EMA."""
    vq = model.model.vqmodel
    codes = vq.quantize.embedding.weight.data
    optimizer = torch.optim.AdamW(vq.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 50) * (1 - s / steps) ** 0.5)
    usage, sums = torch.ones(len(codes)), codes.clone()
    for step in range(steps):
        pixels, _ = pictures(rows, step * 8, 8)
        latents = F.normalize(vq.quant_conv(vq.encoder(pixels)), dim=1)
        if step < plain_steps:
            quantised, commitment = latents, torch.zeros(())
        else:
            if step == plain_steps:
                _start_codes(vq, rows, codes)
                sums.copy_(codes)
            flat = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
            nearest = (flat @ codes.T).argmax(1)
            chosen = codes[nearest].view(*latents.shape[:1], *latents.shape[2:], -1).permute(0, 3, 1, 2)
            commitment = F.mse_loss(latents, chosen)
            quantised = latents + (chosen - latents).detach()
            _move_codes(codes, usage, sums, nearest, flat.detach())
        loss = F.mse_loss(vq.decoder(vq.post_quant_conv(quantised)), pixels) + 0.25 * commitment
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vq.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"image tokenizer {step:5d}  loss {loss.item():.5f}", flush=True)


@torch.no_grad()
def _start_codes(vq: nn.Module, rows: ShapesRows, codes: Tensor) -> None:
    """k-means++ seeds, then ten rounds of spherical k-means."""
    pixels, _ = pictures(rows, 10_000_000, 200)
    flat = F.normalize(vq.quant_conv(vq.encoder(pixels)), dim=1).permute(0, 2, 3, 1).reshape(-1, codes.shape[1])
    centres = flat[torch.randint(len(flat), (1,))]
    distance = 1 - (flat @ centres.T).squeeze(1)
    while len(centres) < len(codes):
        pick = flat[torch.multinomial(distance.clamp(min=0) + 1e-9, 1)]
        centres = torch.cat([centres, pick])
        distance = torch.minimum(distance, 1 - (flat @ pick.T).squeeze(1))
    for _ in range(10):
        nearest = (flat @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, flat)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, F.normalize(sums, dim=1), centres)
    codes.copy_(centres)


@torch.no_grad()
def _move_codes(codes: Tensor, usage: Tensor, sums: Tensor, nearest: Tensor, flat: Tensor, decay: float = 0.99) -> None:
    counts = torch.bincount(nearest, minlength=len(codes)).float()
    usage.mul_(decay).add_(counts, alpha=1 - decay)
    sums.mul_(decay).add_(torch.zeros_like(sums).index_add_(0, nearest, flat), alpha=1 - decay)
    codes.copy_(F.normalize(sums, dim=1))
    dead = usage < 0.02
    if dead.any():  # an unused code restarts at a latent of this batch
        fresh = flat[torch.randint(len(flat), (int(dead.sum()),))]
        codes[dead], sums[dead], usage[dead] = fresh, fresh, 1.0


@torch.no_grad()
def reconstruction_accuracy(model: JanusForConditionalGeneration, rows: ShapesRows, grid: int) -> float:
    """Share of test pictures that the strict reader reads the same after encoding and decoding."""
    from motet.policies.janus.pictures import to_pictures

    pixels, images = pictures(rows, 0, 500)
    tokens = model.model.vqmodel.encode(pixels).image_tokens.view(len(images), -1)
    decoded = to_pictures(model.model.vqmodel.decode(tokens))
    before, after = read_scenes(images, grid), read_scenes(decoded, grid)
    return float(np.mean([a.scene == b.scene and not a.unreadable for a, b in zip(after, before, strict=True)]))


def warm_up_vision(model: JanusForConditionalGeneration, rows: ShapesRows, grid: int, steps: int) -> float:
    """Train tower and aligner to tell each cell's colour and shape; returns the cell accuracy. The probe is thrown away."""
    tower, aligner = model.model.vision_model, model.model.aligner
    width = model.config.vision_config.image_size // model.config.vision_config.patch_size // grid
    probe = nn.Linear(model.config.text_config.hidden_size * width**2, len(COLOURS) + len(SHAPES) + 2)
    parameters = [*tower.parameters(), *aligner.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 50) * (1 - s / steps))
    accuracy = 0.0
    for step in range(steps):
        pixels, images = pictures(rows, 20_000_000 + step * 16, 16)
        colour, shape = _cell_labels(images, grid)
        features = aligner(tower(pixels).last_hidden_state)
        side, depth = grid * width, features.shape[-1]
        cells = features.view(-1, grid, width, grid, width, depth).transpose(2, 3).reshape(-1, width**2 * depth)
        assert side**2 == features.shape[1]
        logits = probe(cells)
        by_colour, by_shape = logits.split([len(COLOURS) + 1, len(SHAPES) + 1], dim=1)
        loss = F.cross_entropy(by_colour, colour) + F.cross_entropy(by_shape, shape)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        right = (by_colour.argmax(1) == colour) & (by_shape.argmax(1) == shape)
        accuracy = 0.9 * accuracy + 0.1 * float(right[colour > 0].float().mean())
        if step % 100 == 0 or step == steps - 1:
            print(f"vision {step:5d}  loss {loss.item():.4f}  things right {accuracy:.3f}", flush=True)
    with torch.no_grad():  # features as large as the word embeddings that they stand among
        scale = model.model.language_model.embed_tokens.weight.std() / features.std()
        last = [m for m in aligner.modules() if isinstance(m, nn.Linear)][-1]
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    return accuracy


def _cell_labels(images: list, grid: int) -> tuple[Tensor, Tensor]:
    """Colour and shape class of every cell, 0 for bare paper: two `[len(images) * grid * grid]` vectors."""
    colour = torch.zeros(len(images), grid, grid, dtype=torch.long)
    shape = torch.zeros_like(colour)
    for number, reading in enumerate(read_scenes(images, grid)):
        for thing in reading.scene.things:
            colour[number, thing.row, thing.column] = list(COLOURS).index(thing.colour) + 1
            shape[number, thing.row, thing.column] = SHAPES.index(thing.shape) + 1
    return colour.flatten(), shape.flatten()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer-steps", type=int, default=2000)
    parser.add_argument("--vision-steps", type=int, default=600)
    arguments = parser.parse_args()
    started = time.monotonic()
    rows, test = (ShapesRows(split, arguments.seed, {}) for split in ("train", "test"))
    sizes = TinySizes()
    tokenizer = tiny_tokenizer(corpus(rows, 5000))
    model = tiny_janus(tokenizer, sizes, arguments.seed)
    train_image_tokenizer(model, rows, arguments.tokenizer_steps, plain_steps=arguments.tokenizer_steps // 4)
    print(f"pictures exact after the tokenizer: {reconstruction_accuracy(model, test, rows.options.grid):.4f}")
    warm_up_vision(model, rows, rows.options.grid, arguments.vision_steps)
    model.save_pretrained(arguments.output)
    tiny_processor(tokenizer, sizes).save_pretrained(arguments.output)
    print(f"wrote {arguments.output} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
