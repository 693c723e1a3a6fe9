"""The verbs of this room: export, chat, serve, bench."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

PackageFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A package written by `phial export`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Prints the result as one JSON object.")]
Threads = Annotated[int, typer.Option(min=0, max=256, help="Threads; 0 takes one per core.")]


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A Hugging Face Phi3 folder with its tokenizer.")],
    out: Annotated[Path, typer.Option(help="The package folder; one that stands there is replaced when the new one is complete.")],
    recipe: Annotated[str | None, typer.Option(help="A recipe whose [export] section is read; the defaults without one.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides a setting; may be given again.")
    ] = None,
    check_text: Annotated[
        Path | None, typer.Option(help="Held-out text for the check: text, .jsonl or .parquet. Samples of the model itself without one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a checked 4-bit ONNX package.

    The file is run in onnxruntime and compared with the float32 model token by token; nothing is written where it is over budget.
    """
    from data_pipeline.recipe import Recipe
    from export.recipe import ExportRecipe

    read = Recipe.load(recipe, overrides) if recipe else Recipe({}, "--set")
    for override in [] if recipe else overrides or []:
        read.override(override)
    section = read.section("export", ExportRecipe)

    from export.build import export_package
    from export.check_text import read_check_texts

    texts = read_check_texts(check_text) if check_text else None
    manifest = export_package(section, model, out, texts, progress=lambda line: print(line, file=sys.stderr, flush=True))
    if as_json:
        print(json.dumps({"package": str(out), "check": manifest["check"], "limits": manifest["limits"], "files": manifest["files"]}))
        return
    check, limits = manifest["check"], manifest["limits"]
    print(f"{out}: {sum(one['bytes'] for one in manifest['files'].values()) / 1e6:.2f} MB, context {limits['context']}")
    print(
        f"against float32, over {check['tokens']} tokens of {check['text']}: KL {check['kl']:.4f} nats per token, "
        f"top-1 agreement {check['top1']:.1%}, bits per byte {check['bits_per_byte']:.4f} (float32 {check['bits_per_byte_float32']:.4f})"
    )


def chat(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="A package, a Hugging Face folder, or a checkpoint.")],
    system: Annotated[str, typer.Option(help="What the system turn says.")] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens per answer at most.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draws from the likeliest tokens that make up this share.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draws from so many likeliest tokens; 0 is all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    threads: Threads = 0,
) -> None:
    """Chat with a model in the terminal: a 4-bit package, or the float weights in torch.

    /reset begins anew, Ctrl-C stops an answer, Ctrl-D ends. Where standard input is no terminal, each line is a question, Ctrl-C ends, and
    the exit code is 2 if a question was refused; its answer is an empty line.
    """
    from export.conversation import Conversation
    from export.decoder_runner import open_session
    from export.sampling import Sampling

    settings = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    Sampling(**settings)  # refuses settings out of range before the model is loaded
    conversation = Conversation(open_session(folder, threads), max_new_tokens, system, **settings)
    for stream in (sys.stdin, sys.stdout):
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")  # what the stream's encoding cannot say becomes a question mark, not a crash
    terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout is not None  # None: closed by whoever started us
    if terminal:
        print(f"{folder}: context of {conversation.session.context} tokens; /reset begins anew, Ctrl-C stops an answer, Ctrl-D ends")
    refused = 0
    while (line := next_line(terminal)) is not None:
        if line == "/reset":
            conversation.reset()
            print("(a new conversation)", file=sys.stderr)
        elif line:
            refused += not say(conversation, line, terminal)
    if refused and not terminal:
        raise typer.Exit(2)


def next_line(terminal: bool) -> str | None:
    """What is typed or piped in next, without the blanks around it; None at the end. Ctrl-C at a prompt goes on, in a pipe it ends."""
    if not terminal:
        line = sys.stdin.readline() if sys.stdin is not None else ""
        return line.strip() if line else None
    while True:
        try:
            return input("> ").strip()
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print("\n(Ctrl-D ends)")


def say(conversation: Any, line: str, terminal: bool) -> bool:
    """Prints one answer as it comes and returns whether there was one; a question that is too long gets its line, Ctrl-C ends the answer.

    In a pipe a refused question has an empty answer, so that answers stay beside their questions, and Ctrl-C goes on to the front door.
    """
    from data_pipeline.errors import InputError

    try:
        gone, pieces = conversation.ask(line)
        if gone:
            print(f"({gone} old exchange{'s' if gone > 1 else ''} let go: the context is full)", file=sys.stderr)
        try:
            for piece in pieces:
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            pieces.close()
            print(" (stopped)", end="" if terminal else "\n", flush=True)
            if not terminal:
                raise
        print(flush=True)
    except InputError as error:
        print(f"phial: {error}", file=sys.stderr)
        if not terminal:
            print(flush=True)
        return False
    return True


def serve(
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="A package written by `phial export`.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The port; without it 8127 or the next that is free.")] = None,
    browser: Annotated[bool, typer.Option(help="Whether a browser window is opened.")] = True,
    fetch: Annotated[bool, typer.Option("--fetch-runtime", help="Fetches the browser runtime into the user's cache, once.")] = False,
) -> None:
    """Chat with a package in the browser; the model runs inside the tab, and no text leaves this machine.

    The page works without the internet; the runtime it needs is fetched once with --fetch-runtime.
    """
    from data_pipeline.errors import InputError

    def tell(line: str) -> None:
        print(line, flush=True)

    if folder is None and not fetch:
        raise InputError("phial serve: DIR is missing; a package written by `phial export` is needed, or --fetch-runtime")
    if fetch:
        from export.runtime import fetch_runtime

        fetch_runtime(tell)
    if folder is not None:
        from export.serve import serve_package

        serve_package(folder, port, browser, tell)


def bench(
    folder: PackageFolder,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Length of the prompt.")] = 512,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens decoded after it.")] = 64,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Measure a package: tokens per second, load time, memory, and the share of the memory bandwidth that was reached."""
    from export.bench import bench as measure

    found = measure(folder, prompt_tokens, new_tokens, threads)
    if as_json:
        print(json.dumps(found))
        return
    print(f"prompt     {found['prompt_tokens_per_s']:>10.1f} tokens/s   ({found['prompt_tokens']} tokens, {found['threads']} threads)")
    print(f"decode     {found['decode_tokens_per_s']:>10.1f} tokens/s   (median of {found['new_tokens']})")
    print(f"load       {found['load_s']:>10.2f} s          ({found['package_bytes'] / 1e6:.1f} MB, checksums included)")
    print(f"peak RSS   {found['peak_rss_bytes'] / 2**20:>10.0f} MiB")
    print(f"bandwidth  {found['bandwidth_bytes_per_s'] / 1e9:>10.1f} GB/s       (triad, same run)")
    print(f"achieved   {found['achieved_over_limit']:>10.1%} of it       ({found['streamed_bytes_per_token'] / 1e6:.2f} MB read per token)")
