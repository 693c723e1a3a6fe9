"""What reading yields: pages, broken places, and the place behind each, from which reading goes on."""

from dataclasses import asdict, dataclass, field
from typing import Any

from data_pipeline.errors import InputError

# This many broken places of a file are told in words; the others are counted.
MAX_LINES = 100


@dataclass(frozen=True)
class Place:
    """Right behind a record: what a reader needs to go on from there as if it had never stopped.

    `offset` is the byte in the file at which to begin (of a gzip member where the file has them; of Parquet the row group), `inside` how
    many unpacked bytes (of Parquet rows) lie between there and the place.
    """

    offset: int = 0
    inside: int = 0
    record: int = 0  # records read so far
    broken: int = 0  # broken places so far
    snapshot: str = ""  # what the file said of itself
    rewinds: int = 0
    done: bool = False  # the closing line was given

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `Place(**row)` is the way back."""
        return asdict(self)


class NotWebData(InputError):
    """A file without a beginning of any known format: an error where it is named alone, a damage among the files of a crawl."""


@dataclass(frozen=True)
class Page:
    """One fetched page."""

    id: str  # the file's name, the byte offset and the number of its record
    url: str
    html: bytes  # decoded of transfer and content coding; empty when `problem` says why, or when there is `text`
    charset: str  # as the HTTP header declares it; empty when it does not
    problem: str = ""  # "http_status", "not_html", "too_large", "revisit"
    value: float = 0.0  # the measured value behind the problem
    text: str = ""  # of records that hold text and no HTML: WET, Parquet, JSON lines
    fetched: str = ""  # as the record says it, usually ISO 8601
    metadata: dict[str, str] = field(default_factory=dict)  # robots, licence, language, snapshot: those that are known
    place: Place = Place()


@dataclass(frozen=True)
class Broken:
    """Records that could not be read; reading goes on behind them."""

    line: str
    count: int = 1
    place: Place = Place()


class Damaged(Exception):
    """The data, not the store, is bad. Caught within this folder."""


class Bomb(Damaged):
    """A gzip member unpacks to far more than its size."""
