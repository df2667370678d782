"""Make the initial model of the words cold start: tokenizer with a token per letter, image tokenizer, random weights.

    python scripts/make_words_janus.py --output runs/words_init --seed 0

The vision tower stays random: the model is for generating images only. Continue with
`motet sft recipes/words_cold_start.yaml`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from image_tokenizer import retire_duplicate_codes, train_image_tokenizer
from torch import Tensor
from torch.nn import functional as F

from motet.policies.janus.images import to_pil_images
from motet.policies.tiny.janus import TinySizes, tiny_janus, tiny_processor, tiny_tokenizer
from motet.rewards.image.ocr import OcrReader
from motet.words.world import PHRASES, WordsRows

SIZES = TinySizes(
    image=48, patch=8, codes=512, code_dim=8, vq_channels=32, vision_hidden=32, vision_layers=1, max_positions=128
)


def to_pixels(images: list) -> Tensor:
    """Images -> `[N, 3, H, W]` in [-1, 1]."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).div(127.5).sub(1)


def same_text(read: str, word: str) -> bool:
    """As `ocr_exact` compares them: without capitals and spaces."""
    return "".join(read.split()).upper() == word


@torch.no_grad()
def words_legible(model: torch.nn.Module, rows: WordsRows, count: int) -> tuple[float, float]:
    """Fraction of words that OCR reads right in the images, and in their reconstructions."""
    shown = [rows.row(i) for i in range(count)]
    images = [row["target"] for row in shown]
    vq = model.model.vqmodel
    latents = F.normalize(vq.quant_conv(vq.encoder(to_pixels(images))), dim=1).flatten(2).transpose(1, 2)
    decoded = to_pil_images(vq.decode((latents @ F.normalize(vq.quantize.embedding.weight, dim=-1).T).argmax(-1)))
    reader = OcrReader(detect=False, line_width=96)
    read = [reader(many) for many in (images, decoded)]
    words = [row["word"] for row in shown]
    return tuple(float(np.mean([same_text(a, b) for a, b in zip(texts, words, strict=True)])) for texts in read)  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    started = time.monotonic()
    rows = WordsRows("train", arguments.seed, {})
    tokenizer = tiny_tokenizer([f": {phrase.format('')}\n\n" for phrase in PHRASES for _ in range(10)])
    model = tiny_janus(tokenizer, SIZES, arguments.seed)

    def pixels_of(start: int, count: int) -> Tensor:
        return to_pixels([rows.row(i)["target"] for i in range(start, start + count)])

    train_image_tokenizer(model, pixels_of, arguments.steps)
    print(f"codes in use: {SIZES.codes - retire_duplicate_codes(model, pixels_of)} of {SIZES.codes}")
    exact, kept = words_legible(model, WordsRows("test", 0, {}), 400)
    print(f"held-out words that OCR reads right: {exact:.3f} in the images, {kept:.3f} after the image tokenizer")
    model.save_pretrained(arguments.output)
    tiny_processor(tokenizer, SIZES).save_pretrained(arguments.output)
    print(f"wrote {arguments.output} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
