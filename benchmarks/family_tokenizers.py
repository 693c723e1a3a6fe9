"""The converted tokenizers against sentencepiece and tiktoken on real vocabularies:

    python -m benchmarks.family_tokenizers --cl100k FILE --o200k FILE --llama tokenizer.model --text FILE

Give the files you have; --llama-style is any other model of Llama's kind with 32,000 pieces, compared without published ids. Checks ids
that were published (`GOLDEN`), and that our conversion and the reference give the same ids for a few thousand seeded texts and for pieces
of TEXT, and decode to the same text. Writes benchmarks/results/family_tokenizers.json. Needs sentencepiece and tiktoken
(`pip install --group dev`). Exit code 1 where anything differs.
"""

import argparse
import hashlib
import importlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_pipeline.provenance import provenance
from data_pipeline.storage import sha256_of, write_json
from data_pipeline.tokens.convert import convert_tokenizer
from data_pipeline.tokens.members import MEMBERS
from data_pipeline.tokens.plain_text import encode_texts

RESULTS = Path(__file__).parent / "results" / "family_tokenizers.json"
# Published ids: transformers' Llama tests, tiktoken's own tests and README, and phi-4's in Microsoft.ML.Tokenizers' tests.
GOLDEN: dict[str, dict[str, list[int]]] = {
    "llama": {
        "Hello world": [15043, 3186],
        "This is a test": [910, 338, 263, 1243],
        "I was born in 92000, and this is falsé.": (
            [306, 471, 6345, 297, 29871, 29929, 29906, 29900, 29900, 29900, 29892, 322, 445, 338, 285, 1338, 29948, 29889]
        ),
        "生活的真谛是": [29871, 30486, 31704, 30210, 30848, 235, 179, 158, 30392],
        "Hi  Hello": [6324, 29871, 15043],
        "Hi   Hello": [6324, 259, 15043],
        " Hello": [29871, 15043],
        "": [],
    },
    "cl100k": {
        "hello world": [15339, 1917],
        "tiktoken is great!": [83, 1609, 5963, 374, 2294, 0],
        "rer": [38149],
        "'rer": [2351, 81],
        "today\n ": [31213, 198, 220],
        "today\n \n": [31213, 27907],
        "today\n  \n": [31213, 14211],
        "Hello": [9906],
        " World": [4435],
    },
    "o200k": {"hello world": [24912, 2375]},
    "llama_style": {},
}
MEMBER_OF = {"cl100k": "small", "o200k": "phi-4-mini", "llama": "mini", "llama_style": "mini"}
WORDS = [
    "the",
    " a",
    "Straße",
    "naïve",
    "don't",
    "IT'S",
    "we'LL",
    "東京",
    "こんにちは",
    "한국어",
    "\U0001f642",
    "\U0001f468‍\U0001f469",
    "1234567",
    "x=1;",
    "ÆØÅ",
]
BLANKS = [" ", "  ", "\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "                                         ", "\u2581", "\n\n\n"]
RANGES = [(1, 0x7F), (0x80, 0x2FF), (0x370, 0x5FF), (0x900, 0xDFF), (0x3040, 0xD7A3), (0x1F300, 0x1F64F)]


def generated(count: int, seed: int) -> list[str]:
    """Seeded texts of words, blanks, special tokens' spellings and random characters of assigned blocks."""
    rng = random.Random(seed)
    parts: list[Callable[[], str]] = [
        lambda: rng.choice(WORDS),
        lambda: rng.choice(BLANKS),
        lambda: chr(rng.randint(*rng.choice(RANGES))),
        lambda: rng.choice(["<|end|>", "<s>", "<0x0A>", "<|endoftext|>"]),
    ]
    return ["", *("".join(rng.choices(parts, [4, 4, 6, 1])[0]() for _ in range(rng.randint(1, 40))) for _ in range(count))]


def windows(path: Path, limit: int) -> list[str]:
    """The file's first `limit` characters as pieces of 1 to 4,000 characters."""
    text, rng, pieces, at = path.read_text(encoding="utf-8", errors="replace")[:limit], random.Random(1), [], 0
    while at < len(text):
        size = rng.randint(1, 4000)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def sentencepiece_reference(path: Path) -> tuple[Callable[[str], list[int]], Callable[[list[int]], str], str]:
    sentencepiece = importlib.import_module("sentencepiece")
    processor: Any = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return processor.encode, processor.decode, f"sentencepiece {sentencepiece.__version__}"


def tiktoken_reference(path: Path, vocabulary: str) -> tuple[Callable[[str], list[int]], Callable[[list[int]], str], str]:
    """tiktoken's own encoding, pattern and all; the file takes the place of its download, so its hash must be the published one."""
    tiktoken = importlib.import_module("tiktoken")
    address = f"https://openaipublic.blob.core.windows.net/encodings/{vocabulary}_base.tiktoken"
    with tempfile.TemporaryDirectory() as cache:
        shutil.copyfile(path, Path(cache) / hashlib.sha1(address.encode()).hexdigest())
        os.environ["TIKTOKEN_CACHE_DIR"] = cache
        encoding = tiktoken.get_encoding(f"{vocabulary}_base")
    return encoding.encode_ordinary, encoding.decode, f"tiktoken {tiktoken.__version__}"


def compare(member: str, path: Path, vocabulary: str, texts: list[str]) -> dict[str, Any]:
    """Converts the vocabulary and compares it with the reference; `differ` lists the first texts that came out otherwise."""
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        facts = convert_tokenizer(path, Path(scratch) / "converted", MEMBERS[member])
        seconds = time.perf_counter() - started
        ours = Tokenizer.from_file(str(Path(scratch) / "converted" / "tokenizer.json"))
    encode, decode, reference = sentencepiece_reference(path) if vocabulary.startswith("llama") else tiktoken_reference(path, vocabulary)
    found = encode_texts(ours, texts)
    expected = [encode(text) for text in texts]
    differ = [text for text, left, right in zip(texts, found, expected, strict=True) if left != right]
    decoded = sum(ours.decode(ids, skip_special_tokens=False) != decode(ids) for ids in expected)
    golden = {text: encode_texts(ours, [text])[0] for text in GOLDEN[vocabulary]}
    return {
        **facts,
        "source_sha256": sha256_of(path),
        "reference": reference,
        "convert_seconds": round(seconds, 2),
        "texts": len(texts),
        "tokens": sum(map(len, expected)),
        "texts_encoded_otherwise": len(differ),
        "texts_decoded_otherwise": decoded,
        "first_differences": [text[:200] for text in differ[:3]],
        "golden_wrong": {text: ids for text, ids in golden.items() if ids != GOLDEN[vocabulary][text]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for vocabulary in MEMBER_OF:
        parser.add_argument(f"--{vocabulary.replace('_', '-')}", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--generated", type=int, default=5000)
    parser.add_argument("--characters", type=int, default=5_000_000)
    parser.add_argument("--note", default="", help="where the files came from; kept in the results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    texts = generated(arguments.generated, 0) + (windows(arguments.text, arguments.characters) if arguments.text else [])
    given = {vocabulary: path for vocabulary in MEMBER_OF if (path := getattr(arguments, vocabulary)) is not None}
    if not given:
        parser.error("no vocabulary given")
    results = {vocabulary: compare(MEMBER_OF[vocabulary], path, vocabulary, texts) for vocabulary, path in given.items()}
    write_json(arguments.out, {**provenance("tokenizers", "sentencepiece", "tiktoken"), "sources": arguments.note, "results": results})
    for vocabulary, facts in results.items():
        print(
            f"{vocabulary}: {facts['texts']:,} texts, {facts['tokens']:,} tokens, {facts['texts_encoded_otherwise']} encoded and "
            f"{facts['texts_decoded_otherwise']} decoded otherwise, {len(facts['golden_wrong'])} golden ids wrong"
        )
    wrong = ("texts_encoded_otherwise", "texts_decoded_otherwise", "golden_wrong")
    raise SystemExit(int(any(facts[name] for facts in results.values() for name in wrong)))


if __name__ == "__main__":
    main()
