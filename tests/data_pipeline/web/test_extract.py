"""The extraction door: charsets, garbage, pathological pages, layouts made of tables, and the F1 on annotated pages where they are."""

import gzip
import json
import random
from pathlib import Path

import pytest

import data_pipeline
from data_pipeline.web.extract import MAX_DEPTH, extract, extract_page

GOLD = Path(__file__).resolve().parents[4] / "shared" / "data" / "web_pages"
PROSE = "The miller remembers the flood, and the bridge that was built after it stands to this day. "
ARTICLE = (
    "<html><head><title>t</title></head><body><nav><a href=/>Home</a> <a href=/n>News</a></nav><article><h1>The bridge</h1>"
    f"<p>{PROSE * 4}</p><p>It cost less than feared.</p></article><footer>Imprint</footer></body></html>"
)


def test_the_door() -> None:
    text = data_pipeline.extract(ARTICLE.encode(), "http://site.example/")
    assert "The miller remembers the flood" in text
    assert "It cost less than feared." in text
    assert "Home" not in text
    assert "Imprint" not in text


def test_charsets_are_honoured() -> None:
    page = ARTICLE.replace("miller", "Müller – Jørgen")
    assert "Müller" in extract(page.encode("utf-8"))
    assert "Müller" in extract(page.replace("<head>", '<head><meta charset="windows-1252">').encode("cp1252"))
    assert "Müller" in extract(b"\xff\xfe" + page.encode("utf-16-le"))
    assert "Müller" in extract_page(page.encode("latin-1", "replace"), "iso-8859-1").text


NOTHING = [b"", b"   \n", b"\x00\x01\x02", b"<html></html>", b"<script>var a = 1;</script>", b"<!doctype html><body>"]


@pytest.mark.parametrize("html", NOTHING)
def test_no_text(html: bytes) -> None:
    assert extract(html).strip("\x00\x01\x02") == ""


def test_garbage_never_raises() -> None:
    chance = random.Random(5)
    pieces = [b"<", b">", b"</", b"div", b"table", b"&#x110000;", b"&#0;", b"\xff\xfe", b"<!--", b"]]>", b"<svg>", b"<![CDATA["]
    pieces += [b"text ", b'"', b"=", b"\x00"]
    for _ in range(40):
        assert isinstance(extract(b"".join(chance.choices(pieces, k=chance.randrange(1, 300)))), str)
        assert isinstance(extract(chance.randbytes(500)), str)


def test_deep_nesting_is_read_without_recursion() -> None:
    page = b"<html><body>" + b"<div>" * 20_000 + PROSE.encode() + b"</div>" * 20_000
    found = extract_page(page)
    assert found.why == "depth"
    assert PROSE.strip() in found.text
    assert found.depth >= MAX_DEPTH


def test_a_very_large_table_is_read_whole() -> None:
    page = b"<html><body><table>" + b"<tr><td>one<td>two<td>three" * 40_000 + b"</table></body></html>"
    found = extract_page(page)
    assert found.why == "elements"
    assert found.text.count("three") == 40_000


def test_a_layout_of_tables_keeps_its_lines() -> None:
    code = "<tt>def area(width, height):<br>&nbsp;&nbsp;&nbsp;&nbsp;return width * height</tt>"
    rows = f"<tr><td><h1>shapes</h1></td></tr></table><table><tr><td>&nbsp;</td><td>{PROSE * 3}<br>{code}</td></tr>"
    page = f"<html><body><table>{rows}</table></body></html>"
    found = extract_page(page.encode())
    assert "\n    return width * height" in found.text
    assert "|" not in found.text


def test_link_density_is_measured() -> None:
    assert extract_page(b"<body><a href=/>12345</a><p>12345</p></body>").link_density == 0.5
    assert extract_page(b"<body><script>let ignored</script><a href=/><b>12345</b></a></body>").link_density == 1.0


def f1_of(names: list[str], gold: dict) -> float:  # type: ignore[type-arg]
    """Micro F1 of wanted and unwanted fragments, white space made equal."""
    true_positive = false_positive = false_negative = 0
    for name in names:
        text = " ".join(extract(gzip.decompress((GOLD / "pages" / name).read_bytes())).split())
        wanted = [" ".join(part.split()) in text for part in gold[name]["with"]]
        unwanted = [" ".join(part.split()) in text for part in gold[name]["without"]]
        true_positive += sum(wanted)
        false_negative += len(wanted) - sum(wanted)
        false_positive += sum(unwanted)
    return 2 * true_positive / (2 * true_positive + false_positive + false_negative)


@pytest.mark.skipif(not GOLD.exists(), reason="the annotated pages are not on this machine")
def test_f1_on_annotated_pages() -> None:
    gold = json.loads((GOLD / "gold.json").read_text())
    assert f1_of(sorted(gold)[::8], gold) > 0.9  # every eighth page; the weights have seen these sites, see benchmarks/extraction.py
