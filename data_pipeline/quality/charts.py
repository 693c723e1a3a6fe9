"""Small plots as inline SVG: text stays text, colours are the page's variables, the same numbers give the same bytes."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 26, 44


class Axes(NamedTuple):
    """The plane of a plot: bounds of both axes, and their titles."""

    x0: float
    x1: float
    y0: float
    y1: float
    x_title: str
    y_title: str

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.x0) / (self.x1 - self.x0)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.y0) / (self.y1 - self.y0)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round places between the bounds."""
    rough = (high - low) / about
    size = 10.0 ** len(str(int(rough))) / 10 if rough >= 1 else 1.0
    while size > rough:
        size /= 10
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.99)
    first = int(low / step - 1e-9) if low < 0 else int(-(-low // step))
    return [round(number * step, 10) for number in range(first, int(high / step + 1e-9) + 1)]


def frame(axes: Axes, title: str, inside: Sequence[str], legend: Sequence[tuple[str, str]] = ()) -> str:
    """The whole <svg>: grid, numbers, titles, then what is inside; `legend` is (colour, name) pairs."""
    lines = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">']
    lines.append(f"<title>{escape(title)}</title>")
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in ticks(axes.y0, axes.y1):
        y = axes.y(value)
        lines.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
        lines.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end" class="tick">{value:,g}</text>')
    for value in ticks(axes.x0, axes.x1):
        lines.append(f'<text x="{axes.x(value):.1f}" y="{bottom + 16}" text-anchor="middle" class="tick">{value:,g}</text>')
    lines.append(f'<line x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="var(--muted)"/>')
    lines.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle" class="axis">{escape(axes.x_title)}</text>')
    middle = (TOP + bottom) / 2
    lines.append(
        f'<text x="13" y="{middle}" text-anchor="middle" transform="rotate(-90 13 {middle})" class="axis">{escape(axes.y_title)}</text>'
    )
    place = float(LEFT)
    for colour, name in legend:
        lines.append(f'<rect x="{place:.0f}" y="7" width="10" height="10" rx="2" fill="{colour}"/>')
        lines.append(f'<text x="{place + 15:.0f}" y="16" class="tick">{escape(name)}</text>')
        place += 30 + 6.4 * len(name)
    return "\n".join([*lines, *inside, "</svg>"])


def polyline(axes: Axes, points: Sequence[tuple[float, float]], colour: str) -> str:
    """A line through points."""
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'


def dot(axes: Axes, x: float, y: float, radius: float, colour: str, hint: str) -> str:
    """A point with a hint that shows on hovering."""
    return (
        f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.8">'
        f"<title>{escape(hint)}</title></circle>"
    )


def upright(axes: Axes, x: float, name: str) -> str:
    """A dashed line across the plot with a name."""
    place, side = axes.x(x), "start" if axes.x(x) < WIDTH * 0.75 else "end"
    shift = 5 if side == "start" else -5
    return (
        f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="var(--ink)" stroke-dasharray="4 3"/>'
        f'<text x="{place + shift:.1f}" y="{TOP + 11}" text-anchor="{side}" class="tick">{escape(name)}</text>'
    )


def bars(axes: Axes, edges: Sequence[float], heights: Sequence[float], floors: Sequence[float], colour: str, unit: str) -> list[str]:
    """Bars between neighbouring edges that stand on `floors`; empty ones are left out."""
    drawn = []
    for left, right, height, floor in zip(edges, edges[1:], heights, floors, strict=False):
        if height:
            x, y = axes.x(left), axes.y(floor + height)
            wide, high = axes.x(right) - x, axes.y(floor) - y
            hint = f"{left:.2f} to {right:.2f}: {height:,.0f} {unit}"
            drawn.append(
                f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{wide - 1:.1f}" height="{high:.1f}" fill="{colour}">'
                f"<title>{hint}</title></rect>"
            )
    return drawn
