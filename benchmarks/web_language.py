"""How often the second opinion on a page's language is asked, and what it changes: python -m benchmarks.web_language [--pages FOLDER]

Texts: reference pages and generated pages, and with --pages those of FOLDER/pages (gzip). English is the language that
is kept, margin and largest distance are the recipe's defaults. Writes benchmarks/results/web_language.json.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

from benchmarks.web_rules import texts_of
from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from data_pipeline.web.language import classifier, decided_language, language_of
from data_pipeline.web.recipe import WebRecipe

RESULTS = Path(__file__).parent / "results" / "web_language.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, help="a folder with pages/*.gz of HTML")
    parser.add_argument("--crawl", type=Path, default=Path("runs/web_rules/crawl"), help="where the reference pages lie or are collected")
    arguments = parser.parse_args()
    recipe = WebRecipe()
    limit, margin, kept = recipe.max_language_distance, recipe.language_margin, recipe.languages
    texts = texts_of(arguments.pages, arguments.crawl, changed=False)
    classifier()
    started = time.process_time()
    first = [language_of(text, kept, margin) for text in texts]
    middle = time.process_time()
    decided = [decided_language(text, kept, margin, limit) for text in texts]
    ended = time.process_time()
    before = [code in kept and distance <= limit for code, distance in first]
    after = [one.code in kept and (distance <= limit or bool(one.second)) for one, (_, distance) in zip(decided, first, strict=True)]
    changes = Counter(
        f"{code} {distance // 100 * 100} -> {one.code}"
        for one, (code, distance), was, now in zip(decided, first, before, after, strict=True)
        if was != now
    )
    record = {
        **provenance("resiliparse", "py3langid"),
        "texts": len(texts),
        "asked": sum(bool(one.second) for one in decided),
        "kept_before": sum(before),
        "kept_after": sum(after),
        "changed_verdicts": dict(changes.most_common()),
        "changed_without_being_asked": sum(was != now and not one.second for one, was, now in zip(decided, before, after, strict=True)),
        "profiles_cpu_milliseconds_per_text": round(1000 * (middle - started) / len(texts), 3),
        "with_second_opinion_cpu_milliseconds_per_text": round(1000 * (ended - middle) / len(texts), 3),
    }
    write_json(RESULTS, record)
    print(json.dumps(record, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
