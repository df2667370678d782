"""examples/real_images: folders as Debian's packages have them become an image folder that loads."""

import importlib.util
import sys
from pathlib import Path

import datasets
import pytest
from PIL import Image

from motet.config import DataConfig
from motet.data import open_rows

SCRIPT = Path(__file__).parents[2] / "examples" / "real_images" / "make_data.py"
SVG = """<svg xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><rdf:RDF><Work xmlns="http://web.resource.org/cc/"><dc:title>{title}</dc:title>
<dc:creator><Agent><dc:title>Someone Else</dc:title></Agent></dc:creator>
<dc:subject><rdf:Bag><rdf:li>bird</rdf:li><rdf:li></rdf:li></rdf:Bag></dc:subject></Work></rdf:RDF></metadata></svg>"""


def made(monkeypatch, *arguments):
    spec = importlib.util.spec_from_file_location("make_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["make_data.py", *map(str, arguments)])
    module.main()


def rows_of(folder, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder.parent / "cache")
    rows = open_rows(DataConfig(source=str(folder)), ("prompt",))
    return [rows.row(i) for i in range(len(rows))]


def test_clip_art_is_captioned_by_its_title(tmp_path, monkeypatch, capsys):
    for name, title in (("a", "Clipart by Nicu - red_eagle"), ("b", ""), ("c", "An owl")):
        for folder, suffix in (("svg", ".svg"), ("png", ".png")):
            (tmp_path / "in" / folder / "birds").mkdir(parents=True, exist_ok=True)
            path = tmp_path / "in" / folder / "birds" / f"{name}{suffix}"
            path.write_text(SVG.format(title=title)) if suffix == ".svg" else Image.new("RGB", (20, 10)).save(path)
    (tmp_path / "in" / "png" / "birds" / "c.png").write_bytes(b"broken")
    made(monkeypatch, "openclipart", tmp_path / "in", tmp_path / "out", "--size", "16")
    (row,) = rows_of(tmp_path / "out", monkeypatch)
    assert row["prompt"] == "red eagle" and row["tags"] == ["bird"] and row["image"].size == (16, 16)
    assert row["image"].getpixel((0, 0)) == (255, 255, 255) and row["image"].getpixel((8, 8)) == (0, 0, 0)
    assert "1 could not be read" in capsys.readouterr().out


def test_stamps_are_captioned_by_the_first_line(tmp_path, monkeypatch):
    folder = tmp_path / "in" / "animals"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "frog.png")
    (folder / "frog.txt").write_text("A frog.\nfr.utf8=Une grenouille.\n")
    (folder / "sound.txt").write_text("Without an image.\n")
    made(monkeypatch, "stamps", tmp_path / "in", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out", monkeypatch)
    assert row["prompt"] == "A frog." and row["tags"] == ["animals"]


def test_a_folder_without_images_says_so(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="no captioned PNG files"):
        made(monkeypatch, "stamps", tmp_path, tmp_path / "out")
