"""run.html: a run at a look. Curves, layout, plan against actual, events; one file without anything from elsewhere."""

from html import escape
from math import isfinite, log10
from pathlib import Path
from typing import Any

from jinja2 import Environment

from data_pipeline.storage import atomic_write, read_json
from training.events import read_events
from training.metrics import read_metrics

TEMPLATE = Path(__file__).with_name("run_page.html")
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 220, 64, 26
MOST_POINTS = 600  # of a curve: more than the eye and the file need
CURVES = (
    ("loss", "Loss", "nats per token", False),
    ("grad_norm", "Gradient norm", "before clipping", True),
    ("learning_rate", "Learning rate", "", False),
    ("tokens_per_s", "Speed", "tokens/s", False),
    ("mfu_causal", "Utilisation", "model FLOPs over the peak, causal", False),
    ("memory_bytes", "Memory", "GiB, peak of the first rank", False),
)

Points = list[tuple[float, float]]


def write_page(out: Path) -> Path:
    """The page of the run in `out`, from the files that are there; replaced as a whole."""
    rows = read_metrics(out / "metrics.jsonl") if (out / "metrics.jsonl").exists() else []
    events = read_events(out)
    run = read_json(out / "run.json") if (out / "run.json").exists() else {}
    result = read_json(out / "result.json") if (out / "result.json").exists() else {}
    plan = read_json(out / "plan.json") if (out / "plan.json").exists() else None
    page = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = page.render(
        title=out.resolve().parent.name if out.name == "pretrain" else out.resolve().name,
        state=state_of(run, rows, result),
        tiles=tiles(run, rows, result),
        charts=[chart for chart in charts(rows, events) if chart],
        compared=plan_against_actual(plan, run, rows),
        parts=parts_table(rows),
        layout=layout_table(run),
        events=[event_row(event) for event in reversed(events) if event["kind"] != "checkpoint"][:200],
        checkpoints=[event for event in events if event["kind"] == "checkpoint"][-20:],
        settings=settings_table(run),
    )
    target = out / "run.html"
    with atomic_write(target, "w") as stream:
        stream.write(text)
    return target


def state_of(run: dict[str, Any], rows: list[dict[str, Any]], result: dict[str, Any]) -> str:
    if result:
        return "finished"
    done, steps = (rows[-1]["step"] if rows else 0), run.get("steps", 0)
    return f"step {done:,} of {steps:,}" if steps else "not begun"


def tiles(run: dict[str, Any], rows: list[dict[str, Any]], result: dict[str, Any]) -> list[tuple[str, str]]:
    """The run in a few numbers."""
    last = next((row for row in reversed(rows) if row["loss"] is not None), None)
    found = [("parameters", f"{run['parameters']:,}")] if "parameters" in run else []
    if last:
        found += [("last loss", f"{last['loss']:.3f}"), ("tokens", f"{last['tokens']:,}"), ("tokens/s", f"{last['tokens_per_s']:,.0f}")]
        if last.get("mfu_causal") is not None:
            found.append(("utilisation", f"{last['mfu_causal']:.1%} causal, {last['mfu_full']:.1%} full"))
        if last.get("left_out"):
            found.append(("updates left out", f"{last['left_out']:,}"))
    if "ranks" in run:
        found.append(("ranks", f"{run['ranks']:,}"))
    return found


def charts(rows: list[dict[str, Any]], events: list[dict[str, Any]]) -> list[dict[str, str] | None]:
    """Every curve that has points."""
    found = []
    for name, title, unit, logarithmic in CURVES:
        scale = 2**30 if name == "memory_bytes" else 1
        lines = {"training": [(row["step"], row[name] / scale) for row in rows if row.get(name) is not None]}
        if name == "loss":
            lines |= evaluations(events, "validation/")
        marks = [event["step"] for event in events if event["kind"] in ("spike", "rewound", "restarted", "resumed")]
        found.append(chart(title, unit, lines, logarithmic, marks))
    found.append(chart("Questions", "part answered rightly", evaluations(events, "questions/accuracy"), False, []))
    return found


def evaluations(events: list[dict[str, Any]], prefix: str) -> dict[str, Points]:
    """What evaluations have said, by name, of names that begin so."""
    lines: dict[str, Points] = {}
    for event in events:
        if event["kind"] == "evaluated":
            for key, value in event.items():
                if key.startswith(prefix):
                    lines.setdefault(key, []).append((event["step"], value))
    return lines


def chart(title: str, unit: str, lines: dict[str, Points], logarithmic: bool, marks: list[int]) -> dict[str, str] | None:
    """One chart as SVG; None without two points."""
    good = {name: thinned([(x, y) for x, y in points if isfinite(y) and (y > 0 or not logarithmic)]) for name, points in lines.items()}
    flat = [point for points in good.values() for point in points]
    if len(flat) < 2:
        return None
    high, low = (function(y for _, y in flat) for function in (max, min))
    scaled = (lambda y: log10(y)) if logarithmic else (lambda y: y)
    top, bottom = scaled(high), scaled(low)
    span = (top - bottom) or abs(top) or 1.0
    top, bottom = top + 0.05 * span, bottom - 0.05 * span
    first, last = min(x for x, _ in flat), max(x for x, _ in flat)

    def place(x: float, y: float) -> str:
        across = LEFT + (x - first) / ((last - first) or 1) * (WIDTH - LEFT - 8)
        return f"{across:.1f},{8 + (top - scaled(y)) / (top - bottom) * (HEIGHT - BOTTOM - 8):.1f}"

    parts = []
    for tick in range(4):
        value = bottom + (top - bottom) * (tick + 0.5) / 4
        y = 8 + (top - value) / (top - bottom) * (HEIGHT - BOTTOM - 8)
        label = short(10**value if logarithmic else value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for anchor, x, text in (("start", LEFT, first), ("end", WIDTH - 8, last)):
        parts.append(f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="{anchor}">step {text:,.0f}</text>')
    for mark in marks:
        if first <= mark <= last:
            x = LEFT + (mark - first) / ((last - first) or 1) * (WIDTH - LEFT - 8)
            parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{HEIGHT - BOTTOM}"/>')
    for number, points in enumerate(good.values()):
        path = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline class="line line{min(number, 3)}" points="{path}"/>')
    names = " · ".join(f"{escape(name)}" for name, points in good.items() if points) if len(good) > 1 else ""
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return {"title": title, "unit": unit + (f" ({names})" if names else ""), "svg": svg}


def thinned(points: Points) -> Points:
    """At most MOST_POINTS of them, the last included."""
    step = max(1, -(-len(points) // MOST_POINTS))
    return points[::step] + ([points[-1]] if points and (len(points) - 1) % step else [])


def short(value: float) -> str:
    """A number for an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def plan_against_actual(plan: dict[str, Any] | None, run: dict[str, Any], rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """What was planned, and what is."""
    if plan is None:
        return []
    found = [("parameters", f"{plan['parameters']:,}", f"{run.get('parameters', 0):,}")]
    if rows:
        where = "the GPU's peak" if plan["device"] else "the whole process's peak, libraries included"
        actual = f"{rows[-1].get('memory_bytes', 0) / 2**30:.2f} ({where})"
        found.append(("GiB of the fullest rank", f"{plan['memory']['total'] / 2**30:.2f}", actual))
    if rows and plan["tokens_per_s"]:
        slow, fast = sorted(plan["tokens_per_s"])
        found.append(("tokens/s (modelled)", f"{slow:,.0f} to {fast:,.0f}", f"{rows[-1]['tokens_per_s']:,.0f}"))
    if plan["traffic"]:
        found.append(("bytes a rank sends per step", f"{sum(one['bytes'] for one in plan['traffic']):,.0f}", ""))
    return found


def parts_table(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Seconds by part over all rows, and their shares."""
    total: dict[str, float] = {}
    for row in rows:
        for part, seconds in row.get("seconds_by_part", {}).items():
            total[part] = total.get(part, 0.0) + seconds
    whole = sum(total.values()) or 1.0
    return [(part, f"{seconds:,.1f} s", f"{seconds / whole:.1%}") for part, seconds in sorted(total.items(), key=lambda one: -one[1])]


def layout_table(run: dict[str, Any]) -> list[tuple[str, str]]:
    layout = run.get("job", {}).get("layout", {})
    more = {name: run[name] for name in ("ranks", "precision", "attention", "device") if name in run}
    return [(name, str(value)) for name, value in {**more, **layout}.items()]


def settings_table(run: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in run.get("job", {}).get("recipe", {}).items()]


def event_row(event: dict[str, Any]) -> tuple[str, str, str]:
    """Step, kind and the rest in words."""
    rest = {name: value for name, value in event.items() if name not in ("time", "kind", "step")}
    return f"{event['step']:,}", event["kind"], in_words(rest)[:400]


def in_words(values: dict[str, Any]) -> str:
    """Names and values, those of tables within in brackets."""
    shown = []
    for name, value in values.items():
        text = f"({in_words(value)})" if isinstance(value, dict) else f"{value:.4g}" if isinstance(value, float) else f"{value}"
        shown.append(f"{name} {text}")
    return ", ".join(shown)
