"""Everything that datasets call an image."""

import io
import os
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from motet.config import DataConfig
from motet.core.conversation import user
from motet.core.errors import DataError
from motet.core.images import check_image, read_image
from motet.data import open_rows
from motet.data.chats import read_images
from tests.runs import motet_command

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
        image = read_image(value, folder, "Row 0")
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (3, 2), RED)


def test_bytes_go_before_the_path(folder):
    value = {"bytes": encoded(Image.new("RGB", (1, 1), "blue")), "path": "red.png"}
    assert read_image(value, folder, "Row 0").getpixel((0, 0)) == (0, 0, 255)


def test_an_rgb_image_is_passed_on_as_it_is():
    image = Image.new("RGB", (2, 2))
    assert read_image(image, Path(), "Row 0") is image


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode):
    assert read_image(Image.new("RGB", (2, 2), RED).convert(mode), Path(), "Row 0").mode == "RGB"


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
    read = read_image({"bytes": encoded(image)}, Path(), "Row 0")
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


def test_photographs_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image({"bytes": encoded(Image.new("RGB", (4, 2)), exif=exif)}, Path(), "Row 0").size == (2, 4)


def test_images_that_are_open_already_are_read_as_files_are():
    """`policy.generate_text(question, [Image.open("turned.jpg")])`."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.open(io.BytesIO(encoded(Image.new("RGB", (4, 2)), "JPEG", exif=exif)))
    clear = Image.open(io.BytesIO(encoded(Image.new("RGB", (2, 1)), transparency=(0, 0, 0))))
    assert turned.mode == clear.mode == "RGB"
    assert read_image(turned, Path(), "Row 0").size == (2, 4)
    (image,) = user(clear).images
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_images_is_a_list(folder):
    def read(value, where):
        return read_image(value, folder, where)

    assert len(read_images(["red.png", {"path": "red.png"}], read, "Row 0")) == 2
    assert len(read_images("red.png", read, "Row 0")) == 1
    with pytest.raises(DataError, match=r"Row 0\[1\]: the image 'no.png'"):
        read_images(["red.png", "no.png"], read, "Row 0")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gone.png", r"Row 7: the image 'gone.png' cannot be read: the file does not exist"),
        ("https://host/x.png", r"'https://host/x.png' cannot be read: URLs are not downloaded"),
        ("iVBORw0KGgo" * 500, r"'iVBORw0KGgo\w*'\.\.\. \(base64\) cannot be read"),
        ("data:image/png;base64,iVBO!", r"cannot be read: it is not valid base64"),
        ("data:image/png,x", r"a data URL must be base64"),
        ("x" * 300 + ".png", r"\.\.\.' cannot be read: OSError"),
        ({"bytes": b"no image"}, r"\(bytes\) cannot be read: it is not one of PNG, JPEG"),
        ({"bytes": encoded(Image.effect_noise((64, 64), 50))[:200]}, r"\(bytes\) cannot be read: OSError"),
        ({"path": 5}, r"the image '5' cannot be read: the file does not exist"),
        ({}, r"neither bytes nor a path"),
        ("", r"neither bytes nor a path"),
        (".", r"a folder, a pipe or a device"),
        (["a.png"], r"expected an image, .*got a list"),
        (3, r"expected an image, .*got a int"),
        (Image.fromarray(np.full((2, 2), 40000, np.uint16)), r"mode I;16 has no defined white value"),
    ],
)
def test_unreadable(value, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_image(value, tmp_path, "Row 7")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"


def test_an_image_starts_no_other_program(tmp_path, monkeypatch):
    """Pillow hands EPS files, whatever they are called, to Ghostscript."""
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *args, **settings: started.append(args))
    monkeypatch.setattr("subprocess.check_call", lambda *args, **settings: started.append(args))
    (tmp_path / "eps.png").write_bytes(EPS)
    for value in ("eps.png", EPS, {"bytes": EPS}):
        with pytest.raises(DataError, match="it is not one of PNG, JPEG"):
            read_image(value, tmp_path, "Row 7")
    assert started == []


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="a folder, a pipe or a device"):
        read_image("pipe.png", tmp_path, "Row 7")


def compressed(width, height):
    """A grey PNG of that size which takes few bytes: what an image library would decode to width * height."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 13_000, 60_000])
def test_a_small_file_that_decodes_to_gigabytes_is_not_decoded(side, recwarn):
    with pytest.raises(DataError, match=r"pixels are more than 50,000,000|has more than 50,000,000 pixels"):
        read_image(compressed(side, side), Path(), "Row 7")
    assert not recwarn.list  # Pillow warns, or raises, by its own limits


@pytest.mark.parametrize("size", [(300, 1), (1, 300), (2000, 5)])
def test_extreme_aspect_ratios_are_named(size):
    for value in (Image.new("RGB", size), encoded(Image.new("RGB", size))):
        with pytest.raises(
            DataError, match=f"Row 7.*its {size[0]} x {size[1]} pixels is more than 200 times the other"
        ):
            read_image(value, Path(), "Row 7")
    for fine in ((200, 1), (1, 1), (332, 27), (26, 28)):
        assert read_image(encoded(Image.new("RGB", fine)), Path(), "Row 7").size == fine


def test_the_header_is_checked_without_decoding():
    image = encoded(Image.effect_noise((64, 64), 50))
    check_image(image[: len(image) // 2], Path(), "Row 7")
    for value in (b"nothing", compressed(60_000, 60_000), encoded(Image.new("RGB", (300, 1)))):
        with pytest.raises(DataError, match="Row 7: the image"):
            check_image(value, Path(), "Row 7")


def test_ask_reads_images_as_training_does(tmp_path, monkeypatch, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.jpg").write_bytes(encoded(Image.effect_noise((64, 32), 50), "JPEG", exif=exif))
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "faded.png")
    (tmp_path / "bomb.png").write_bytes(compressed(15_000, 13_000))
    Image.fromarray(np.full((2, 2), 40000, np.uint16)).save(tmp_path / "deep.png")
    asked = []

    class Policy:
        def generate_text(self, question, images, **sampling):
            asked.extend(images)
            return [SimpleNamespace(text="red", finished=True)]

    monkeypatch.setattr("motet.cli.inference.load_policy", lambda path: Policy())
    for name in ("turned.jpg", "faded.png"):
        assert motet_command(capsys, "ask", tmp_path, tmp_path / name, "what?").code == 0
        assert asked[-1].tobytes() == read_image(name, tmp_path, "Row 7").tobytes()
    for name in ("bomb.png", "deep.png", "none.png"):
        answer = motet_command(capsys, "ask", tmp_path, tmp_path / name, "what?")
        assert answer.code == 2 and len(answer.err.splitlines()) == 1 and name in answer.err, answer
        assert "correct the image" in answer.err and "row" not in answer.err.partition("Fix:")[2], answer


def test_rows_say_what_to_do_about_an_image(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"image": "none.png"}\n')
    with pytest.raises(DataError) as refusal:
        open_rows(DataConfig(source=str(tmp_path / "x.jsonl")), ("image",))
    assert "correct the image (paths are" in refusal.value.fix and "as many rows as before" in refusal.value.fix
