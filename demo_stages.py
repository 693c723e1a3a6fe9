"""The stages of the demo: each a call into one room, with what decides its result, what it leaves, and the line it says when done."""

import itertools
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from data_pipeline.engine.journal import Done
from data_pipeline.errors import InputError
from data_pipeline.recipe import Recipe, RunRecipe, Section
from data_pipeline.run_folder import RunFolder
from data_pipeline.storage import write_json

MODELS = ("base", "sft", "dpo", "int4")


@dataclass(kw_only=True)
class Chain:
    """What every stage sees: the recipe's sections, the run's folders, and the records of the stages before it."""

    recipe: Recipe
    sections: dict[str, Any]
    run: RunFolder
    seed: int
    ranks: int = 1
    benchmarks: str | None = None
    full: bool = False
    console: Console = field(default_factory=Console)
    status: Any = None  # the terminal's spinner, where there is one
    records: dict[str, Done] = field(default_factory=dict)

    def say(self, line: str) -> None:
        """Shows what the stage is at."""
        if self.status is not None:
            self.status.update(line)

    def tell(self, line: str) -> None:
        """A line that stays on the screen."""
        self.console.print(f"[dim]{escape(line)}[/]", highlight=False, soft_wrap=True)

    def count(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.say(f"{done:,} of {total:,} {what}")

    def steps(self, name: str) -> Callable[[int, int, dict[str, float]], None]:
        return lambda step, steps, row: self.say(f"{name}: step {step} of {steps}, loss {row.get('loss', float('nan')):.3f}")

    def tasks(self, name: str) -> Callable[[str, int, int], None]:
        return lambda task, done, total: self.say(f"{name} model, {task}: {done:,} of {total:,} items")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: what decides its result, what it leaves, what it does, and the line it says when done."""

    name: str
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    outputs: tuple[str, ...]
    work: Callable[[Chain], dict[str, Any]]
    line: Callable[[dict[str, Any]], str]
    decides: Callable[[Chain], Any] = lambda chain: None  # beyond the sections: files of the user's, the number of ranks


# -- the stages ------------------------------------------------------------------------------------------------------------------------


def collect_stage(chain: Chain) -> dict[str, Any]:
    from data_pipeline.web.collect import collect

    return collect(chain.sections["collect"], chain.run.crawl, chain.seed, chain.count("pages"))


def crawl_files(chain: Chain) -> Any:
    """The user's crawl files, each with what tells it from another version of itself, or the Python whose documentation is rendered."""
    from data_pipeline.web.collect import named
    from data_pipeline.web.measure_crawl import identity

    settings = chain.sections["collect"]
    if not settings.warc:
        return ["standard library", platform.python_version()]
    return [(path, identity(path)) for pattern in settings.warc for path in named(pattern, settings.prefix)]


def filter_files(chain: Chain) -> Any:
    """What the files say that the filter reads beside the crawl: address lists, a quality model, benchmarks."""
    from data_pipeline.web.measure_crawl import measuring

    return measuring(chain.sections["web"])


def collect_line(record: dict[str, Any]) -> str:
    if "pages" in record:
        return f"{record['pages']:,} pages"
    empty = "".join(f"\n           no page in {path}" for path in record["files_without_pages"])
    return f"{len(record['sources'])} WARC file(s) of yours, read in place{empty}"


def filter_stage(chain: Chain) -> dict[str, Any]:
    from data_pipeline.web.build import build
    from data_pipeline.web.report import write_report

    record = build(chain.sections["web"], chain.run.crawl, chain.run.web, chain.seed, lambda pages: chain.say(f"{pages:,} pages measured"))
    write_report(chain.run.web, chain.run.data_report)
    return record


def funnel_line(record: dict[str, Any]) -> str:
    reasons = ", ".join(f"{reason.replace('_', ' ')} {facts['documents']}" for reason, facts in record["dropped"].items())
    masked = sum(record["personal_data"].values())
    kept, held_out, pages = record["kept"]["documents"], record["held_out"]["documents"], record["steps"][0]["documents"]
    broken = "".join(f"\n           {line}" for line in record["broken_files"])
    return f"{kept:,} of {pages:,} pages kept, {held_out} held out; dropped: {reasons}; {masked} personal details masked{broken}"


def synthesize_stage(chain: Chain) -> dict[str, Any]:
    from data_pipeline.synthetic.build import synthesize

    return synthesize(chain.sections["synthetic"], chain.run.synthetic, chain.seed, chain.run.web / "held_out.parquet", chain.say)


def tokenize_stage(chain: Chain) -> dict[str, Any]:
    from data_pipeline.tokens.build import tokenize_run, train_run_tokenizer

    def show(source: str, documents: int, tokens: int) -> None:
        chain.say(f"{source}: {documents:,} documents, {tokens:,} tokens")

    chain.say("training the tokenizer")
    trained = train_run_tokenizer(chain.sections["tokenizer"], chain.run)
    return {"tokenizer": trained, "sources": tokenize_run(chain.sections["tokens"], chain.run, show)}


def pretrain_stage(chain: Chain) -> dict[str, Any]:
    from training.trainer import pretrain

    run = chain.run
    leave_other_checkpoints(chain)
    return pretrain(
        chain.sections["pretrain"],
        chain.sections["model"],
        tokens=run.tokens,
        tokenizer=run.tokenizer,
        out=run.pretrain,
        seed=chain.seed,
        ranks=chain.ranks,
        stream=sys.stderr,
    )


def leave_other_checkpoints(chain: Chain) -> None:
    """Puts checkpoints of other settings or other data aside, which nothing may go on from: the plan has this stage done anew."""
    from training.job import Job, make_plan
    from training.resume import find_start, open_store

    run, sections = chain.run, chain.sections
    job = Job(
        recipe=sections["pretrain"], model=sections["model"], seed=chain.seed, tokens=run.tokens, tokenizer=run.tokenizer, out=run.pretrain
    )
    plan = make_plan(job)
    try:
        find_start(job, plan, open_store(job, plan))
    except InputError:
        aside = next(path for number in itertools.count(1) if not (path := run.root / f"pretrain.{number}").exists())
        run.pretrain.rename(aside)
        chain.tell(f"pretrain: settings or data changed; training starts over, what was made before is in {aside}")


def sft_stage(chain: Chain) -> dict[str, Any]:
    from alignment.sft import fine_tune

    run = chain.run
    data = run.synthetic / "sft.jsonl"
    return fine_tune(chain.sections["sft"], run.pretrain / "model", data, run.sft, chain.seed, chain.steps("sft"))


def dpo_stage(chain: Chain) -> dict[str, Any]:
    from alignment.dpo import prefer

    run = chain.run
    return prefer(chain.sections["dpo"], run.sft / "model", run.synthetic / "dpo.jsonl", run.dpo, chain.seed, chain.steps("dpo"))


def export_stage(chain: Chain) -> dict[str, Any]:
    from export.build import export_package

    manifest = export_package(chain.sections["export"], chain.run.dpo / "model", chain.run.package, check_texts(chain), chain.say)
    size = sum(facts["bytes"] for facts in manifest["files"].values())
    return {"check": manifest["check"], "quantization": manifest["quantization"], "bytes": size}


def check_texts(chain: Chain) -> list[str]:
    """What the package is checked on: held-out conversations and the opening of held-out documents, in turn."""
    from data_pipeline.records import read_documents
    from data_pipeline.storage import read_json_lines
    from data_pipeline.tokens.chat import render_chat

    pairs = read_json_lines(chain.run.held_out / "preferences.jsonl")
    chats = [render_chat([*row["prompt"], *row["chosen"]], add_generation_prompt=False) for row in pairs]
    documents = [document.text[:600] for document in read_documents(chain.run.web / "held_out.parquet")]
    longer = max(len(chats), len(documents))
    return [text for place in range(longer) for text in (*chats[place : place + 1], *documents[place : place + 1])]


def evaluate_stage(chain: Chain) -> dict[str, Any]:
    from eval import evaluate

    run, recipe = chain.run, chain.sections["eval"]
    models = {"base": run.pretrain / "model", "sft": run.sft / "model", "dpo": run.dpo / "model", "int4": run.package}
    tasks = ["mmlu", "exercises", "bits_per_byte", "preferences"]
    record: dict[str, Any] = {}
    for name, model in models.items():
        shown = chain.tasks(name)
        chat = name != "base"  # the base model was never shown a conversation
        found = evaluate(
            model,
            tasks=tasks,
            data=run.held_out,
            out=run.eval / name,
            shots=recipe.shots,
            chat=chat,
            scoring=recipe.scoring,
            progress=shown,
        )
        record[name] = {task: scores["score"] for task, scores in found["tasks"].items()}
        if chain.benchmarks:
            found = evaluate(
                model,
                tasks=["mmlu"],
                data=chain.benchmarks,
                out=run.eval / f"{name}-benchmarks",
                shots=recipe.benchmark_shots,
                scoring=recipe.scoring,
                chat=False,
                limit=None if chain.full else recipe.benchmark_items,
                progress=shown,
            )
            record[f"{name}-benchmarks"] = found["tasks"]["mmlu"]["score"]
    return record


def benchmark_files(chain: Chain) -> Any:
    """What decides the scores on the user's benchmarks: how many items, and the files."""
    from data_pipeline.storage import sha256_of

    if not chain.benchmarks:
        return None
    files = sorted((Path(chain.benchmarks) / "mmlu").glob("*/*.csv"))
    return [chain.full, [[file.parent.name, file.name, sha256_of(file)] for file in files]]


def bench_stage(chain: Chain) -> dict[str, Any]:
    # In a process of its own, so that the peak of its memory is the package's and not that of training.
    verb = [sys.executable, str(Path(__file__).with_name("phial.py")), "bench", str(chain.run.package)]
    done = subprocess.run([*verb, "--prompt-tokens", "128", "--json"], capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise InputError(done.stderr.strip().removeprefix("phial: "))
    if done.returncode:
        raise RuntimeError(f"phial bench ended with {done.returncode}: {done.stderr.strip()}")
    record = json.loads(done.stdout)
    write_json(chain.run.root / "bench.json", record)
    return record


STAGES = (
    Stage(
        name="collect",
        needs=(),
        sections=("run", "collect"),
        outputs=("crawl",),
        work=collect_stage,
        decides=crawl_files,
        line=collect_line,
    ),
    Stage(
        name="filter",
        needs=("collect",),
        sections=("web",),
        outputs=("web",),
        work=filter_stage,
        decides=filter_files,
        line=funnel_line,
    ),
    Stage(
        name="synthesize",
        needs=("filter",),
        sections=("synthetic",),
        outputs=("synthetic",),
        work=synthesize_stage,
        line=lambda r: (
            f"{r['documents']:,} lessons and sheets, {r['sft_rows']:,} chat rows, {r['dpo_rows']:,} preference pairs in "
            f"{len(r['families'])} families; {r['held_out_items']:,} four-way items held out; every answer checked"
        ),
    ),
    Stage(
        name="tokenize",
        needs=("filter", "synthesize"),
        sections=("tokenizer", "tokens"),
        outputs=("tokenizer", "tokens"),
        work=tokenize_stage,
        line=lambda r: (
            f"vocabulary of {r['tokenizer']['vocab_size']:,}; "
            + ", ".join(f"{source} {facts['tokens']:,} tokens" for source, facts in r["sources"].items())
        ),
    ),
    Stage(
        name="pretrain",
        needs=("tokenize",),
        sections=("model", "pretrain"),
        outputs=("pretrain/model", "pretrain/metrics.jsonl"),
        work=pretrain_stage,
        decides=lambda chain: chain.ranks,
        line=lambda r: f"{r['tokens']:,} tokens in {r['steps']:,} steps, {r['tokens_per_s']:,.0f} tokens/s, last loss {r['loss']:.3f}",
    ),
    Stage(
        name="sft",
        needs=("synthesize", "pretrain"),
        sections=("sft",),
        outputs=("sft/model", "sft/metrics.jsonl"),
        work=sft_stage,
        line=lambda r: (
            f"{r['rows']:,} rows, {r['tokens']:,} tokens ({r['trained_tokens']:,} of them answers), last loss {r['loss_last']:.3f}"
        ),
    ),
    Stage(
        name="dpo",
        needs=("synthesize", "sft"),
        sections=("dpo",),
        outputs=("dpo/model", "dpo/metrics.jsonl"),
        work=dpo_stage,
        line=lambda r: f"{r['rows']:,} pairs, last loss {r['loss_last']:.3f}, last margin {r['margin_last']:.2f}",
    ),
    Stage(
        name="export",
        needs=("filter", "synthesize", "dpo"),
        sections=("export",),
        outputs=("package",),
        work=export_stage,
        line=lambda r: f"{r['bytes'] / 1e6:.1f} MB, KL {r['check']['kl']:.4f}, top-1 agreement {r['check']['top1']:.1%} in onnxruntime",
    ),
    Stage(
        name="evaluate",
        needs=("synthesize", "pretrain", "sft", "dpo", "export"),
        sections=("eval",),
        outputs=("eval",),
        work=evaluate_stage,
        decides=benchmark_files,
        line=lambda r: "four-way accuracy: " + ", ".join(f"{name} {r[name]['mmlu']:.1%}" for name in MODELS),
    ),
    Stage(
        name="bench",
        needs=("export",),
        sections=(),
        outputs=("bench.json",),
        work=bench_stage,
        line=lambda r: f"4-bit package: reads {r['prompt_tokens_per_s']:,.0f} and writes {r['decode_tokens_per_s']:,.0f} tokens/s",
    ),
)


def sections_of(recipe: Recipe) -> dict[str, Any]:
    """Every section of the recipe as its room's model; the first bad setting is an error of one line."""
    from alignment.recipe import DpoRecipe, SftRecipe
    from data_pipeline.synthetic.recipe import SyntheticRecipe
    from data_pipeline.tokens.recipe import TokenizerRecipe, TokensRecipe
    from data_pipeline.web.recipe import CollectRecipe, WebRecipe
    from eval.recipe import EvalRecipe
    from export.recipe import ExportRecipe
    from training.recipe import ModelRecipe, PretrainRecipe

    models: dict[str, type[Section]] = {
        "run": RunRecipe,
        "collect": CollectRecipe,
        "web": WebRecipe,
        "synthetic": SyntheticRecipe,
        "tokenizer": TokenizerRecipe,
        "tokens": TokensRecipe,
        "model": ModelRecipe,
        "pretrain": PretrainRecipe,
        "sft": SftRecipe,
        "dpo": DpoRecipe,
        "eval": EvalRecipe,
        "export": ExportRecipe,
    }
    return {name: recipe.section(name, model) for name, model in models.items()}
