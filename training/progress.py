"""What a person sees while a run trains: a live panel in a terminal, plain lines elsewhere."""

from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_LINES = 20  # in a file or a pipe, a line is printed at about this many points of a run
CURVE_POINTS = 40
BARS = "▁▂▃▄▅▆▇█"


class TrainingProgress:
    """Shows the rows of the metrics; a context manager. `stream` None shows nothing."""

    def __init__(self, num_steps: int, done: int, stream: TextIO | None) -> None:
        self.num_steps = num_steps
        self.console = Console(file=stream, highlight=False, soft_wrap=True) if stream else None
        self.every = max(1, num_steps // PLAIN_LINES)
        self.next_line = (done // self.every + 1) * self.every
        self.losses: list[float] = []
        self.live: Live | None = None
        if self.console is not None and self.console.is_terminal:
            columns = (TextColumn("pretrain"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task("pretrain", total=num_steps, completed=done)
            self.live = Live(self.bar, console=self.console, refresh_per_second=4)

    def __enter__(self) -> "TrainingProgress":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, line: str) -> None:
        """One line, above the panel."""
        if self.console is not None:
            self.console.print(line, markup=False)

    def advance(self, step: int) -> None:
        """Moves the bar to `step`."""
        if self.live is not None:
            self.bar.update(self.task, completed=step)

    def show(self, row: dict[str, Any]) -> None:
        """A logged row: its figures under the bar, or a line where it is time for one."""
        if row["loss"] is not None:
            self.losses = [*self.losses, row["loss"]][-CURVE_POINTS:]
        if self.live is not None:
            self.live.update(Group(self.bar, panel(row, self.losses)))
        elif self.console is not None and (row["step"] >= self.next_line or row["step"] == self.num_steps):
            self.next_line = (row["step"] // self.every + 1) * self.every
            tokens_left = (self.num_steps - row["step"]) * row["tokens"] / row["step"]
            left = tokens_left / row["tokens_per_s"]
            self.say(
                f"pretrain: step {row['step']}/{self.num_steps} ({row['phase']}), loss {number(row['loss'])}, "
                f"{row['tokens_per_s']:,.0f} tokens/s, about {left:,.0f} s left"
            )


def panel(row: dict[str, Any], losses: list[float]) -> Table:
    """The newest row of the metrics as a small table."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("loss", f"{number(row['loss'])}  {curve(losses)}")
    table.add_row("gradient norm", f"{number(row['grad_norm'])}   learning rate {row['learning_rate']:.3g}")
    speed = f"{row['tokens_per_s']:,.0f} tokens/s"
    if row.get("mfu_causal") is not None:
        speed += f"   MFU {row['mfu_causal']:.1%} causal, {row['mfu_full']:.1%} full"
    table.add_row("speed", speed)
    table.add_row("memory", f"{row['memory_bytes'] / 2**30:.2f} GiB")
    read = ", ".join(f"{source} {rows:,}" for source, rows in row["rows_read"].items())
    table.add_row("data", f"phase {row['phase']}, {row['tokens']:,} tokens; rows of {read}")
    spent = sum(row["seconds_by_part"].values()) or 1.0
    table.add_row("time", ", ".join(f"{part} {seconds / spent:.0%}" for part, seconds in row["seconds_by_part"].items()))
    if row["left_out"]:
        table.add_row("left out", f"{row['left_out']:,} updates, as spikes")
    return table


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def curve(values: list[float]) -> str:
    """The values as a row of bars, lowest to highest."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    return "".join(BARS[round((value - low) / ((high - low) or 1) * (len(BARS) - 1))] for value in values)
