"""The peer's side of benchmarks/web_rules.py, run by the Python that has datatrove: one JSON request per line in, one answer per line out.

A request is {"texts": [...], "alone": bool, "tokens": bool}. The four filters see each text one after another, as in a pipeline of
datatrove, whose cache of the last few splits is empty before each text, and with "alone" before each filter too. An answer holds per filter
the reason for which each text is dropped (empty: kept) and the CPU seconds, with "tokens" the tokens, and the text that C4 leaves.
"""

import json
import sys
import time
from typing import Any


def main() -> None:
    from datatrove.data import Document  # pyright: ignore[reportMissingImports]
    from datatrove.pipeline import filters as theirs  # pyright: ignore[reportMissingImports]
    from datatrove.utils.text import split_into_parts, split_into_words  # pyright: ignore[reportMissingImports]

    filters = {
        "gopher_quality": theirs.GopherQualityFilter(),
        "gopher_repetition": theirs.GopherRepetitionFilter(),
        "c4": theirs.C4QualityFilter(),
        "fineweb": theirs.FineWebQualityFilter(),
    }
    split_into_words("The tokenizer loads.")
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {"reasons": {name: [] for name in filters}, "seconds": dict.fromkeys(filters, 0.0), "c4_text": []}
        for text in request["texts"]:
            split_into_parts.cache_clear()
            for name, one in filters.items():
                if request["alone"]:
                    split_into_parts.cache_clear()
                document = Document(text=text, id="")
                started = time.process_time()
                try:
                    found = one.filter(document)
                except (ZeroDivisionError, ValueError, IndexError) as error:
                    found = (False, f"error: {type(error).__name__}")
                answer["seconds"][name] += time.process_time() - started
                answer["reasons"][name].append("" if found is True else found[1] if isinstance(found, tuple) else "no")
                if name == "c4":
                    answer["c4_text"].append(document.text if found is True else None)
        if request["tokens"]:
            answer["tokens"] = [split_into_words(text) for text in request["texts"]]
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
