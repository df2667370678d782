"""Make the initial model of the shapes cold start: tokenizer, image tokenizer, pretrained vision tower.

    python scripts/make_shapes_janus.py --output runs/shapes_init --seed 0
    python scripts/make_shapes_janus.py --world large --output runs/large_init --seed 0

Three stages from random weights, without reinforcement learning:
1. a byte-level BPE tokenizer on the world's prompts, questions and solutions;
2. the image tokenizer (VQ): a plain autoencoder, then k-means codes on the unit sphere trained with the codes in place;
3. the vision tower: predict each cell's colour and shape from its patches.
Continue with `motet train recipes/shapes_cold_start.yaml`.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_tokenizer import retire_duplicate_codes, train_image_tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration, PreTrainedTokenizerFast

from motet.policies.tiny.janus import TinySizes, tiny_janus, tiny_processor, tiny_tokenizer
from motet.shapes.large.rows import LargeRows
from motet.shapes.large.vocabulary import SETS
from motet.shapes.options import TASKS
from motet.shapes.prompts import choose
from motet.shapes.render import VOCABULARIES, render
from motet.shapes.scene import Scene, ShapeInstance
from motet.shapes.verifier import parse_scenes
from motet.shapes.world import ShapesRows, open_world

Rows = ShapesRows | LargeRows
SIZES = {"small": TinySizes(), "large": TinySizes(image=64, patch=8, heads=4, codes=512, vq_res_blocks=0)}
"""By world. A patch is a quarter of a cell in both."""


TEXT_COLUMNS = ("prompt", "question", "instruction")
"""Columns of what a user says."""


def corpus(worlds: list[Rows], count: int, after_images: Collection[str]) -> list[str]:
    """Texts with the surrounding characters of the chat template, `count` rows of every world.

    `after_images`: the columns that follow an image too, not only the role.
    """
    texts = []
    for rows in worlds:
        for row in (rows.row(index) for index in range(count)):
            for name in (name for name in TEXT_COLUMNS if name in row):
                texts += [f": {row[name]}\n\n", *([f"\n{row[name]}\n\n"] if name in after_images else [])]
            texts += [row[name] for name in ("solution", "thought", "critique") if name in row]
    return texts


def worlds_of_texts(world: str, seed: int, options: dict[str, Any]) -> list[Rows]:
    """The worlds whose texts the tokenizer is trained on: in the large world the sets and the other tasks too."""
    worlds = [open_world("train", seed, options)]
    if world == "large":
        worlds += [open_world(split, seed, options) for split in SETS]
        worlds += [open_world("train", seed, {**options, "task": task}) for task in TASKS]
        worlds += [open_world("train", seed, {**options, "caption_fraction": 1.0})]
    return worlds


def options_of(world: str) -> dict[str, Any]:
    """`data.options` of the rows; of the small world as in the first stage of its cold start."""
    return {"world": world} if world == "large" else {"world": world, "cite_cells": False}


def make_tokenizer(world: str, seed: int) -> PreTrainedTokenizerFast:
    """The tokenizer, trained on 5,000 rows of all the worlds together."""
    worlds = worlds_of_texts(world, seed, options_of(world))
    after_images = TEXT_COLUMNS if world == "large" else ("question",)
    return tiny_tokenizer(corpus(worlds, 5000 // len(worlds), after_images))


def sample_images(rows: Rows, start: int, count: int) -> tuple[Tensor, list]:
    """Normalised images `[2 * count, 3, H, W]` in [-1, 1], and the PIL originals.

    Targets and question images; in the large world, whose images are mostly empty, full boards of any objects instead
    of question images.
    """
    if isinstance(rows, LargeRows):
        names = list(itertools.product(*(VOCABULARIES["large"][i] for i in (1, 0, 2))))
        images = []
        for index in range(start, start + count):
            rng, grid = np.random.default_rng([rows.seed, 1_000, index]), rows.options.grid
            objects = [
                ShapeInstance(c // grid, c % grid, *choose(rng, names))
                for c in range(grid * grid)
                if rng.random() < 0.8
            ]
            images += [rows.row(index)["target"], render(Scene(grid, tuple(objects)), rows.options.canvas)]
    else:
        images = [row[key] for i in range(start, start + count) for row in [rows.row(i)] for key in ("target", "image")]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    return pixels.float().div(127.5).sub(1).contiguous(), images


@torch.no_grad()
def reconstruction_accuracy(model: JanusForConditionalGeneration, rows: Rows, world: str) -> float:
    """Fraction of test images that the verifier parses identically after encoding and decoding."""
    from motet.policies.janus.images import to_pil_images

    pixels, images = sample_images(rows, 0, 500)
    tokens = model.model.vqmodel.encode(pixels).image_tokens.view(len(images), -1)
    decoded = to_pil_images(model.model.vqmodel.decode(tokens))
    before, after = (parse_scenes(shown, rows.options.grid, world) for shown in (images, decoded))
    return float(np.mean([a.scene == b.scene and not a.unreadable for a, b in zip(after, before, strict=True)]))


def warm_up_vision(model: JanusForConditionalGeneration, rows: Rows, world: str, steps: int) -> float:
    """Train tower and aligner to predict each patch's position and the content of its cell; returns the accuracy.

    Position matters: the language model's rotary positions are relative, so "cell b3" can only be found if the features
    contain their position. The linear probe is discarded.
    """
    tower, aligner = model.model.vision_model, model.model.aligner
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    sizes = [*(len(words) + 1 for words in VOCABULARIES[world]), side, side]
    probe = nn.Linear(model.config.text_config.hidden_size, sum(sizes))
    parameters = [*tower.parameters(), *aligner.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 50) * (1 - s / steps))
    accuracy = 0.0
    for step in range(steps):
        pixels, images = sample_images(rows, 20_000_000 + step * 16, 16)
        labels = _patch_labels(images, rows.options.grid, side, world)
        features = aligner(tower(pixels).last_hidden_state)
        logits = probe(features).flatten(0, 1).split(sizes, dim=1)
        loss = torch.stack([F.cross_entropy(x, y) for x, y in zip(logits, labels, strict=True)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        correct = torch.stack([x.argmax(1) == y for x, y in zip(logits, labels, strict=True)]).all(0)
        accuracy = 0.9 * accuracy + 0.1 * float(correct[labels[0] > 0].float().mean())
        if step % 100 == 0 or step == steps - 1:
            print(f"vision {step:5d}  loss {loss.item():.4f}  patches of objects correct {accuracy:.3f}", flush=True)
    with torch.no_grad():  # give the features the scale of the token embeddings
        scale = model.model.language_model.embed_tokens.weight.std() / features.std()
        last = [m for m in aligner.modules() if isinstance(m, nn.Linear)][-1]
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    return accuracy


def _patch_labels(images: list, grid: int, side: int, world: str) -> tuple[Tensor, ...]:
    """Per patch `[len(images) * side * side]`: shape, colour and size of its cell (0 if empty), its row, its column."""
    words = VOCABULARIES[world]
    labels = torch.zeros(len(words), len(images), grid, grid, dtype=torch.long)
    for number, parsed in enumerate(parse_scenes(images, grid, world)):
        for obj in parsed.scene.objects:
            for known, word, own in zip(words, (obj.shape, obj.colour, obj.size), labels, strict=True):
                own[number, obj.row, obj.column] = known.index(word) + 1
    width = side // grid
    spread = labels.repeat_interleave(width, 2).repeat_interleave(width, 3).flatten(1)
    row = torch.arange(side).view(1, side, 1).expand(len(images), side, side).flatten()
    column = torch.arange(side).view(1, 1, side).expand(len(images), side, side).flatten()
    return *spread, row, column


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--world", choices=tuple(SIZES), default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer-steps", type=int, help="default: 2000, in the large world 4000")
    parser.add_argument("--vision-steps", type=int, default=800)
    arguments = parser.parse_args()
    if any(steps is not None and steps < 1 for steps in (arguments.tokenizer_steps, arguments.vision_steps)):
        parser.error("--tokenizer-steps and --vision-steps must be at least 1")
    started = time.monotonic()
    options = options_of(arguments.world)
    rows, test = (open_world(split, arguments.seed, options) for split in ("train", "test"))
    sizes = SIZES[arguments.world]
    tokenizer = make_tokenizer(arguments.world, arguments.seed)
    model = tiny_janus(tokenizer, sizes, arguments.seed)

    def pixels_of(start: int, count: int) -> Tensor:
        return sample_images(rows, start, count)[0]

    many = arguments.world == "large"  # four times the pixels: half as many images per step
    steps = arguments.tokenizer_steps or (4000 if many else 2000)
    train_image_tokenizer(model, pixels_of, steps, rows=4 if many else 8, bfloat16=many)
    retired = retire_duplicate_codes(model, pixels_of)
    print(f"image tokenizer: {sizes.codes - retired} of {sizes.codes} codes are in use")
    print(f"images exact after the tokenizer: {reconstruction_accuracy(model, test, arguments.world):.4f}")
    warm_up_vision(model, rows, arguments.world, arguments.vision_steps)
    model.save_pretrained(arguments.output)
    tiny_processor(tokenizer, sizes).save_pretrained(arguments.output)
    print(f"wrote {arguments.output} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
