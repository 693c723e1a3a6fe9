"""The whole way from WARC files to tokens beside datatrove's chain: python -m benchmarks.warc_to_tokens OUT --peer-python PATH

The input is a folder of HTML pages (`--pages`, gzip or plain, written as one WARC file) or a generated crawl (`--bytes`) without its
damaged file, on which the peer ends. Both sides read
the same files, on one core, in turn, `--rounds` times; CPU seconds of all their processes count. Ours has its loops compiled before.
PATH is a Python with datatrove[processing,io], lxml_html_clean and spacy. Language identification is ours alone (the peer's has to download
its model), as is the ledger. Writes benchmarks/results/warc_to_tokens.json.
"""

import argparse
import gzip
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.make_crawl import make
from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from data_pipeline.web.warc_writer import WarcWriter

RESULTS = Path(__file__).parent / "results" / "warc_to_tokens.json"
PEER = Path(__file__).with_name("warc_to_tokens_peer.py")
RECIPE = """
[run]
folder = "{folder}"

[web]
workers = 1
languages = []
held_out = 0.0

[tokenizer]
vocab_size = 8192

[tokens]
sources = ["web"]
"""


def write_pages(pages: Path, crawl: Path) -> int:
    """The HTML files of a folder as one WARC file; returns their bytes."""
    crawl.mkdir(parents=True)
    size = 0
    with open(crawl / "pages.warc.gz", "wb") as stream:
        writer = WarcWriter(stream, "pages of a folder")
        for path in sorted(one for one in pages.rglob("*") if one.name.endswith((".html", ".htm", ".html.gz", ".htm.gz"))):
            data = path.read_bytes()
            html = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            writer.response(f"http://pages.example/{path.name}", html)
            size += len(html)
    return size


def children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def called(command: list[str], **others: Any) -> tuple[float, str]:
    """CPU seconds of a command with all its processes, and what it printed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    before = children_cpu()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **others)
    if done.returncode:
        raise RuntimeError(f"{command[:4]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return children_cpu() - before, done.stdout


def ours(out: Path, crawl: Path, tokenizer: Path | None) -> dict[str, Any]:
    """One run of ours in a new folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "crawl").symlink_to(crawl)
    recipe = out / "run.toml"
    recipe.write_text(RECIPE.format(folder=out))
    phial = [sys.executable, "-m", "phial"]
    built, _ = called([*phial, "data", "build", str(recipe)])
    if tokenizer is None:
        called([*phial, "tokenizer", "train", str(recipe)])
    else:
        shutil.copytree(tokenizer, out / "tokenizer")
    tokenized, text = called([*phial, "data", "tokenize", str(recipe), "--json"])
    funnel = json.loads((out / "web/funnel.json").read_text())
    return {
        "cpu_seconds": {"build": round(built, 3), "tokens": round(tokenized, 3)},
        "total": round(built + tokenized, 3),
        "pages": funnel["steps"][0]["documents"],
        "kept": funnel["kept"]["documents"],
        "tokens": json.loads(text)["web"]["tokens"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--pages", type=Path)
    parser.add_argument("--bytes", type=float, default=2e7)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    out = chosen.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    crawl = out / "crawl"
    size = write_pages(chosen.pages, crawl) if chosen.pages else make(crawl, int(chosen.bytes), 1, 0)["html_bytes"]
    (crawl / "damaged.warc.gz").unlink(missing_ok=True)
    first = ours(out / "first", crawl, None)  # compiles, and trains the tokenizer that both sides use
    tokenizer = out / "first/tokenizer"
    rounds = []
    for number in range(chosen.rounds):
        one = ours(out / f"ours-{number}", crawl, tokenizer)
        peer_out = out / f"peer-{number}"
        _, said = called([chosen.peer_python, str(PEER), str(crawl), str(peer_out), str(tokenizer / "tokenizer.json")])
        other = json.loads(said.strip().splitlines()[-1])
        if not other["kept"]:
            raise RuntimeError("the peer kept nothing: look at its logs, a package of its may be missing")
        rounds.append({"phial": one, "datatrove": other, "ratio": round(other["total"] / one["total"], 2)})
        print(json.dumps(rounds[-1]), flush=True)
    record = {
        "kind": "measured",
        "input": {"html_bytes": size, "pages": first["pages"], "of": "a folder of pages" if chosen.pages else "a generated crawl"},
        "ratio_median": statistics.median(one["ratio"] for one in rounds),
        "pages_per_cpu_second": {
            side: round(first["pages"] / statistics.median(one[side]["total"] for one in rounds), 1) for side in ("phial", "datatrove")
        },
        "rounds": rounds,
        "left_out": "language identification on the peer's side; compiling on ours",
        **provenance("numba", "tokenizers"),
    }
    write_json(chosen.results, record)


if __name__ == "__main__":
    main()
