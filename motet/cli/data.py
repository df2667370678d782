"""`motet data`: show the rows of a recipe as a run uses them, before training."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from motet.cli.outputs import write_image
from motet.config.stages import recipe_of
from motet.report.terminal import say

if TYPE_CHECKING:
    from PIL import Image

    from motet.evaluation.data_preview import ShownAct, ShownRow, ShownTrack

_Captioned: TypeAlias = "tuple[Image.Image, str]"
_MAX_CHARACTERS = 200
"""Most characters shown of a column's value."""


def show_data(path: Path, overrides: list[str], *, count: int, split: str | None, stage: str | None, out: Path) -> None:
    """Print the first rows of a recipe's data with prompts and rewards, and write their images to `out`."""
    recipe = recipe_of(path, overrides, stage)
    from motet.evaluation.data_preview import preview
    from motet.report.progress import LOADING, waiting

    with waiting(LOADING):
        tracks = preview(recipe, count, split)
    for track in tracks:
        say(*_lines(track))
    _write_images(tracks, out)


def _lines(track: ShownTrack) -> Iterator[str]:
    if track.name:
        yield f"# {track.name}"
    for row in track.rows:
        yield f"{row.location}"
        for name, value in row.columns.items():
            yield f"  {name}: {_short(value)}"
        for act in row.acts:
            yield from _act_lines(act)
        if row.dropped is not None:
            yield f"  dropped: {row.dropped}"
        if row.rewards:
            yield "  rewards: " + ", ".join(f"{name} {_format(value)}" for name, value in row.rewards.items())
        yield ""
    yield from track.summary
    yield from _reward_lines(track.rows)
    if track.reconstruction is not None and track.reconstruction.is_poor:
        yield track.reconstruction.warning


def _act_lines(act: ShownAct) -> Iterator[str]:
    yield f"  {act.name}, prompt: {json.dumps(act.prompt, ensure_ascii=False)}"
    source = (
        f"sampled: data.targets names no gold for {act.name}" if act.column is None else f"gold, column {act.column}"
    )
    yield f"  {act.name} ({source}): {'an image' if act.text is None else json.dumps(act.text, ensure_ascii=False)}"


def _reward_lines(rows: list[ShownRow]) -> Iterator[str]:
    """Each reward's mean over the rows, with a warning if it is never above 0 for gold answers."""
    gold = bool(rows) and all(act.column is not None for row in rows for act in row.acts)
    for name in rows[0].rewards if rows else ():
        values = [value for row in rows if (value := row.rewards[name]) is not None]
        what = "the gold" if gold else "the acts shown"
        if not values:
            yield f"Warning: {name} does not apply to any of these {len(rows)} rows."
            continue
        yield f"{name} of {what}: {statistics.fmean(values):.3f} on average, {min(values):.3f} to {max(values):.3f}"
        if gold and max(values) <= 0:
            yield f"Warning: {name} is 0 or less for every gold answer: does it expect answers in another form?"


def _format(value: float | None) -> str:
    return "does not apply" if value is None else f"{value:.3f}"


def _short(value: Any) -> str:
    size = getattr(value, "size", None)
    if isinstance(size, tuple):
        return f"image, {size[0]} x {size[1]}"
    if isinstance(value, list | tuple) and value and all(isinstance(getattr(v, "size", None), tuple) for v in value):
        return "; ".join(map(_short, value))
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}... ({len(text)} characters)"


def _write_images(tracks: list[ShownTrack], out: Path) -> None:
    """Write the images of all tracks with their rows, each next to its reconstruction if the scenario generates images.

    Images that the policy generated, which the rewards were computed on, are the last.
    """
    from motet.report.image_grid import make_image_grid

    paired, alone, sampled = list[_Captioned](), list[_Captioned](), list[_Captioned]()
    for track in tracks:
        if track.reconstruction is None:
            alone += [
                (image, f"data: {where}") for image, where in zip(track.images, track.image_locations, strict=True)
            ]
        else:
            for pair, where in zip(track.reconstruction.pairs, track.image_locations, strict=True):
                paired += [(pair[0], f"data: {where}"), (pair[1], f"image tokenizer: {where}")]
        acts = ((act, row.location) for row in track.rows for act in row.acts)
        sampled += [(act.sampled, f"{act.name}: {where}") for act, where in acts if act.sampled is not None]
    shown = [*paired, *alone, *sampled]
    if not shown:
        return
    images, captions = [image for image, _ in shown], [caption for _, caption in shown]
    write_image("--out", out, make_image_grid(images, captions, [None] * len(images)))
    say(f"Images: {out}")
