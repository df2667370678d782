"""The verifier of one plain shape: exact on the images of easy-VQA, strict on others."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from motet.config import DataConfig
from motet.data import open_rows
from motet.shapes.easy_vqa import COLOURS, find_shape

BACKGROUND = (240, 236, 250)
OUTLINES = {
    "circle": lambda draw, fill: draw.ellipse((60, 100, 160, 200), fill=fill),
    "rectangle": lambda draw, fill: draw.rectangle((60, 100, 180, 160), fill=fill),
    "triangle": lambda draw, fill: draw.polygon([(60, 187), (160, 187), (110, 100)], fill=fill),
    "square, rotated": lambda draw, fill: draw.polygon([(60, 150), (110, 100), (160, 150), (110, 200)], fill=fill),
    "triangle, upside down": lambda draw, fill: draw.polygon([(60, 100), (160, 100), (110, 187)], fill=fill),
    "ellipse": lambda draw, fill: draw.ellipse((60, 100, 220, 180), fill=fill),
    "ring": lambda draw, fill: draw.ellipse((60, 100, 160, 200), outline=fill, width=24),
    "half a circle": lambda draw, fill: draw.pieslice((60, 100, 160, 200), 0, 180, fill=fill),
}


def image(outline, colour=(255, 0, 0), side=64, background=BACKGROUND):
    canvas = Image.new("RGB", (256, 256), background)
    OUTLINES[outline](ImageDraw.Draw(canvas), colour)
    return canvas.resize((side, side), Image.Resampling.BOX)


def test_all_shapes_of_real_images_are_found():
    pytest.importorskip("easy_vqa")
    rows = open_rows(DataConfig(source="easy_vqa", split="test", options={"task": "captions"}), check=False)
    for row in (rows.row(i) for i in range(0, len(rows), 20)):
        found = find_shape(row["target"])
        assert (found.colour, found.shape) == (row["colour"], row["shape"]), found.reason


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("shape", ["circle", "rectangle", "triangle"])
@pytest.mark.parametrize("side", [32, 64])
def test_colours_and_shapes(shape, colour, side):
    found = find_shape(image(shape, COLOURS[colour], side))
    assert (found.colour, found.shape) == (colour, shape)


@pytest.mark.parametrize("outline", list(OUTLINES)[3:])
def test_other_outlines_are_invalid(outline):
    assert find_shape(image(outline)).shape is None


def test_two_shapes_are_invalid():
    both = image("circle")
    both.paste(image("circle").crop((14, 24, 41, 51)).resize((9, 9)), (50, 4))
    assert find_shape(both).shape is None


def test_no_shape_and_no_pale_background():
    assert find_shape(Image.new("RGB", (64, 64), BACKGROUND)).reason == "there is no shape"
    assert find_shape(Image.new("RGB", (64, 64))).reason == "the background is not pale"
    assert find_shape(image("circle", background=(150, 150, 200))).shape is None
    assert find_shape(Image.new("RGB", (8, 8), BACKGROUND)).reason.startswith("8 x 8 pixels")


@pytest.mark.parametrize("colour", [(255, 165, 0), (255, 110, 0), (160, 0, 255), (0, 255, 255), (255, 120, 160)])
def test_a_small_shape_in_another_colour_is_invalid(colour):
    """A small shape differs little from one in the nearest colour, over the image and over any block."""
    small = Image.new("RGB", (32, 32), BACKGROUND)
    ImageDraw.Draw(small).rectangle((14, 14, 17, 17), fill=colour)
    found = find_shape(small)
    assert found.shape is None
    assert found.reason.startswith(f"the colour {colour} is not one of the eight"), found.reason


def test_noise_and_gradients_are_invalid():
    noise = np.random.default_rng(0).normal(0, 30, (64, 64, 3))
    noisy = np.clip(np.asarray(image("circle"), float) + noise, 0, 255).astype(np.uint8)
    assert find_shape(Image.fromarray(noisy)).shape is None
    faded = Image.blend(image("circle", (255, 0, 0)), image("circle", (0, 0, 255)), 0.5)
    assert find_shape(faded).shape is None


def test_the_reason_names_the_best_fit():
    assert find_shape(image("ring")).reason.startswith("not a red circle everywhere")
