"""The scaling benchmark's picture: measured bars, counted bars, and modelled curves, which are dashed and say so."""

from pathlib import Path
from typing import Any

from data_pipeline.storage import atomic_write

MEASURED, PLAIN, COUNTED = "#1f5f8b", "#a9c4d6", "#5b8c5a"
CURVES = ("#b3541e", "#7a4e9c", "#c9971c", "#3d7d7d", "#8a8a8a")
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "scaling",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


def draw(record: dict[str, Any], path: Path) -> None:
    """Four panels, of those parts that the record has."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = record["parts"]
    with matplotlib.rc_context(SETTINGS):
        figure, panels = pyplot.subplots(2, 2, figsize=(12.5, 7.6), layout="constrained")
        try:
            efficiencies(panels[0, 0], parts)
            fewer_bytes(panels[0, 1], parts)
            fields(panels[1, 0], parts)
            decoders(panels[1, 1], parts)
            with atomic_write(path, "wb") as stream:
                figure.savefig(stream, format=path.suffix.lstrip(".") or "svg", metadata={"Date": None} if path.suffix == ".svg" else None)
        finally:
            pyplot.close(figure)


def efficiencies(panel: Any, parts: dict[str, Any]) -> None:
    """Weak scaling on two ranks, fair and plain."""
    panel.set_title("measured: weak scaling on 2 ranks of one thread")
    rows = [(name, way["weak"]) for name, way in parts.get("decoder", {}).get("ways", {}).items()]
    rows += [(f"FNO, {name}", way) for name, way in parts.get("fno", {}).get("ways", {}).items() if name.startswith("weak")]
    for place, (_, one) in enumerate(rows):
        for offset, key, colour in ((-0.19, "efficiency_fair", MEASURED), (0.19, "efficiency_plain", PLAIN)):
            value = one[key]
            panel.barh(place + offset, value["median"], 0.36, color=colour)
            panel.plot([value["low"], value["high"]], [place + offset] * 2, color="black", linewidth=1)
            panel.text(
                0.01, place + offset, f"{value['median']:.2f}", va="center", color="white" if colour == MEASURED else "black", fontsize=8
            )
    panel.set_yticks(range(len(rows)), [name for name, _ in rows])
    panel.invert_yaxis()
    panel.axvline(0.9, color="black", linestyle=":", linewidth=1)
    panel.set_xlabel("T1 / T2; T1 dark: the other core does the same work, light: idle", fontsize=8)
    panel.set_xlim(0, 1.15)


def fewer_bytes(panel: Any, parts: dict[str, Any]) -> None:
    """How many times fewer bytes."""
    panel.set_title("counted: times fewer bytes sent per rank")
    found = parts.get("bytes")
    if found is None:
        return
    context = found["context"]
    rows = [
        (f"{name.split('-')[1]}: halo, not ring\n{context['tokens'] // 1024}k tokens, {context['ranks']} ranks", row["times_fewer_forward"])
        for name, row in context["bfloat16_bytes_per_rank_and_layer"].items()
    ]
    rows += [(f"{name}\nFNO on {row['ranks']} ranks, truncated first", row["times_fewer"]) for name, row in found["fno"]["fields"].items()]
    panel.barh(range(len(rows)), [value for _, value in rows], 0.6, color=COUNTED)
    for place, (_, value) in enumerate(rows):
        panel.text(value, place, f" {value:g}", va="center", fontsize=8)
    panel.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=7.5)
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.set_xlim(1, 3 * max(value for _, value in rows))


def fields(panel: Any, parts: dict[str, Any]) -> None:
    """Weak scaling of the field, between messages one after another and all at once."""
    panel.set_title("modelled: FNO of 4.2 million points per GPU")
    rows = [row for row in parts.get("modelled", {}).get("fno", {}).get("rows", []) if "impossible" not in row]
    for colour, layout in zip(CURVES, ("pencils", "fewest bytes"), strict=False):
        mine = [row for row in rows if row["layout"] == layout]
        gpus = [row["gpus"] for row in mine]
        low, high = ([row[way]["efficiency"] for row in mine] for way in ("messages_one_after_another", "messages_at_once"))
        panel.fill_between(gpus, low, high, color=colour, alpha=0.15, linewidth=0)
        for edge, mark in ((low, "v"), (high, "^")):
            panel.plot(gpus, edge, linestyle="--", marker=mark, markersize=3, color=colour, label=layout if edge is high else None)
    decorate(panel, bool(rows), "low edge: one message after another, high: all at once")


def decoders(panel: Any, parts: dict[str, Any]) -> None:
    """Weak scaling of the decoders by layout."""
    panel.set_title("modelled: decoders, 16,384 tokens per GPU")
    rows = [row for row in parts.get("modelled", {}).get("decoders", {}).get("rows", []) if row["scaling"] == "weak"]
    layouts = list(dict.fromkeys(row["layout"] for row in rows))
    for colour, layout in zip(CURVES, layouts, strict=False):
        for name, mark in (("mini", "o"), ("small", "s"), ("medium", "D")):
            mine = [row for row in rows if (row["layout"], row["decoder"]) == (layout, name)]
            if mine:
                gpus, values = [row["gpus"] for row in mine], [row["efficiency"] for row in mine]
                panel.plot(
                    gpus, values, linestyle="--", marker=mark, markersize=3.5, color=colour, label=layout if name == "mini" else None
                )
    decorate(panel, bool(rows), "circle mini, square small, diamond medium")


def decorate(panel: Any, filled: bool, note: str) -> None:
    if not filled:
        return
    panel.set_xscale("log", base=2)
    panel.set_ylim(0, 1.05)
    panel.set_xlabel(f"GPUs ({note})", fontsize=8)
    panel.set_ylabel("weak-scaling efficiency", fontsize=8)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.legend(fontsize=7, loc="lower left")
