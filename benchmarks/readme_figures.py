"""Rewrites every figure in README.md from benchmarks/results/*.json: python -m benchmarks.readme_figures (--check changes nothing)

A block between `<!-- figures: NAME -->` and `<!-- /figures -->` is written by the function of that name below. Text outside the blocks
holds no figures; tests/test_readme.py sees to both.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.storage import atomic_write, read_json

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks/results"
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n)(.*?)(<!-- /figures -->)", re.DOTALL)
MODELS = {"base": "pretrained", "sft": "fine-tuned", "dpo": "preferred (DPO)", "int4": "4-bit package"}
PAIRS = {"sft_minus_base": "fine-tuned − pretrained", "dpo_minus_sft": "DPO − fine-tuned", "int4_minus_dpo": "4-bit − DPO"}
SCORINGS = {
    "letter": "the letter's probability (A to D)",
    "text": "the summed log-probability of each option's text and of the answer's end",
    "text_per_byte": "the log-probability of each option's text per byte",
}


def score(one: dict[str, Any], name: str = "accuracy", error: str = "stderr") -> str:
    """`64.1 ± 1.2 %`, the standard error after the sign; without it where there is none."""
    spread = f" ± {100 * one[error]:.1f}" if error in one else ""
    return f"{100 * one[name]:.1f}{spread} %"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def stage(demo: dict[str, Any], name: str) -> dict[str, Any]:
    """What a stage says of itself."""
    return next(one["counts"] for one in demo["stages"] if one["name"] == name)


def machine(demo: dict[str, Any]) -> str:
    """The processor, cores and memory the figures were measured on."""
    found = demo["machine"]
    return f"{found['cores']} cores ({found['cpu']}), {found['memory_bytes'] / 2**30:.0f} GiB of memory"


def run(demo: dict[str, Any]) -> str:
    """What `make demo` takes."""
    return (
        f"Measured: {demo['wall_s'] / 60:.1f} minutes wall time, {demo['cpu_s'] / 60:.1f} CPU minutes and at most "
        f"{demo['peak_rss_bytes'] / 2**30:.1f} GiB in one process, after installation, on {machine(demo)}.\n"
    )


def scores(demo: dict[str, Any]) -> str:
    """One row per model."""
    rows = []
    for model, title in MODELS.items():
        choice, exact = demo["multiple_choice"][model], demo["exact_answers"][model]
        preferred = demo["preference_accuracy"].get(model)
        row = [title, score(choice), score(choice, "letter_accuracy", "letter_stderr"), score(exact), f"{demo['bits_per_byte'][model]:.3f}"]
        rows.append([*row, score(preferred) if preferred else "–"])
    one, exact = demo["multiple_choice"]["sft"], demo["exact_answers"]["sft"]
    pairs = demo["preference_accuracy"]["sft"]
    head = ["model", "four-way", "by letter", "exact answers", "bits per byte", "preferences"]
    return (
        f"{table(head, rows)}\n"
        f"Four-way: {one['items']:,} held-out items of {len(demo['families']['sft'])} families, scored by {SCORINGS[one['scoring']]}, the "
        f"scoring that the recipe names; by letter: {SCORINGS['letter']}. Chance is {one['chance']:.0%} for both. Exact answers: "
        f"{exact['items']:,} held-out exercises, answered greedily. Bits per byte: held-out documentation pages, lower is better. "
        f"Preferences: {pairs['items']:,} held-out pairs, chance {pairs['chance']:.0%}. After the sign stands one standard error.\n"
    )


def families(demo: dict[str, Any]) -> str:
    """The four-way score of every family; a family within two standard errors of chance is marked."""
    rows = []
    for family in demo["families"]["sft"]:
        found = [demo["families"][model][family] for model in MODELS]
        rows.append([family.replace("_", " "), *(score(one) + (" °" if one["near_chance"] else "") for one in found)])
    items = next(iter(demo["families"]["sft"].values()))["items"]
    marked = "° within two standard errors of chance, or below it."
    return f"{table(['family', *MODELS.values()], rows)}\n{items:,} items each. {marked}\n"


def paired(demo: dict[str, Any]) -> str:
    """The differences over the same items."""
    rows = []
    for name, title in PAIRS.items():
        one = demo["paired"][name]
        changed = f"{one['wrong_to_right']:,} / {one['right_to_wrong']:,}"
        rows.append([title, f"{one['points']:+.1f} points", f"{one['low']:+.1f} to {one['high']:+.1f}", changed, f"{one['p_value']:.2g}"])
    interval = f"{next(iter(demo['paired'].values()))['confidence']:.0%} interval"
    head = ["four-way, same items", "difference", interval, "gained / lost", "McNemar's p"]
    return f"{table(head, rows)}\nThe intervals are exact for how the changed items split (Clopper–Pearson).\n"


def package(demo: dict[str, Any]) -> str:
    """The 4-bit package: size, speed, closeness, and the chat page's answers."""
    bench, check = demo["bench"], demo["quantization"]
    lines = [
        f"- {bench['package_bytes'] / 1e6:.1f} MB on disk, loaded in {bench['load_s']:.2f} s; reads a prompt of {bench['prompt_tokens']} "
        f"tokens at {bench['prompt_tokens_per_s']:,.0f} tokens/s and writes {bench['decode_tokens_per_s']:,.0f} tokens/s "
        f"({bench['threads']} threads); {bench['peak_rss_bytes'] / 2**20:,.0f} MiB at most.",
        f"- Against the float32 model, as onnxruntime runs it, over {check['tokens']:,} held-out tokens: KL {check['kl']:.4f} nats, same "
        f"most likely token {check['top1']:.1%}.",
    ]
    if "browser" in demo:
        found = demo["browser"]
        console = f"{found['console_errors']} errors in its console" if found["console_errors"] else "no error in its console"
        lines.append(f"- In headless Chromium the page gave Python's greedy tokens for {found['equal']} of {found['questions']} held-out "
                     f"questions, with {console}.")  # fmt: skip
    return "\n".join(lines) + "\n"


def model(demo: dict[str, Any]) -> str:
    """How large the demo's model is and what it has read."""
    web = stage(demo, "filter")
    trained, tuned = stage(demo, "pretrain"), stage(demo, "sft")
    return (
        f"- It has {trained['parameters'] / 1e6:.1f} million parameters and has read {trained['tokens'] / 1e6:.1f} million tokens: "
        f"{web['kept']['documents']:,} pages of Python documentation and generated lessons, then {tuned['tokens'] / 1e6:.1f} million "
        "tokens of chat rows.\n"
    )


def letters(demo: dict[str, Any]) -> str:
    """Whether letter scoring says anything at this size."""
    one = demo["multiple_choice"]["dpo"]
    near = one["letter_accuracy"] - one["chance"] < 2 * one["letter_stderr"]
    found = score(one, "letter_accuracy", "letter_stderr")
    if near:
        return f"- By letter it is at chance ({found}): it points at the right option and copies it, but does not name its letter.\n"
    return f"- By letter it reaches {found}; copying the right option's text is what a model of this size learns first.\n"


def written(demo: dict[str, Any]) -> str:
    """How often an answer in its own words is right."""
    one = demo["exact_answers"]["int4"]
    return f"- Written answers are exactly right in {score(one)}: it points at a right option far more often than it writes one.\n"


def forgetting(demo: dict[str, Any]) -> str:
    """What fine-tuning on short rows does to plain text."""
    before, after = demo["bits_per_byte"]["base"], demo["bits_per_byte"]["sft"]
    if after <= before:
        return f"- Fine-tuning keeps plain text: {before:.2f} bits per byte before, {after:.2f} after.\n"
    return f"- Fine-tuning on short chat rows costs plain text: {before:.2f} bits per byte of documentation before, {after:.2f} after.\n"


def source(demo: dict[str, Any]) -> str:
    """Which run the figures are from."""
    packages = ", ".join(f"{name} {number}" for name, number in demo["machine"]["packages"].items())
    return (
        f"One run with seed {demo['seed']}, commit `{demo['commit'][:12] or 'unknown'}`, {demo['date'][:10]}, Python "
        f"{demo['machine']['python']}, {packages}. Everything above is in `benchmarks/results/demo.json`.\n"
    )


def verbs(_: dict[str, Any]) -> str:
    """The verbs, from the table that the command itself uses."""
    import phial

    return table(["verb", "what it does"], [[f"`phial {verb}`", line] for verb, (_, line) in phial.VERBS.items()]).replace("---:", "---")


BLOCKS: dict[str, Callable[[dict[str, Any]], str]] = {
    one.__name__: one for one in (run, scores, families, paired, package, model, letters, written, forgetting, source, verbs)
}


def render(text: str, demo: dict[str, Any]) -> str:
    """The page with every block written anew; an unknown block is an error."""

    def write(found: re.Match[str]) -> str:
        opening, name, _, closing = found.groups()
        if name not in BLOCKS:
            raise InputError(f"README.md: no figures called {name!r}; there is {', '.join(BLOCKS)}")
        return f"{opening}{BLOCKS[name](demo)}{closing}"

    if len(BLOCK.findall(text)) != text.count("<!-- figures:"):
        raise InputError("README.md: a block of figures is not closed by <!-- /figures -->")
    return BLOCK.sub(write, text)


def main() -> None:
    try:
        before = README.read_text(encoding="utf-8")
        after = render(before, read_json(RESULTS / "demo.json"))
    except InputError as error:
        sys.exit(f"benchmarks.readme_figures: {error}")
    if "--check" in sys.argv[1:]:
        sys.exit(0 if after == before else "README.md is not what the results say; run: python -m benchmarks.readme_figures")
    with atomic_write(README, "w") as stream:
        stream.write(after)
    print("README.md: figures unchanged" if after == before else "README.md: figures written")


if __name__ == "__main__":
    main()
