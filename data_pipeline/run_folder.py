"""Where the stages of one run keep their results: the one place that knows the names."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.errors import InputError
from data_pipeline.storage import is_local


@dataclass(frozen=True)
class RunFolder:
    """The folders of a run. A verb that takes a recipe reads from and writes to these."""

    root: Path

    @classmethod
    def open(cls, folder: str | Path) -> "RunFolder":
        """The run folder, made if need be; a file of that name or a folder that cannot be written is an error of one line."""
        if not is_local(folder):
            raise InputError(f"{folder}: an address; the run folder must be on this machine, choose it with --out")
        root = Path(folder)
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(f"{root}: a file stands there; the run folder must be a folder") from error
        except OSError as error:
            raise InputError(f"{root}: cannot be written ({error.strerror}); choose another folder with --out") from error
        return cls(root)

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.toml"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def crawl(self) -> Path:
        """WARC files, and truth.jsonl where the pages were generated."""
        return self.root / "crawl"

    @property
    def measured(self) -> Path:
        """Segments of measured pages, which a build goes on from."""
        return self.root / "measured"

    @property
    def web(self) -> Path:
        """kept.parquet, dropped.parquet, held_out.parquet, ledger.parquet, funnel.json."""
        return self.root / "web"

    @property
    def data_report(self) -> Path:
        """report.html, report.json and Parquet tables of the web build."""
        return self.root / "data_report"

    @property
    def synthetic(self) -> Path:
        """documents.parquet, sft.jsonl, dpo.jsonl and held_out/."""
        return self.root / "synthetic"

    @property
    def held_out(self) -> Path:
        """Held-out benchmark files, a folder that `phial eval --data` takes."""
        return self.synthetic / "held_out"

    @property
    def tokenizer(self) -> Path:
        """tokenizer.json, tokenizer_config.json, chat_template.jinja."""
        return self.root / "tokenizer"

    @property
    def tokens(self) -> Path:
        """One folder of token shards per source."""
        return self.root / "tokens"

    @property
    def pretrain(self) -> Path:
        """checkpoints/, metrics.jsonl, and model/ in Hugging Face's layout."""
        return self.root / "pretrain"

    @property
    def sft(self) -> Path:
        return self.root / "sft"

    @property
    def dpo(self) -> Path:
        return self.root / "dpo"

    @property
    def package(self) -> Path:
        """The 4-bit package."""
        return self.root / "package"

    @property
    def eval(self) -> Path:
        return self.root / "eval"
