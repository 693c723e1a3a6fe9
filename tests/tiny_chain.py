"""The whole chain at its smallest, for tests: a recipe of a few seconds per stage, and a small crawl written as a WARC file."""

import os
import random
import subprocess
import sys
from pathlib import Path

from data_pipeline.web.warc_writer import WarcWriter

ROOT = Path(__file__).resolve().parent.parent

# Budgets are those of a model that was hardly trained; what they guard is tested beside the export room.
RECIPE = """
[run]
seed = 7

[collect]
warc = "{warc}"

[web]
workers = 1
held_out = 0.2

[synthetic]
families = ["comparison", "recall"]
lessons = 4
worked_examples = 8
exercise_sheets = 16
short_answers = 8
sft_rows = 24
dpo_rows = 12
held_out_items = 10
held_out_exercises = 3
held_out_preferences = 4

[tokenizer]
vocab_size = 448

[model]
preset = "demo"
hidden_size = 64
intermediate_size = 96
num_layers = 2
num_heads = 2
max_positions = 512
initializer_range = 0.06

[pretrain]
context = 64
rows_per_step = 4
learning_rate = 3e-3
warmup_steps = 2
checkpoint_every = 3
log_every = 2
threads = 1
phases = [
    {{ name = "one", steps = 5, weights = {{ web = 0.7, synthetic = 0.3 }} }},
    {{ name = "two", steps = 7, weights = {{ web_clean = 0.3, synthetic = 0.7 }} }},
]

[sft]
steps = 4
batch_rows = 4
log_every = 1
threads = 1

[dpo]
steps = 3
batch_rows = 4
log_every = 1
threads = 1

[eval]
scoring = "text"

[export]
accuracy_level = 0
kl_budget = 10.0
top1_budget = 0.0
check_tokens = 256
"""

# fmt: off
WORDS = [
    "river", "stone", "garden", "winter", "letter", "market", "window", "bridge", "teacher", "harbour", "forest", "engine",
    "basket", "candle", "meadow", "village", "lantern", "orchard", "sailor", "kitchen", "journey", "picture", "evening",
    "morning", "shoulder", "whistle", "blanket", "thunder", "compass", "feather",
]
SMALL = [
    "the", "of", "and", "with", "that", "have", "in", "on", "under", "behind", "before", "after", "my", "your", "her", "their",
    "this", "every", "one", "another", "some", "no", "to", "be",
]
# fmt: on
VERBS = ["carried", "found", "painted", "followed", "described", "measured", "repaired", "remembered"]


def page(seed: int) -> str:
    """One page of English words in sentences, different for every seed."""
    chance = random.Random(seed)

    def sentence() -> str:
        words = [chance.choice(WORDS if place % 2 else SMALL) for place in range(chance.randrange(8, 16))]
        return f"{' '.join(words).capitalize()} {chance.choice(VERBS)} {chance.choice(WORDS)} {chance.randrange(1000)}."

    paragraphs = "".join(f"<p>{' '.join(sentence() for _ in range(4))}</p>" for _ in range(5))
    title = f"{chance.choice(WORDS)} and {chance.choice(WORDS)}"
    return f"<html lang=en><head><title>{title}</title></head><body><article><h1>{title}</h1>{paragraphs}</article></body></html>"


def write_crawl(path: Path, pages: int = 24) -> Path:
    """A WARC file of `pages` good pages, then a copy of the first and a page that says nothing."""
    with open(path, "wb") as stream:
        writer = WarcWriter(stream, "pages for tests")
        for number in range(pages):
            writer.response(f"https://example.org/{number}", page(number).encode())
        writer.response("https://example.org/copy", page(0).encode())
        writer.response("https://example.org/stub", b"<html><body><p>Nothing here yet.</p></body></html>")
    return path


def write_recipe(folder: Path, warc: Path | None = None) -> Path:
    """The tiny recipe with its crawl, both in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    warc = warc or write_crawl(folder / "crawl.warc.gz")
    recipe = folder / "tiny.toml"
    recipe.write_text(RECIPE.format(warc=warc), encoding="utf-8")
    return recipe


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}


def phial(*arguments: str | Path, timeout: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
    """`phial ...` in a process of its own."""
    command = [sys.executable, "-m", "phial", *map(str, arguments)]
    return subprocess.run(
        command, env=environment(**more), cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
    )
