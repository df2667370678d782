"""Make a folder of captioned images from packages of Debian: clip art (openclipart) or stamps of Tux Paint.

    python examples/real_images/make_data.py openclipart /usr/share/openclipart data/openclipart
    python examples/real_images/make_data.py stamps /usr/share/tuxpaint/stamps data/stamps

The result loads with `data.source=data/openclipart`: images, and metadata.jsonl with the columns `prompt` and `tags`.
"""

import argparse
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from motet.core.errors import DataError
from motet.core.images import read_image

CREDIT = re.compile(r"(?i)^(clip ?art by|by) [^-]* - ")


def openclipart(folder: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """Every PNG whose SVG states a title: the title, and its tags."""
    for svg in sorted((folder / "svg").rglob("*.svg")):
        png = folder / "png" / svg.relative_to(folder / "svg").with_suffix(".png")
        try:
            root = ElementTree.parse(svg)
        except ElementTree.ParseError:
            continue
        work = next((e for e in root.iter() if e.tag.endswith("}Work")), None)
        if work is None or not png.is_file():
            continue
        title = next((e.text for e in work if e.tag.endswith("}title") and e.text), "")
        tags = [e.text.strip() for e in work.iter() if e.tag.endswith("}li") and e.text and e.text.strip()]
        title = re.sub(r"[\s_]+", " ", CREDIT.sub("", " ".join(title.split())))
        if len(title) > 2:
            yield png, title, tags


def stamps(folder: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """Every PNG with a text beside it: the English caption, and the folders that it is in."""
    for text in sorted(folder.rglob("*.txt")):
        png, caption = text.with_suffix(".png"), text.read_text("utf-8").split("\n")[0].strip()
        if png.is_file() and caption:
            yield png, caption, list(text.parent.relative_to(folder).parts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("openclipart", "stamps"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows, unreadable = [], 0
    for png, caption, tags in (openclipart if options.kind == "openclipart" else stamps)(options.folder):
        try:
            image = read_image(str(png), options.folder, png.name)
        except DataError:
            unreadable += 1
            continue
        image.thumbnail((options.size, options.size), Image.Resampling.LANCZOS)
        canvas = Image.new("RGB", (options.size, options.size), "white")
        canvas.paste(image, ((options.size - image.width) // 2, (options.size - image.height) // 2))
        name = f"{len(rows):05}.png"
        canvas.save(options.output / name)
        rows.append({"file_name": name, "prompt": caption, "tags": tags})
    if not rows:
        raise SystemExit(f"{options.folder} has no captioned PNG files; is the Debian package installed there?")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (options.output / "metadata.jsonl").write_text(lines, encoding="utf-8")
    print(f"{len(rows)} images in {options.output}; {unreadable} could not be read")


if __name__ == "__main__":
    main()
