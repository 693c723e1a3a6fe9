"""The front door: one verb per line, imported only when it is called."""

import errno
import importlib
import json
import os
import re
import sys
from typing import Any

import typer
from typer.core import TyperGroup

# verb -> where its Typer function or Typer app is, and the line that `phial --help` shows. A verb appears when it works, never before.
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo:command", "The whole chain on this machine: raw pages in, a 4-bit model you can chat with out."),
    "data": ("data_pipeline.commands:data", "Web pages and synthetic text: collect, build, synthesize, extract, tokenize."),
    "tokenizer": ("data_pipeline.commands:tokenizer", "Train the byte-level BPE tokenizer, or convert a published one."),
    "worker": ("data_pipeline.commands:worker", "Do the tasks of a journal: on a Slurm node, in a cloud batch job, on a spot machine."),
    "plan": ("training.plan.commands:plan", "What a pretraining run needs and how fast it may be, before a GPU is rented."),
    "launch": ("training.cluster.commands:launch", "Pretrain on several machines, watched and restarted; or rehearse that on one."),
    "pretrain": ("training.commands:pretrain", "Train a decoder from token shards."),
    "convert": ("modeling.commands:convert", "Hugging Face folder to checkpoint, and back."),
    "sft": ("alignment.commands:sft", "Supervised fine-tuning on chat rows, loss on the answers only."),
    "dpo": ("alignment.commands:dpo", "Direct preference optimisation on chosen and rejected answers."),
    "eval": ("eval.commands:evaluate", "Score a model on benchmarks."),
    "export": ("export.commands:export", "Write a checked 4-bit ONNX package."),
    "chat": ("export.commands:chat", "Chat with a model in the terminal: a package, or float weights."),
    "serve": ("export.commands:serve", "Chat with a package in the browser; the model runs inside the tab."),
    "bench": ("export.commands:bench", "Measure a package: tokens per second, load time, memory."),
}

# What the operating system says when a disk or a path, not the program, is at fault.
STORAGE_ERRORS = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG}
STORAGE_ERRORS |= {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}  # a file where a folder is needed, or the other way round
STORAGE_ERRORS |= {errno.EBUSY}  # a mount point where a folder is to be replaced
# How torch says on CPUs and GPUs that memory did not suffice: a RuntimeError like any other, told by its words alone.
OUT_OF_MEMORY = re.compile(r"not enough memory|can't allocate memory|out of memory|bad_alloc|Storage size calculation overflowed")


class LazyGroup(TyperGroup):
    """Lists the verbs from the table and imports only the one that is run."""

    def list_commands(self, ctx: typer.Context) -> list[str]:
        return list(VERBS)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            ctx.fail(f"no verb {cmd_name!r}; there is {', '.join(VERBS)}")
        target, help_line = VERBS[cmd_name]
        module, attribute = target.split(":")
        found: Any = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            command = typer.main.get_command(found)
        else:
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command(name=cmd_name)(found)
            command = typer.main.get_command(app)
        command.name = cmd_name
        command.help = command.help or help_line
        return command


app = typer.Typer(cls=LazyGroup, add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def front_door() -> None:
    """Phial: small language models that know a lot for their size, from raw web pages to a 4-bit model on a phone."""


def one_line(error: BaseException) -> str | None:
    """The line for an error that the user can mend; None for a fault of ours, which keeps its traceback."""
    if isinstance(error, typer.Abort):
        return "stopped: a question was left without an answer"
    usage = getattr(error, "format_message", None)  # of Typer's errors about the command line: an unknown option, a missing argument
    if usage is not None:
        return " ".join(usage().split())
    if getattr(error, "exit_code", None) == 2:
        return " ".join(str(error).split())
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))):
        asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.I)
        wanted = f" for {asked[1]} more" if asked else ""
        return f"not enough memory{wanted}; a smaller model, context or batch is needed; what was complete before is kept"
    number = system_error(error)
    if number in STORAGE_ERRORS:
        return f"{getattr(error, 'filename', None) or 'output'}: {os.strerror(number)}; what was complete before is kept"
    return None


def system_error(error: BaseException) -> int:
    """The operating system's number for an error, 0 where it has none. Libraries in Rust (safetensors) say it only in their text."""
    if isinstance(error, OSError):
        return error.errno or 0
    told = re.search(r"\(os error (\d+)\)$", str(error))
    return int(told[1]) if told else 0


def run(arguments: list[str]) -> int:
    """Runs the verb and returns the exit code; an error that the user can mend becomes one line and 2, Ctrl-C 130."""
    try:
        code = app(arguments, prog_name="phial", standalone_mode=False)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `phial` or `phial data` alone: its message is the help text
            error.show()  # type: ignore[attr-defined]
            return 2
        line = one_line(error)
        if line is None:
            raise
        if "--json" in arguments:
            print(json.dumps({"error": line}, ensure_ascii=False))
        print(f"phial: {line}", file=sys.stderr)
        return 2
    if code == 130:
        print("phial: interrupted; what was complete before is kept", file=sys.stderr)
    return code if type(code) is int else 0


def main() -> None:
    """The entry point."""
    raise SystemExit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
