"""The reader is exact on what the renderer draws and rejects everything else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import motet.shapes.verifier
from motet.shapes.render import cell_pixels, render, templates
from motet.shapes.scene import BACKGROUND, COLOURS, SHAPES, Scene, ShapeInstance
from motet.shapes.verifier import parse_scene, parse_scenes, parse_with_specs, verify, verify_image

RED_CIRCLE = {
    "category": "colours",
    "grid": 4,
    "groups": [{"count": 1, "shape": "circle", "colour": "red"}],
    "relation": None,
}


def image(*objects: ShapeInstance, canvas: int = 32) -> np.ndarray:
    return np.asarray(render(Scene(4, tuple(sorted(objects))), canvas)).copy()


def result(pixels: np.ndarray, spec: dict = RED_CIRCLE):
    return verify_image(Image.fromarray(pixels.astype(np.uint8)), spec)


def random_scene(rng: np.random.Generator, grid: int) -> Scene:
    cells = rng.choice(grid * grid, int(rng.integers(0, min(7, grid * grid))), replace=False)
    names = [(str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))) for _ in cells]
    objects = [ShapeInstance(int(c) // grid, int(c) % grid, *n) for c, n in zip(cells, names, strict=True)]
    return Scene(grid, tuple(sorted(objects)))


@pytest.mark.parametrize("values_at_once", [1, 2 * 3 * 32 * 32, 2**22])
def test_many_images_are_parsed_like_each_of_them(values_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motet.shapes.verifier, "_VALUES_AT_ONCE", values_at_once)
    rng = np.random.default_rng(1)
    images = [render(random_scene(rng, 4), canvas) for canvas in (32, 64, 32, 32, 64, 32, 32)]
    images[3:3] = [Image.new("RGB", (32, 16)), Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8))]
    alone = [parse_scene(image, 4) for image in images]
    assert parse_scenes(images, 4) == alone
    assert len({one.scene for one in alone}) >= 7
    assert [len(one.unreadable) for one in alone] == [0, 0, 0, 16, 16, 0, 0, 0, 0]


def test_every_image_is_parsed_by_its_own_spec() -> None:
    rng = np.random.default_rng(2)
    small, coarse = random_scene(rng, 4), random_scene(rng, 3)
    large = Scene(4, (ShapeInstance(1, 2, "pink", "heart", "small"),))
    images = [render(large, 64), render(small, 48), render(coarse, 48), render(small, 32)]
    specs = [{"grid": 4, "world": "large"}, {"grid": 4}, {"grid": 3}, {"grid": 4, "world": "small"}]
    assert [one.scene for one in parse_with_specs(images, specs)] == [large, small, coarse, small]


@pytest.mark.parametrize(("grid", "canvas"), [(3, 24), (4, 32), (4, 64), (5, 80), (4, 384)])
def test_reads_back_what_was_rendered(grid: int, canvas: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        scene = random_scene(rng, grid)
        parsed = parse_scene(render(scene, canvas), grid)
        assert parsed.scene == scene
        assert not parsed.unreadable


def test_templates_are_far_apart() -> None:
    # Any two legal cells differ by more than twice the tolerance would allow if they were to be confused.
    _, cells = templates(8)
    flat = cells.reshape(len(cells), -1)
    distance = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1))
    assert distance[~np.eye(len(cells), dtype=bool)].min() > 32


def test_a_right_image_is_right() -> None:
    assert result(image(ShapeInstance(1, 2, "red", "circle"))).correct


def test_small_noise_is_forgiven() -> None:
    pixels = image(ShapeInstance(1, 2, "red", "circle")) + np.random.default_rng(0).normal(0, 6, (32, 32, 3))
    assert result(pixels.clip(0, 255)).correct


@pytest.mark.parametrize("share", [0.75, 0.5, 0.3])
def test_pale_and_blended_shapes_raise(share: float) -> None:
    background, drawn = image(), image(ShapeInstance(1, 2, "red", "circle"))
    pale = result(share * drawn + (1 - share) * background)
    assert not pale.correct
    blended = result(share * drawn + (1 - share) * image(ShapeInstance(1, 2, "blue", "circle")))
    assert not blended.correct
    assert "match no known" in pale.reason


def test_off_palette_colour_raises() -> None:
    pixels = image()
    cover = (cell_pixels("circle", "red", 8) != np.array(BACKGROUND)).any(-1)
    pixels[8:16, 16:24][cover] = (255, 140, 0)  # orange is not in the palette
    assert not result(pixels).correct


@pytest.mark.parametrize("part", [np.s_[8:12], np.s_[12:16]])
def test_half_drawn_shape_raises(part: slice) -> None:
    pixels = image(ShapeInstance(1, 2, "red", "circle"))
    pixels[part] = BACKGROUND
    assert not result(pixels).correct


def test_shape_across_two_cells_raises() -> None:
    assert not result(np.roll(image(ShapeInstance(1, 2, "red", "circle")), 4, axis=1)).correct


def test_two_halves_do_not_make_a_shape() -> None:
    pixels = image(ShapeInstance(1, 2, "red", "circle"))
    pixels[12:16, 16:24] = image(ShapeInstance(1, 2, "red", "square"))[12:16, 16:24]
    assert not result(pixels).correct


def test_a_small_stray_mark_in_a_large_cell_raises() -> None:
    # 6 x 6 pixels in a cell of 96 x 96 drown in the cell's mean (12 of 16 allowed): the block of 24 x 24 shows them.
    pixels = image(ShapeInstance(1, 2, "red", "circle"), canvas=384)
    pixels[300:306, 4:10] = COLOURS["black"]
    assert not result(pixels).correct


@pytest.mark.parametrize("canvas", [32, 96, 384])
def test_a_stray_mark_raises_at_any_size(canvas: int) -> None:
    pixels = image(ShapeInstance(1, 2, "red", "circle"), canvas=canvas)
    side = max(1, canvas // 4 // 6)
    pixels[canvas - side - 2 : canvas - 2, 2 : 2 + side] = COLOURS["black"]
    assert not result(pixels).correct


def test_extra_object_raises() -> None:
    got = result(image(ShapeInstance(1, 2, "red", "circle"), ShapeInstance(0, 0, "blue", "square")))
    assert not got.correct
    assert got.partial == pytest.approx(0.5)  # one object asked and there, two marks found


def test_wrong_count_colour_and_shape() -> None:
    assert result(image()).partial == 0.0
    assert not result(image(ShapeInstance(1, 2, "blue", "circle"))).correct
    assert not result(image(ShapeInstance(1, 2, "red", "square"))).correct
    two = {**RED_CIRCLE, "groups": [{"count": 2, "shape": "circle", "colour": "red"}]}
    half = result(image(ShapeInstance(1, 2, "red", "circle")), two)
    assert (half.correct, half.partial) == (False, 0.5)


def test_relation_decides_and_halves_the_partial_score() -> None:
    groups = [{"count": 1, "shape": "circle", "colour": None}, {"count": 1, "shape": "cross", "colour": None}]
    circle, cross = ShapeInstance(2, 0, "red", "circle"), ShapeInstance(1, 3, "black", "cross")
    for relation, holds in (("left of", True), ("right of", False), ("above", False), ("below", True)):
        spec = {"category": "position", "grid": 4, "groups": groups, "relation": relation}
        got = result(image(circle, cross), spec)
        assert got.correct is holds
        assert got.partial == (1.0 if holds else 0.5)


def test_other_image_sizes() -> None:
    wide = Image.new("RGB", (32, 16), BACKGROUND)
    assert len(parse_scene(wide, 4).unreadable) == 16
    assert not verify(parse_scene(Image.new("RGB", (30, 30)), 4), RED_CIRCLE).correct
    assert verify_image(render(Scene(4, (ShapeInstance(1, 2, "red", "circle"),)), 384), RED_CIRCLE).correct
