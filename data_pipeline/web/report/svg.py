"""The report's plots as SVG written by hand: small, in the page's colours and font, equal bytes for equal data."""

from collections.abc import Sequence
from html import escape

import numpy as np

from data_pipeline.web.report.histograms import Histogram
from data_pipeline.web.report.survey import DROPPED_BY_IT, KEPT

WIDTH, HEIGHT = 340, 150
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 8, 20


def spot(value: float) -> str:
    """A coordinate: two digits suffice on a screen."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def short(value: float) -> str:
    """A number for an axis: 1,234, 12k, 3.4M, 0.05."""
    if value != value:
        return ""
    for scale, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= scale:
            return f"{value / (1e3 if unit == 'k' else scale):.3g}{unit}"
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def label(x: float, y: float, words: str, anchor: str = "middle", kind: str = "tick") -> str:
    return f'<text x="{spot(x)}" y="{spot(y)}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def figure(parts: Sequence[str], title: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    """The <svg> element; it scales with its box, and screen readers get the title."""
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title, quote=True)}">{inside}</svg>'


def two_sided(one: Histogram) -> str:
    """Kept pages upwards, dropped ones downwards, those that this value dropped filled; heights by the square root of the pages."""
    bars = one.counts.shape[1]
    step = (WIDTH - LEFT - RIGHT) / bars
    up, down = one.counts[KEPT], one.counts[KEPT + 1 :].sum(0)
    tall, deep = np.sqrt([max(int(up.max()), 1), max(int(down.max()), 0)])
    room = HEIGHT - TOP - BOTTOM
    scale = room / (tall + max(deep, tall / 6))
    zero = TOP + tall * scale
    parts = []
    for bar in range(bars):
        x, wide = LEFT + bar * step, spot(max(step - 0.8, 0.6))
        for kind, count, below in (("keep", up[bar], False), ("drop", down[bar], True), ("fell", one.counts[DROPPED_BY_IT, bar], True)):
            if count:
                high = max(float(np.sqrt(count)) * scale, 0.8)
                top = zero if below else zero - high
                parts.append(f'<rect class="{kind}" x="{spot(x)}" y="{spot(top)}" width="{wide}" height="{spot(high)}"/>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{spot(zero)}" y2="{spot(zero)}"/>')
    for line in one.thresholds:
        x = place_of(one, line.value, step)
        kind = "clean" if line.clean else "limit"
        parts.append(f'<line class="{kind}" x1="{spot(x)}" x2="{spot(x)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for bar in sorted({0, bars // 2, bars}):
        anchor = "start" if bar == 0 else "end" if bar == bars else "middle"
        value = one.edges[bar]
        if np.allclose(np.diff(one.edges), 1) and one.edges[0] % 1 != 0:  # bars of single whole numbers
            value = value + 0.5 if bar < bars else value - 0.5
        parts.append(label(LEFT + bar * step, HEIGHT - 6, short(float(f"{value:.3g}")), anchor))
    return figure(parts, f"{one.name}: kept pages above the line, dropped pages below it")


def place_of(one: Histogram, value: float, step: float) -> float:
    """Where a value lies on the axis: inside its bar in proportion."""
    bar = int(np.clip(np.searchsorted(one.edges, value, side="right") - 1, 0, len(one.edges) - 2))
    low, high = one.edges[bar], one.edges[bar + 1]
    return LEFT + (bar + float(np.clip((value - low) / (high - low), 0, 1))) * step


def log_log(x: np.ndarray, y: np.ndarray, across: str, upward: str, line: bool = False) -> str:
    """Positive pairs on two log scales: dots, or a line."""
    width, height, left, bottom = 460, 260, 46, 38  # pixels of the drawing
    if not len(x):
        return ""
    ends = [max(float(np.ceil(np.log10(values.max() * 1.0001))), 1.0) for values in (x, y)]
    wide, tall = width - left - 24, height - bottom - 12
    parts = []
    for axis, end in enumerate(ends):
        for power in range(int(end) + 1):
            if power % max(1, int(end) // 6):
                continue
            at = left + wide * power / end if axis == 0 else 12 + tall * (1 - power / end)
            ends_of = (
                f'x1="{spot(at)}" x2="{spot(at)}" y1="12" y2="{12 + tall}"',
                f'x1="{left}" x2="{left + wide}" y1="{spot(at)}" y2="{spot(at)}"',
            )
            parts.append(f'<line class="grid" {ends_of[axis]}/>')
            where = (at, height - bottom + 16) if axis == 0 else (left - 6, at + 4)
            parts.append(label(*where, short(10.0**power), "middle" if axis == 0 else "end"))
    places = [
        (left + wide * np.log10(one) / ends[0], 12 + tall * (1 - np.log10(other) / ends[1]))
        for one, other in zip(x.tolist(), y.tolist(), strict=True)
    ]
    if line:
        parts.append(f'<polyline class="curve" points="{" ".join(f"{spot(one)},{spot(other)}" for one, other in places)}"/>')
    else:
        parts += [f'<circle class="dot" cx="{spot(one)}" cy="{spot(other)}" r="2.6"/>' for one, other in places]
    parts.append(label(left + wide / 2, height - 4, across))
    parts.append(f'<text class="tick" text-anchor="middle" transform="translate(11 {12 + tall / 2}) rotate(-90)">{escape(upward)}</text>')
    return figure(parts, f"{upward} over {across}", width, height)


def thinned(x: np.ndarray, y: np.ndarray, each: float = 1.04) -> tuple[np.ndarray, np.ndarray]:
    """At most one point per step of a log scale: rising x, the first of each step stays."""
    steps = np.floor(np.log(x) / np.log(each))
    keep = np.r_[True, steps[1:] != steps[:-1]] if len(x) else np.zeros(0, bool)
    return x[keep], y[keep]
