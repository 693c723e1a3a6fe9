"""What a person sees while a run trains: a live bar in a terminal, plain lines elsewhere."""

from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# In a file or a pipe, a line is printed at about this many points of a run.
PLAIN_LINES = 20


class TrainingProgress:
    """Shows the rows of the metrics; a context manager. `stream` None shows nothing."""

    def __init__(self, num_steps: int, done: int, stream: TextIO | None) -> None:
        self.num_steps = num_steps
        self.stream = stream
        self.console = Console(file=stream, highlight=False, soft_wrap=True) if stream else None
        self.every = max(1, num_steps // PLAIN_LINES)
        self.next_line = (done // self.every + 1) * self.every
        self.bar: Progress | None = None
        if self.console is not None and self.console.is_terminal:
            self.bar = Progress(
                TextColumn("pretrain"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}  {task.fields[speed]} tokens/s"),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.task = self.bar.add_task("pretrain", total=num_steps, completed=done, loss="-", speed="-")

    def __enter__(self) -> "TrainingProgress":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, line: str) -> None:
        """One line, above the bar."""
        if self.console is not None:
            self.console.print(line, markup=False)

    def advance(self, step: int) -> None:
        """Moves the bar to `step`."""
        if self.bar is not None:
            self.bar.update(self.task, completed=step)

    def show(self, row: dict[str, Any]) -> None:
        """A logged row: its figures on the bar, or a line where it is time for one."""
        if self.bar is not None:
            self.bar.update(self.task, completed=row["step"], loss=f"{row['loss']:.3f}", speed=f"{row['tokens_per_s']:,.0f}")
        elif self.console is not None and (row["step"] >= self.next_line or row["step"] == self.num_steps):
            self.next_line = (row["step"] // self.every + 1) * self.every
            tokens_left = (self.num_steps - row["step"]) * row["tokens"] / row["step"]
            left = tokens_left / row["tokens_per_s"]
            self.say(
                f"pretrain: step {row['step']}/{self.num_steps} ({row['phase']}), loss {row['loss']:.3f}, "
                f"{row['tokens_per_s']:,.0f} tokens/s, about {left:,.0f} s left"
            )
