"""The held-out texts that a package is checked on: plain text, JSON lines, or Parquet documents."""

from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.records import read_documents
from data_pipeline.storage import read_json_lines
from data_pipeline.tokens.chat import render_chat


def read_check_texts(path: Path) -> list[str]:
    """The texts of a file: `.jsonl` rows with `text` or `messages`, the `text` of `.parquet` documents, or any other file as one text."""
    if path.suffix == ".jsonl":
        texts = [row_text(row, f"{path}, row {number}") for number, row in enumerate(read_json_lines(path), 1)]
    elif path.suffix == ".parquet":
        texts = [document.text for document in read_documents(path)]
    else:
        texts = [plain_text(path)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise InputError(f"{path}: holds no text")
    return texts


def row_text(row: dict[str, Any], where: str) -> str:
    """A row's `text`, or its `messages` in chat format."""
    if isinstance(row.get("text"), str):
        return row["text"]
    if isinstance(row.get("messages"), list):
        return render_chat(row["messages"], add_generation_prompt=False)
    raise InputError(f"{where}: a row needs 'text' or 'messages', got {', '.join(row) or 'nothing'}")


def plain_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: a folder; a file of text, JSON lines or Parquet documents is needed") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text") from error
