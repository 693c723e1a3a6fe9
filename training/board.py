"""TensorBoard's event files, where somebody wants them."""

from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError

SHOWN = ("loss", "grad_norm", "learning_rate", "tokens_per_s", "mfu_causal", "mfu_full", "memory_bytes", "left_out")


class Board:
    """Writes rows of the metrics as scalars; without a folder it does nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError('[pretrain] tensorboard = true needs the package tensorboard: pip install -e ".[tensorboard]"') from error
        self.writer = SummaryWriter(str(folder))

    def add(self, row: dict[str, Any]) -> None:
        """One logged row."""
        if self.writer is None:
            return
        for name in SHOWN:
            if row.get(name) is not None:
                self.writer.add_scalar(name, row[name], row["step"])
        for source, rows in row.get("rows_read", {}).items():
            self.writer.add_scalar(f"rows_read/{source}", rows, row["step"])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
