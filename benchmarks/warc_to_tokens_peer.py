"""datatrove's chain from WARC files to token files, run by the peer's own Python: warc_to_tokens_peer.py CRAWL OUT TOKENIZER

Extraction, the four quality filters, personal data, MinHash in four stages, tokens; one process after another on one core. Language
identification is left out, since its model has to be downloaded. Prints one JSON line.
"""

# pyright: reportMissingImports=false
# The peer is no dependency of ours.

import json
import resource
import sys
import time
from pathlib import Path

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def count(folder: Path) -> int:
    import gzip

    return sum(sum(1 for _ in gzip.open(path)) for path in folder.rglob("*.jsonl.gz"))


def main() -> None:
    crawl, out, tokenizer = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    filters = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]
    stages = {
        "extract and filter": [
            WarcReader(crawl, glob_pattern="*.warc.gz"),
            Trafilatura(favour_precision=True, timeout=60),  # by default a second, which starting its process may take alone
            *filters,
            JsonlWriter(str(out / "filtered")),
        ],
        "signatures": [JsonlReader(str(out / "filtered")), MinhashDedupSignature(str(out / "signatures"), config=config)],
        "buckets": [MinhashDedupBuckets(str(out / "signatures"), str(out / "buckets"), config=config)],
        "clusters": [MinhashDedupCluster(str(out / "buckets"), str(out / "remove"), config=config)],
        "filter": [
            JsonlReader(str(out / "filtered")),
            MinhashDedupFilter(str(out / "remove")),
            PIIFormatter(),
            JsonlWriter(str(out / "kept")),
        ],
        "tokens": [
            JsonlReader(str(out / "kept")),
            DocumentTokenizer(str(out / "tokens"), tokenizer_name_or_path=tokenizer, eos_token=None),
        ],
    }
    seconds = {}
    for name, pipeline in stages.items():
        before = cpu_seconds()
        tasks = config.num_buckets if name == "buckets" else 1
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(out / "logs" / name.replace(" ", "_"))).run()
        seconds[name] = round(cpu_seconds() - before, 3)
    record = {
        "cpu_seconds": seconds,
        "total": round(sum(seconds.values()), 3),
        "filtered": count(out / "filtered"),
        "kept": count(out / "kept"),
    }
    print(json.dumps(record | {"date": time.strftime("%Y-%m-%d")}))


if __name__ == "__main__":
    main()
