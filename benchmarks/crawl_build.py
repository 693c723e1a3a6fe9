"""A generated crawl built once undisturbed and once killed again and again: python -m benchmarks.crawl_build OUT --bytes 1e9 --kills 20

Says whether the killed build's files are those of the undisturbed one, how many verdicts are wrong (benchmarks/check_crawl.py), the speed,
and the memory of the largest process. Writes benchmarks/results/crawl_build.json.
"""

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.check_crawl import check
from benchmarks.make_crawl import make
from data_pipeline.provenance import provenance
from data_pipeline.storage import sha256_of, write_json

RESULTS = Path(__file__).parent / "results" / "crawl_build.json"


def write_recipe(folder: Path, crawl: Path) -> Path:
    """The published thresholds, with the crawl's own block list and benchmark."""
    lines = [
        f'[run]\nfolder = "{folder}"\nseed = 1',
        f'[web.addresses]\ndomain_lists = ["{crawl}/blocked_domains.txt"]',
        f'[web.decontamination]\nbenchmarks = ["{crawl}/mmlu"]',
        "[web.lines]\ndocuments = 50",
        "[tokenizer]\nvocab_size = 8192",
        '[tokens]\nsources = ["web", "web_clean"]',
    ]
    path = folder / "crawl.toml"
    path.write_text("\n\n".join(lines) + "\n")
    return path


def start(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "phial", "data", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def watched(process: subprocess.Popen[bytes], seconds: float) -> tuple[bool, int]:
    """(whether it ended within `seconds`, the most memory that it or one of its workers held)."""
    until, peak = time.monotonic() + seconds, 0
    while process.poll() is None and time.monotonic() < until:
        try:
            own = psutil.Process(process.pid)
            peak = max(peak, *(one.memory_info().rss for one in [own, *own.children(recursive=True)]))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.1)
    return process.poll() is not None, peak


def build_whole(recipe: Path) -> tuple[float, int]:
    """Seconds and the largest process of a build that nothing disturbs."""
    started = time.perf_counter()
    process = start("build", str(recipe))
    _, peak = watched(process, 86_400)
    if process.returncode:
        raise RuntimeError(f"the build of {recipe} ended with {process.returncode}")
    return time.perf_counter() - started, peak


def build_killed(recipe: Path, kills: int, whole: float, chance: random.Random) -> int:
    """Starts the build until it ends, killing it at a random moment up to `kills` times; returns how often it was killed."""
    killed = 0
    while True:
        process = start("build", str(recipe))
        left = chance.uniform(1.0, max(3.0, 2.5 * whole / (kills + 1))) if killed < kills else 86_400.0
        ended, _ = watched(process, left)
        if ended:
            if process.returncode:
                raise RuntimeError(f"the build of {recipe} ended with {process.returncode}")
            return killed
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            one.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1


def outputs(folder: Path) -> dict[str, str]:
    """Every file of the build, its tokens and its report, without what tells of times: path -> SHA-256."""
    files = sorted(path for part in ("web", "tokens", "tokenizer") for path in (folder / part).rglob("*") if path.is_file())
    found = {str(path.relative_to(folder)): sha256_of(path) for path in files if path.name != "speed.json"}
    report = json.loads((folder / "data_report/report.json").read_text())
    del report["times"]
    found["data_report/report.json"] = hashlib.sha256(json.dumps(report).encode()).hexdigest()
    return found | {f"data_report/{path.name}": sha256_of(path) for path in sorted((folder / "data_report").glob("*.parquet"))}


def tokens(recipe: Path) -> None:
    for words in (["tokenizer", "train"], ["data", "tokenize"]):
        subprocess.run([sys.executable, "-m", "phial", *words, str(recipe)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, "-m", "phial", "data", "report", str(recipe.parent)], check=True, stdout=subprocess.DEVNULL)


def run(out: Path, size: int, kills: int, seed: int) -> dict[str, Any]:
    crawl = out / "generated"
    made = make(crawl, size, 4, seed)
    recipes = {}
    for name in ("whole", "killed"):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        collected = start("collect", str(folder / "crawl"), "--warc", f"{crawl}/*.warc.gz")
        if collected.wait():
            raise RuntimeError(f"the crawl {crawl} could not be collected")
        recipes[name] = write_recipe(folder, crawl)
    seconds, peak = build_whole(recipes["whole"])
    killed = build_killed(recipes["killed"], kills, seconds, random.Random(seed))
    for recipe in recipes.values():
        tokens(recipe)
    whole, other = outputs(out / "whole"), outputs(out / "killed")
    speed = json.loads((out / "whole/web/speed.json").read_text())
    return {
        "crawl": made,
        "kills": killed,
        "files_compared": len(whole),
        "files_that_differ": sorted(name for name in whole.keys() | other.keys() if whole.get(name) != other.get(name)),
        "verdicts": check(crawl, out / "whole/web"),
        "seconds": round(seconds, 1),
        "speed": speed,
        "peak_process_bytes": peak,
    }


def settle_again(out: Path) -> dict[str, Any]:
    """The build once more from the values that `run` has stored, under the rules of today, and its verdicts."""
    _, peak = build_whole(out / "whole/crawl.toml")
    speed = json.loads((out / "whole/web/speed.json").read_text())
    if speed["pages_measured"]:
        raise RuntimeError("pages were measured again: something else than a rule has changed")
    return {"verdicts": check(out / "generated", out / "whole/web"), "speed": speed, "peak_process_bytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--bytes", type=float, default=1e9)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--settle-again", action="store_true", help="only settle the build in OUT anew, and add that to the results")
    chosen = parser.parse_args()
    if chosen.settle_again:
        record = json.loads(chosen.results.read_text())
        again = settle_again(chosen.out.resolve()) | provenance("numba", "pyarrow")
        write_json(chosen.results, record | {"settled_again": again})
        print(json.dumps({"wrong": again["verdicts"]["wrong"], "seconds": again["speed"]["seconds"]}))
        return
    record = {
        "kind": "measured",
        **run(chosen.out.resolve(), int(chosen.bytes), chosen.kills, chosen.seed),
        **provenance("numba", "pyarrow"),
    }
    write_json(chosen.results, record)
    print(json.dumps({name: record[name] for name in ("kills", "files_compared", "files_that_differ", "seconds", "peak_process_bytes")}))


if __name__ == "__main__":
    main()
