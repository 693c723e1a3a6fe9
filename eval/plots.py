"""The report's plots as inline SVG. Colours are CSS variables of the page, so that a plot follows its light or dark theme."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

# Drawn in these, then replaced by the page's variables.
INKS = {"#010101": "var(--ink)", "#020202": "var(--muted)", "#030303": "var(--line)", "#040404": "var(--card)"}
MODEL_INKS = {"base": "#050505", "sft": "#060606", "dpo": "#070707", "int4": "#080808"}
INKS |= {colour: f"var(--{model})" for model, colour in MODEL_INKS.items()}
INK, MUTED, LINE, CARD = list(INKS)[:4]
MODEL_LABELS = {"base": "base", "sft": "SFT", "dpo": "DPO", "int4": "4-bit"}
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, and in the page's font
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def svg(name: str, draw: Callable[[Any], None], width: float = 4.6, height: float = 3.0) -> str:
    """The figure that `draw` makes, as an <svg> element that scales with its box; equal data, equal bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure = pyplot.figure(figsize=(width, height), layout="constrained")
        try:
            draw(figure)
            stream = io.StringIO()
            figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
        finally:
            pyplot.close(figure)
    return themed(stream.getvalue(), name)


def themed(source: str, name: str) -> str:
    """The <svg> element alone, without fixed size or metadata, its colours replaced; ids are made the figure's own."""
    text = source[source.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', text)
    for colour, variable in INKS.items():
        text = text.replace(colour, variable)
    return text.strip()


def loss_curve(name: str, rows: Sequence[dict[str, Any]], across: str = "tokens", colour: str = MODEL_INKS["base"]) -> str:
    """Loss over tokens or steps; phases, where the rows name them, as labelled spans."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        scale = 1e6 if across == "tokens" and rows[-1][across] >= 1e6 else 1
        x = [row[across] / scale for row in rows]
        axes.plot(x, [row["loss"] for row in rows], color=colour, linewidth=1.8)
        axes.set_xlabel(f"{across}{', millions' if scale > 1 else ''}")
        axes.set_ylabel("loss, nats")
        names = list(dict.fromkeys(row.get("phase", "") for row in rows))
        for number, phase in enumerate(names if len(names) > 1 else []):
            inside = [value for value, row in zip(x, rows, strict=True) if row.get("phase") == phase]
            if number:
                axes.axvline(inside[0], color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
            label = re.sub(r"^(phase \d+):.*", r"\1", phase)
            axes.annotate(
                label, (inside[0], 1), xycoords=("data", "axes fraction"), xytext=(4, -10), textcoords="offset points", color=MUTED
            )

    return svg(name, draw)


def preference_curve(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """DPO's loss and the share of training pairs whose chosen answer gained more than the rejected one."""

    def draw(figure: Any) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True)
        x = [row["step"] for row in rows]
        top.plot(x, [row["loss"] for row in rows], color=MODEL_INKS["dpo"], linewidth=1.8)
        top.set_ylabel("loss, nats")
        bottom.plot(x, [row.get("rewards/accuracies") for row in rows], color=MODEL_INKS["dpo"], linewidth=1.8)
        bottom.axhline(0.5, color=MUTED, linestyle=(0, (3, 3)), linewidth=1)
        bottom.set_ylim(0, 1.02)
        bottom.set_ylabel("chosen ahead")
        bottom.set_xlabel("step")

    return svg(name, draw)


def overall(scores: dict[str, dict[str, Any]]) -> str:
    """Accuracy of every model by letter (hollow) and by option text (filled), Wilson 95 % intervals, chance as a line."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for place, (model, score) in enumerate(scores.items()):
            colour = MODEL_INKS.get(model, INK)
            for shift, prefix, fill in ((-0.08, "letter_", CARD), (0.08, "text_", colour)):
                value = 100 * score[f"{prefix}accuracy"]
                low, high = value - 100 * score[f"{prefix}low"], 100 * score[f"{prefix}high"] - value
                style = {"color": colour, "markerfacecolor": fill, "markersize": 8, "elinewidth": 2}
                axes.errorbar(place + shift, value, yerr=[[max(low, 0)], [max(high, 0)]], fmt="o" if fill == colour else "s", **style)
                side = {"xytext": (-7, -3), "ha": "right"} if shift < 0 else {"xytext": (7, -3)}
                axes.annotate(f"{value:.1f}", (place + shift, value), textcoords="offset points", fontsize=9, **side)
        chance_line(axes.axhline, scores)
        axes.set_xticks(range(len(scores)), [MODEL_LABELS.get(model, model) for model in scores], color=INK)
        axes.set_xlim(-0.6, len(scores) - 0.4)
        axes.set_ylim(0, 102)
        axes.set_ylabel("right, %")
        axes.grid(axis="x", visible=False)

    return svg("overall", draw)


def by_family(families: dict[str, dict[str, dict[str, Any]]], prefix: str) -> str:
    """Accuracy per family and model with 95 % intervals, one scoring: `prefix` "letter_" or "text_"."""
    names = sorted({family for scores in families.values() for family in scores})

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for number, (model, scores) in enumerate(families.items()):
            shift = (number - (len(families) - 1) / 2) * 0.18
            colour = MODEL_INKS.get(model, INK)
            for place, family in enumerate(names):
                if family in scores:
                    score = scores[family]
                    value = 100 * score[f"{prefix}accuracy"]
                    low, high = value - 100 * score[f"{prefix}low"], 100 * score[f"{prefix}high"] - value
                    axes.errorbar(
                        value, place + shift, xerr=[[max(low, 0)], [max(high, 0)]], fmt="o", color=colour, markersize=5, elinewidth=1.4
                    )
            axes.plot([], [], "o", color=colour, label=MODEL_LABELS.get(model, model))
        chance_line(axes.axvline, next(iter(families.values())))
        axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], color=INK)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 102)
        axes.set_xlabel("right, %")
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside upper center", ncols=4)

    return svg(f"families-{prefix}".rstrip("_"), draw, height=1.2 + 0.42 * len(names))


def chance_line(line: Callable[..., Any], scores: dict[str, dict[str, Any]]) -> None:
    chance = next(iter(scores.values())).get("chance")
    if chance is not None:
        line(100 * chance, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)


def differences(paired: dict[str, dict[str, Any]]) -> str:
    """Paired differences in points with their exact intervals around zero."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for place, (name, found) in enumerate(paired.items()):
            value = found["points"]
            bars = [[max(value - found["low"], 0)], [max(found["high"] - value, 0)]]
            axes.errorbar(value, place, xerr=bars, fmt="o", color=MODEL_INKS.get(name.split("_minus_")[0], INK), markersize=8, elinewidth=2)
            axes.annotate(f"{value:+.2f}", (value, place), xytext=(0, 9), textcoords="offset points", ha="center")
        axes.axvline(0, color=MUTED, linewidth=1.2)
        labels = [" − ".join(MODEL_LABELS.get(part, part) for part in name.split("_minus_")) for name in paired]
        axes.set_yticks(range(len(paired)), labels, color=INK)
        axes.set_ylim(len(paired) - 0.4, -0.6)
        axes.set_xlabel("difference on the same items, percentage points")
        axes.grid(axis="y", visible=False)

    return svg("differences", draw, height=0.9 + 0.6 * len(paired))
