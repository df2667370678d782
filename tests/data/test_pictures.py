"""Everything that datasets call a picture."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motet.data.pictures import read_picture, read_pictures
from motet.errors import DataError

RED = (255, 0, 0)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (3, 2), RED).save(tmp_path / "red.png")
    return tmp_path


def test_a_path_is_relative_to_the_folder(folder):
    for value in ("red.png", {"path": "red.png"}, {"bytes": None, "path": "red.png"}, str(folder / "red.png")):
        image = read_picture(value, folder, "Row 0")
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (3, 2), RED)


def test_bytes_go_before_the_path(folder):
    value = {"bytes": encoded(Image.new("RGB", (1, 1), "blue")), "path": "red.png"}
    assert read_picture(value, folder, "Row 0").getpixel((0, 0)) == (0, 0, 255)


def test_an_rgb_image_is_passed_on_as_it_is():
    image = Image.new("RGB", (2, 2))
    assert read_picture(image, Path(), "Row 0") is image


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode):
    assert read_picture(Image.new("RGB", (2, 2), RED).convert(mode), Path(), "Row 0").mode == "RGB"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_becomes_white(mode):
    """Black on nothing, as diagrams are drawn: plain conversion would make it all black."""
    image = Image.new("LA", (2, 1), (0, 0)).convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 255))
    if mode == "P":
        image = Image.new("P", (2, 1), 0)
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.putpixel((0, 0), 1)
        image.info["transparency"] = 0
    else:
        image = image.convert(mode)
    read = read_picture({"bytes": encoded(image)}, Path(), "Row 0")
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


def test_photographs_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_picture({"bytes": encoded(Image.new("RGB", (4, 2)), exif=exif)}, Path(), "Row 0").size == (2, 4)


def test_images_is_a_list(folder):
    assert len(read_pictures(["red.png", {"path": "red.png"}], folder, "Row 0")) == 2
    assert len(read_pictures("red.png", folder, "Row 0")) == 1
    assert read_pictures(None, folder, "Row 0") is None
    with pytest.raises(DataError, match=r"Row 0\[1\]: the picture 'no.png'"):
        read_pictures(["red.png", "no.png"], folder, "Row 0")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gone.png", r"Row 7: the picture 'gone.png' cannot be read: FileNotFoundError"),
        ("https://host/x.png", r"'https://host/x.png' cannot be read"),
        ("iVBORw0KGgo" * 500, r"'iVBORw0KGgo.*\.\.\.' cannot be read"),
        ({"bytes": b"no picture"}, r"\(bytes\) cannot be read: UnidentifiedImageError"),
        ({"bytes": encoded(Image.effect_noise((64, 64), 50))[:200]}, r"\(bytes\) cannot be read: OSError"),
        ({}, r"neither bytes nor a path"),
        ("", r"neither bytes nor a path"),
        (["a.png"], r"a picture is a list.*column `images`"),
        (3, r"a picture is a int"),
        (Image.fromarray(np.full((2, 2), 40000, np.uint16)), r"mode I;16 does not say which value is white"),
    ],
)
def test_unreadable(value, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_picture(value, tmp_path, "Row 7")
