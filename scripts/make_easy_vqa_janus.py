"""Make the initial model of the easy-VQA cold start: tokenizer, image tokenizer, pretrained vision tower.

    python scripts/make_easy_vqa_janus.py --output runs/easy_vqa_init --seed 0

Three stages from random weights on the train split, as in `make_shapes_janus.py`; the vision tower learns to predict
the colour and the shape that the image shows at each of its patches. Continue with
`motet train recipes/easy_vqa_cold_start.yaml`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from image_tokenizer import retire_duplicate_codes, train_image_tokenizer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration

from motet.config import DataConfig
from motet.data import Rows, open_rows
from motet.policies.janus.images import to_pil_images
from motet.policies.tiny.janus import TinySizes, tiny_janus, tiny_processor, tiny_tokenizer
from motet.shapes.easy_vqa import COLOURS, SHAPES, find_shape

SIZES = TinySizes(codes=256, vision_layers=2)
LEVELS = 4.0
"""How finely the codes distinguish pixels: all pale backgrounds are one value, so that no code is spent on them."""


def corpus(rows: Rows) -> list[str]:
    """Texts with the surrounding characters of the chat template."""
    texts = []
    for row in (rows.row(index) for index in range(0, len(rows), 7)):
        texts += [f": {row['prompt']}\n\n", f"\n{row['question']}\n\n", row["solution"]]
    return texts


def _resized(image: Image.Image) -> Image.Image:
    """As the processor does it, which halves the side of easy-VQA's images."""
    return image.resize((SIZES.image, SIZES.image), Image.Resampling.BICUBIC)


class Images:
    """The images of a split with a caption, in a random order that repeats."""

    def __init__(self, split: str, seed: int) -> None:
        rows = open_rows(DataConfig(source="easy_vqa", split=split, options={"task": "captions"}), check=False)
        order = np.random.default_rng(seed).permutation(len(rows))
        self.rows = [rows.row(int(index)) for index in order]
        pixels = np.stack([np.asarray(_resized(row["target"])) for row in self.rows])
        self.pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()

    def batch(self, start: int, count: int) -> Tensor:
        """Normalised images `[2 * count, 3, 32, 32]`."""
        return self.pixels[torch.arange(2 * start, 2 * (start + count)) % len(self.rows)]

    def labelled(self, step: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Pixels, and per patch: colour and shape of the image where the shape covers it (0 elsewhere), row, column.

        Every other pass over the images is mirrored.
        """
        numbers, side = torch.arange(16 * step, 16 * (step + 1)), SIZES.image // SIZES.patch
        places, mirrored = numbers % len(self.rows), numbers // len(self.rows) % 2 == 1
        pixels = torch.where(mirrored[:, None, None, None], self.pixels[places].flip(-1), self.pixels[places])
        background = pixels.flatten(2).median(dim=2).values[..., None, None]
        covered = torch.nn.functional.max_pool2d((pixels - background).abs().amax(1, keepdim=True), SIZES.patch) > 0.5
        names = [(self.rows[int(n)]["colour"], self.rows[int(n)]["shape"]) for n in places]
        classes = [[list(COLOURS).index(colour), SHAPES.index(shape)] for colour, shape in names]
        labels = (torch.tensor(classes)[:, :, None] + 1) * covered.flatten(1)[:, None]
        row, column = (
            x.flatten().repeat(len(places)) for x in torch.meshgrid(*[torch.arange(side)] * 2, indexing="ij")
        )
        return pixels, (labels[:, 0].flatten(), labels[:, 1].flatten(), row, column)


def warm_up_vision(model: JanusForConditionalGeneration, images: Images, steps: int) -> None:
    """Train tower and aligner to predict each patch's position, and the colour and shape of what covers it.

    The linear probe is discarded.
    """
    tower, aligner = model.model.vision_model, model.model.aligner
    side = SIZES.image // SIZES.patch
    classes = [len(COLOURS) + 1, len(SHAPES) + 1, side, side]
    probe = nn.Linear(SIZES.hidden, sum(classes))
    parameters = [*tower.parameters(), *aligner.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 50) * (1 - s / steps))
    for step in range(steps):
        pixels, labels = images.labelled(step)
        features = aligner(tower(pixels).last_hidden_state)
        logits = probe(features).flatten(0, 1).split(classes, dim=1)
        covered = labels[0] > 0
        where_covered = [F.cross_entropy(x[covered], y[covered]) for x, y in zip(logits[:2], labels, strict=False)]
        everywhere = [F.cross_entropy(x, y) for x, y in zip(logits, labels, strict=True)]
        loss = torch.stack(where_covered + everywhere).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            correct = torch.stack([x.argmax(1) == y for x, y in zip(logits, labels, strict=True)]).all(0)
            share = float(correct[covered].float().mean())
            print(f"vision {step:5d}  loss {loss.item():.4f}  covered patches correct {share:.3f}", flush=True)
    with torch.no_grad():  # give the features the scale of the token embeddings
        scale = model.model.language_model.embed_tokens.weight.std() / features.std()
        last = [module for module in aligner.modules() if isinstance(module, nn.Linear)][-1]
        last.weight.mul_(scale)
        last.bias.mul_(scale)


@torch.no_grad()
def reconstruction_accuracy(model: JanusForConditionalGeneration, images: Images) -> float:
    """Fraction of images whose colour and shape the verifier finds after encoding and decoding."""
    correct = 0
    for start in range(0, len(images.rows), 80):
        rows = images.rows[start : start + 80]
        tokens = model.model.vqmodel.encode(images.pixels[start : start + 80]).image_tokens.view(len(rows), -1)
        decoded = map(find_shape, to_pil_images(model.model.vqmodel.decode(tokens)))
        wanted = [(row["colour"], row["shape"]) for row in rows]
        correct += sum((found.colour, found.shape) == pair for found, pair in zip(decoded, wanted, strict=True))
    return correct / len(images.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer-steps", type=int, default=2500)
    parser.add_argument("--vision-steps", type=int, default=1500)
    arguments = parser.parse_args()
    started = time.monotonic()
    tokenizer = tiny_tokenizer(corpus(open_rows(DataConfig(source="easy_vqa"), check=False)))
    model = tiny_janus(tokenizer, SIZES, arguments.seed)
    images = Images("train", arguments.seed)
    steps = arguments.tokenizer_steps
    train_image_tokenizer(model, images.batch, steps, patch_weight=0.3, levels=LEVELS, bfloat16=True)
    retired = retire_duplicate_codes(model, images.batch)
    print(f"image tokenizer: {SIZES.codes - retired} of {SIZES.codes} codes are in use")
    accuracy = reconstruction_accuracy(model, Images("test", arguments.seed))
    print(f"test images correct after the tokenizer: {accuracy:.4f} ({time.monotonic() - started:.0f} s)", flush=True)
    warm_up_vision(model, images, arguments.vision_steps)
    model.save_pretrained(arguments.output)
    tiny_processor(tokenizer, SIZES).save_pretrained(arguments.output)
    print(f"wrote {arguments.output} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
