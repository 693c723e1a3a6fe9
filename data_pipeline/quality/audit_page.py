"""The audit as one page that needs nothing beside it."""

from pathlib import Path
from typing import Any

import jinja2

from data_pipeline.quality.charts import Axes, bars, dot, frame, polyline, upright

TEMPLATE = Path(__file__).with_name("audit.html")
GOOD, BAD, ALL, LINE = "var(--good)", "var(--bad)", "var(--accent)", "var(--muted)"


def audit_page(record: dict[str, Any]) -> str:
    """The page of an audit record."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        **record,
        plots={
            "all": all_scores(record["histogram"], record["model"]["min_score"]),
            "labelled": labelled_scores(record["histogram"], record["model"]["min_score"]),
            "reliability": reliability_plot(record["metrics"]["reliability"]),
            "thresholds": thresholds_plot(record["curve"], record["model"]["min_score"]),
        },
    )


def all_scores(histogram: dict[str, Any], min_score: float) -> str:
    """How many documents have which score."""
    counts = histogram["all"]
    axes = Axes(0, 5, 0, max(*counts, 1) * 1.05, "score", "documents")
    inside = bars(axes, histogram["edges"], counts, [0.0] * len(counts), ALL, "documents")
    return frame(axes, "Scores of all documents", [*inside, upright(axes, min_score, f"min_score {min_score:g}")])


def labelled_scores(histogram: dict[str, Any], min_score: float) -> str:
    """Scores of labelled documents, good ones standing on the others."""
    good, bad = histogram["good"], histogram["bad"]
    top = max(one + other for one, other in zip(good, bad, strict=True))
    axes = Axes(0, 5, 0, max(top, 1) * 1.05, "score", "labelled documents")
    inside = bars(axes, histogram["edges"], bad, [0.0] * len(bad), BAD, "others")
    inside += bars(axes, histogram["edges"], good, bad, GOOD, "good")
    legend = ((GOOD, "label at or above the threshold"), (BAD, "below"))
    return frame(axes, "Scores by label", [*inside, upright(axes, min_score, "")], legend)


def reliability_plot(table: list[dict[str, float]]) -> str:
    """What share came true of what was said; the larger a dot, the more documents."""
    axes = Axes(0, 1, 0, 1, "probability said", "share that came true")
    most = max((one["documents"] for one in table), default=1)
    inside = [polyline(axes, [(0, 0), (1, 1)], LINE), polyline(axes, [(one["said"], one["true"]) for one in table], ALL)]
    for one in table:
        hint = f"said {one['said']:.2f}, true {one['true']:.2f}, {one['documents']} documents"
        inside.append(dot(axes, one["said"], one["true"], 3 + 7 * (one["documents"] / most) ** 0.5, ALL, hint))
    return frame(axes, "Reliability", inside)


def thresholds_plot(curve: dict[str, list[float]], min_score: float) -> str:
    """Precision, recall and F1 over the threshold."""
    axes = Axes(0, 5, 0, 1, "min_score", "share")
    names = (("precision", ALL), ("recall", GOOD), ("f1", "var(--second)"))
    inside = [polyline(axes, list(zip(curve["threshold"], curve[name], strict=True)), colour) for name, colour in names]
    legend = tuple((colour, {"f1": "F1"}.get(name, name)) for name, colour in names)
    return frame(axes, "Precision and recall over the threshold", [*inside, upright(axes, min_score, "")], legend)
