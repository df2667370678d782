"""Curves as inline SVG: axes with ticks, series with an interval band, hover titles. No smoothing.

Colours are classes (`s0`, `s1`, ...), which the page's style sheet defines for light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from motet.core.printable import printable

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 12, 30
MAX_POINTS, MAX_TITLES, COLOURS = 400, 60, 8


@dataclass(frozen=True)
class Series:
    """A curve: points (x, y, half-width of its interval or None). `colour` is the number of its class."""

    label: str
    points: Sequence[tuple[float, float, float | None]]
    colour: int = 0

    def thinned(self) -> tuple[Series, int]:
        """At most MAX_POINTS points, each the mean of that many steps; and that number."""
        each = math.ceil(len(self.points) / MAX_POINTS)
        if each <= 1:
            return self, 1
        chunks = [self.points[i : i + each] for i in range(0, len(self.points), each)]
        means = [
            (
                sum(x for x, _, _ in chunk) / len(chunk),
                sum(y for _, y, _ in chunk) / len(chunk),
                None
                if any(half is None for _, _, half in chunk)
                else sum(half or 0 for _, _, half in chunk) / len(chunk),
            )
            for chunk in chunks
        ]
        return Series(self.label, means, self.colour), each


@dataclass(frozen=True)
class Chart:
    """A chart to show: its title, the SVG, and what a reader must know to read it."""

    title: str
    svg: Markup
    note: str
    last: str
    labels: tuple[tuple[str, int], ...]
    """The series by name and colour."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float | int) -> str:
    """A number as short as it can be read: `0.35`, `1200`, `2.5e-05`."""
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    text = f"{value:.4g}"
    return f"{float(text):.10g}"


def line_chart(title: str, series: Sequence[Series], note: str = "") -> Chart:
    """A chart of curves over steps. Points that are not finite are left out."""
    title = printable(title)
    finite = [Series(printable(s.label), [p for p in s.points if math.isfinite(p[1])], s.colour) for s in series]
    pairs = [s.thinned() for s in finite if s.points]
    drawn, each = [s for s, _ in pairs], max((n for _, n in pairs), default=1)
    notes = [note, f"each point is the mean of {each} steps" if each > 1 else ""]
    last = number(drawn[0].points[-1][1]) if len(drawn) == 1 else ""
    labels = tuple((s.label, s.colour % COLOURS) for s in drawn)
    return Chart(title, _svg(title, drawn), "; ".join(n for n in notes if n), last, labels)


class _Axes:
    """Data to pixels."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self.x0, self.x1 = min(xs), max(xs)
        low, high = min(ys), max(ys)
        pad = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
        self.y0 = low if low == 0 else low - pad
        self.y1 = high + pad
        if low >= 0 > self.y0:
            self.y0 = 0.0

    def x(self, value: float) -> float:
        span = self.x1 - self.x0
        inner = WIDTH - LEFT - RIGHT
        return LEFT + (inner / 2 if span == 0 else inner * (value - self.x0) / span)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.y0) / (self.y1 - self.y0)


def _svg(title: str, series: Sequence[Series]) -> Markup:
    if not series:
        return Markup("")
    points = [p for s in series for p in s.points]
    spread = [y + sign * (half or 0) for _, y, half in points for sign in (-1, 1)]
    axes = _Axes([x for x, _, _ in points], spread)
    parts = [*_grid(axes)]
    for s in series:
        parts += _curve(axes, s)
    parts += _hover(axes, series)
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}" preserveAspectRatio="xMidYMid meet">{}</svg>'
    ).format(WIDTH, HEIGHT, title, Markup("").join(parts))


def _grid(axes: _Axes) -> list[Markup]:
    line = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    text = Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts: list[Markup] = []
    for value in ticks(axes.y0, axes.y1, 4):
        y = axes.y(value)
        parts += [line.format("grid", LEFT, y, right, y), text.format(LEFT - 7, y + 3.5, "end", number(value))]
    for value in ticks(axes.x0, axes.x1, 5):
        if value != int(value):
            continue
        x = axes.x(value)
        anchor = "end" if x > right - 8 else "middle"
        parts += [line.format("axis", x, bottom, x, bottom + 4), text.format(x, bottom + 17, anchor, number(value))]
    return [*parts, line.format("axis", LEFT, bottom, right, bottom)]


def _curve(axes: _Axes, series: Series) -> list[Markup]:
    colour = f"s{series.colour % COLOURS} d{series.colour // COLOURS % 3}"
    places = [(axes.x(x), axes.y(y)) for x, y, _ in series.points]
    parts: list[Markup] = []
    with_band = [(x, y, half) for x, y, half in series.points if half is not None]
    if len(with_band) > 1:
        upper = [f"{axes.x(x):.1f},{axes.y(y + half):.1f}" for x, y, half in with_band]
        lower = [f"{axes.x(x):.1f},{axes.y(y - half):.1f}" for x, y, half in reversed(with_band)]
        parts.append(Markup('<polygon class="band {}" points="{}"/>').format(colour, " ".join([*upper, *lower])))
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(Markup('<polyline class="curve {}" points="{}"/>').format(colour, joined))
    if len(places) <= 25:
        dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.4"/>')
        parts += [dot.format(colour, x, y) for x, y in places]
    return parts


def _hover(axes: _Axes, series: Sequence[Series]) -> list[Markup]:
    """Upright strips whose titles give the values at their steps."""
    steps = sorted({x for s in series for x, _, _ in s.points})
    chosen = steps[:: max(1, math.ceil(len(steps) / MAX_TITLES))]
    values = [{x: (y, half) for x, y, half in s.points} for s in series]
    edges = [axes.x(x) for x in chosen]
    parts: list[Markup] = []
    for n, (step, x) in enumerate(zip(chosen, edges, strict=True)):
        left = (edges[n - 1] + x) / 2 if n else float(LEFT)
        right = (edges[n + 1] + x) / 2 if n + 1 < len(edges) else float(WIDTH - RIGHT)
        lines = [f"step {number(step)}"]
        for s, own in zip(series, values, strict=True):
            if step in own:
                value, half = own[step]
                name = f"{s.label}: " if len(series) > 1 else ""
                lines.append(f"{name}{number(value)}" + ("" if half is None else f" ± {number(half)}"))
        strip = Markup('<rect class="hover" x="{:.1f}" y="{}" width="{:.1f}" height="{}"><title>{}</title></rect>')
        parts.append(strip.format(left, TOP, max(right - left, 0.1), HEIGHT - TOP - BOTTOM, "\n".join(lines)))
    return parts
