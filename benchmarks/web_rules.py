"""Quality rules against datatrove's four filters on the same texts: python -m benchmarks.web_rules --peer-python PATH [--pages FOLDER]

Texts: the standard library's reference pages, the generated pages of `phial data collect`, with --pages the extracted text of FOLDER/pages
(gzip), and copies of all of them, changed so that each rule fires. Both sides see them in blocks, one side after the other; times are CPU
seconds of one process each. Verdicts are compared per filter and for all four together, and a difference is put down to the first token
at which the two tokenizers part. Writes benchmarks/results/web_rules.json.
"""

import argparse
import gzip
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json
from data_pipeline.web import text_pass
from data_pipeline.web.collect import collect
from data_pipeline.web.extract import extract_page
from data_pipeline.web.generated_pages import sentences
from data_pipeline.web.invented_words import ENGLISH
from data_pipeline.web.measures import Values, c4_clean, measure, points_of, tables
from data_pipeline.web.recipe import CollectRecipe, WebRecipe
from data_pipeline.web.rules import Rule, rules_of
from data_pipeline.web.warc_reader import Broken, read_pages

RESULTS = Path(__file__).parent / "results" / "web_rules.json"
BLOCK = 100
CUT = 20_000  # characters of a text at most
PROSE = 400
OF_FILTER = {
    "gopher_quality": {
        "words", "mean_word_length", "symbol_ratio", "bullet_lines", "ellipsis_lines", "alphabetic_words", "stop_words",
    },
    "gopher_repetition": {
        "top_2gram", "top_3gram", "top_4gram", "duplicate_lines", "duplicate_line_characters", "duplicate_paragraphs",
        "duplicate_paragraph_characters", *(f"duplicate_{n}grams" for n in range(5, 11)),
    },
    "c4": {"sentences", "braces", "lorem_ipsum"},
    "fineweb": {"line_ends", "short_lines", "repeated_line_characters", "newline_ratio"},
}  # fmt: skip


def some_lines(text: str, chance: random.Random, change: Callable[[str], str], share: float) -> str:
    return "\n".join(change(line) if chance.random() < share else line for line in text.split("\n"))


def repeated_lines(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    return "\n".join(lines + chance.choices(lines, k=chance.randint(1, max(2, len(lines) // chance.choice([2, 10, 40])))))


def repeated_paragraphs(text: str, chance: random.Random) -> str:
    parts = text.split("\n")
    return "\n\n".join(parts + chance.choices(parts, k=chance.randint(1, max(2, len(parts) // chance.choice([2, 10, 40])))))


def repeated_phrase(text: str, chance: random.Random) -> str:
    words = text.split(" ")
    start = chance.randrange(max(1, len(words) - 8))
    phrase = words[start : start + chance.randint(2, 12)]
    places = sorted(
        chance.choices(range(len(words)), k=chance.randint(1, max(2, len(words) // chance.choice([12, 60, 300])))), reverse=True
    )
    for place in places:
        words[place:place] = phrase
    return " ".join(words)


def marks(text: str, chance: random.Random) -> str:
    mark = chance.choice([" #", "...", "…", " * ", " - "])
    return "".join(word + (mark if chance.random() < 0.12 else "") + " " for word in text.split(" "))


def bullets(text: str, chance: random.Random) -> str:
    return some_lines(text, chance, lambda line: chance.choice(["- ", "• ", "  - "]) + line, chance.choice([0.5, 0.9, 1.0]))


def teasers(text: str, chance: random.Random) -> str:
    return some_lines(text, chance, lambda line: line.rstrip(". ") + chance.choice(["...", "…", "... "]), chance.choice([0.2, 0.35, 0.6]))


def without_ends(text: str, chance: random.Random) -> str:
    return some_lines(text, chance, lambda line: line.rstrip(".!?\"' "), chance.choice([0.5, 0.9, 1.0]))


def short(text: str, chance: random.Random) -> str:
    return text[: chance.randint(40, 700)]


def broken(text: str, chance: random.Random) -> str:
    share = chance.choice([0.05, 0.2, 0.35])
    return "".join(word + ("\n" if chance.random() < share else " ") for word in text.split(" "))


def no_small_words(text: str, chance: random.Random) -> str:
    return " ".join(word for word in text.split(" ") if len(word) > chance.choice([2, 3, 4]))


def long_words(text: str, chance: random.Random) -> str:
    return "".join(word + ("" if chance.random() < 0.5 else " ") for word in text.split(" "))


def numbers(text: str, chance: random.Random) -> str:
    share = chance.choice([0.1, 0.2, 0.4])
    return " ".join(f"{chance.randint(0, 99999)}{chance.choice(['', '%', 'km', '.5', ',000', '+'])}" if chance.random() < share else word
                    for word in text.split(" "))  # fmt: skip


def policies(text: str, chance: random.Random) -> str:
    words = [
        "JavaScript",
        "privacy policy",
        "Terms of Use",
        "we use cookies",
        "{",
        "}",
        "lorem ipsum",
        "[1]",
        "[citation needed]",
        "[edit]",
    ]
    return some_lines(text, chance, lambda line: f"{line[:-1]} {chance.choice(words)}{line[-1:]}", chance.choice([0.03, 0.5, 1.0]))


def forms(text: str, chance: random.Random) -> str:
    words = (
        "don't I'd've (it's) U.S. e.g. a@b.example https://www.example.org/a_b?c=1 well-known x/y 3.5km \"no\" they’re Mr. 10am $5 "
        "-5°C. cannot "
        "and/or :-) #tag a.b.C rock'n'roll 1,000. co-op's"
    )
    share = chance.choice([0.05, 0.2])
    return "".join(word + (f" {chance.choice(words.split())} " if chance.random() < share else " ") for word in text.split(" "))


CHANGES = (
    repeated_lines, repeated_paragraphs, repeated_phrase, marks, bullets, teasers, without_ends, short, broken, no_small_words, long_words,
    numbers, policies, forms,
)  # fmt: skip


def texts_of(folder: Path | None, crawl: Path, changed: bool = True) -> list[str]:
    """All texts, the same in every run; without `changed` only those that were extracted."""
    if not (crawl / "pages.warc.gz").exists():
        collect(CollectRecipe(), crawl, 0)
    found = [
        extract_page(page.html, page.charset).text for page in read_pages(str(crawl / "pages.warc.gz")) if not isinstance(page, Broken)
    ]
    if folder:
        found += [extract_page(gzip.decompress(path.read_bytes())).text for path in sorted((folder / "pages").iterdir())]
    found = [text[:CUT] for text in dict.fromkeys(found) if text.strip()]
    if not changed:
        return found
    chance = random.Random(20)
    made = [prose(chance) for _ in range(PROSE)]
    copies = [change(text, chance) for text in found for change in chance.sample(CHANGES, 1)]
    copies += [change(text, chance) for text in made for change in chance.sample(CHANGES, 2)]
    found += made
    return [text for text in dict.fromkeys(found + copies) if text.strip()]


def prose(chance: random.Random) -> str:
    """Invented sentences in paragraphs, as the good generated pages have them."""
    lines = sentences(ENGLISH, chance, chance.randint(4, 60))
    size = chance.randint(1, 6)
    return "\n".join(" ".join(lines[start : start + size]) for start in range(0, len(lines), size))


class Peer:
    """The other Python, asked block by block."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("web_rules_peer.py")
        self.process = subprocess.Popen([python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, texts: list[str], alone: bool = False, tokens: bool = False) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"texts": texts, "alone": alone, "tokens": tokens}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def rejecting(rules: list[Rule], values: Values) -> set[str]:
    """The measures by which a text would be dropped."""
    return {rule.measure for rule in rules if rule.reject(values) is not None}


def our_tokens(text: str) -> list[str]:
    classes, _, keys, pieces, _ = tables()
    return [text[start:end] for start, end in text_pass.tokens_of(points_of(text), classes, keys, pieces).tolist()]


def cause(ours: list[str], theirs: list[str]) -> str:
    """Why two verdicts differ: the first token at which the tokenizers part, or the definition where they do not."""
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            return f"token {one!r} / {other!r}"
    return "the last tokens" if len(ours) != len(theirs) else "same tokens"


def compare(texts: list[str], peer: Peer) -> dict[str, Any]:
    rules = rules_of(WebRecipe())
    measure(texts[0])
    ours_seconds, theirs_seconds, megabytes = 0.0, Counter(), sum(len(text.encode()) for text in texts) / 1e6
    disagree: dict[str, list[int]] = {name: [] for name in [*OF_FILTER, "together"]}
    dropped: dict[str, int] = dict.fromkeys([*OF_FILTER, "together"], 0)
    fired: Counter[str] = Counter()
    their_reasons: Counter[str] = Counter()
    other_text = 0
    for begin in range(0, len(texts), BLOCK):
        block = texts[begin : begin + BLOCK]
        started = time.process_time()
        values = [measure(text)[0] for text in block]
        found = [rejecting(rules, one) for one in values]
        ours_seconds += time.process_time() - started
        answer = peer.ask(block)
        theirs_seconds.update(answer["seconds"])
        other_text += sum(c4_clean(text) != theirs for text, theirs in zip(block, answer["c4_text"], strict=True))
        for place, measures in enumerate(found):
            fired.update(measures)
            verdicts = {name: (bool(measures & group), bool(answer["reasons"][name][place])) for name, group in OF_FILTER.items()}
            their_reasons.update(answer["reasons"][name][place] for name in OF_FILTER)
            verdicts["together"] = (any(one for one, _ in verdicts.values()), any(other for _, other in verdicts.values()))
            for name, (one, other) in verdicts.items():
                dropped[name] += other
                if one != other:
                    disagree[name].append(begin + place)
        print(f"{begin + len(block)} texts, ours {ours_seconds:.2f} s, theirs {sum(theirs_seconds.values()):.1f} s", file=sys.stderr)
    alone = peer.ask(texts[:: max(1, len(texts) // 150)], alone=True)["seconds"]
    asked = len(texts[:: max(1, len(texts) // 150)])
    causes = {name: causes_of([texts[place] for place in places], peer) for name, places in disagree.items()}
    theirs_total = sum(theirs_seconds.values())
    return {
        "texts": len(texts),
        "megabytes": round(megabytes, 2),
        "filters": {
            name: {
                "dropped_by_peer": dropped[name],
                "same_verdict": round(1 - len(places) / len(texts), 5),
                "differences": len(places),
                "causes": causes[name],
            }
            for name, places in disagree.items()
        },
        "texts_that_c4_leaves_otherwise": other_text,
        "texts_dropped_by_measure": dict(sorted(fired.items())),
        "texts_dropped_by_peer_reason": {name: count for name, count in sorted(their_reasons.items()) if name},
        "documents_per_cpu_second": {
            "phial, all values": round(len(texts) / ours_seconds, 1),
            "datatrove, four filters one after another, its cache of splits on": round(len(texts) / theirs_total, 2),
            **{f"datatrove, {name} alone": round(asked / seconds, 2) for name, seconds in alone.items()},
            "datatrove, sum of the filters alone": round(asked / sum(alone.values()), 2),
        },
        "phial_megabytes_per_cpu_second": round(megabytes / ours_seconds, 1),
        "ratio": round(theirs_total / ours_seconds, 1),
        "ratio_to_filters_alone": round(sum(alone.values()) / asked * len(texts) / ours_seconds, 1),
    }


def causes_of(texts: list[str], peer: Peer) -> dict[str, int]:
    if not texts:
        return {}
    theirs = peer.ask(texts, tokens=True)["tokens"]
    return dict(Counter(cause(our_tokens(text), tokens) for text, tokens in zip(texts, theirs, strict=True)).most_common())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", required=True, help="the Python of an environment with datatrove and spacy")
    parser.add_argument("--pages", type=Path, help="a folder with pages/*.gz of HTML")
    parser.add_argument("--crawl", type=Path, default=Path("runs/web_rules/crawl"), help="where the reference pages lie or are collected")
    parser.add_argument("--limit", type=int, default=0, help="texts at most, evenly taken; 0 for all")
    arguments = parser.parse_args()
    texts = texts_of(arguments.pages, arguments.crawl)
    if arguments.limit:
        texts = texts[:: max(1, len(texts) // arguments.limit)]
    record = {**provenance("numba"), **compare(texts, Peer(arguments.peer_python))}
    if not arguments.limit:
        write_json(RESULTS, record)
    print(json.dumps(record, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
