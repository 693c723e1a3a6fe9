"""The pages of one file of web data, as the stages read them; the reading itself is in `web/reading`."""

from collections.abc import Iterator

from data_pipeline.web.reading import Broken, Page, Place, ReadLimits, read_records
from data_pipeline.web.reading.bodies import decoded

__all__ = ["Broken", "Page", "Place", "ReadLimits", "decoded", "has_pages", "read_pages"]


def read_pages(path: str, max_bytes: int = 8_000_000) -> Iterator[Page | Broken]:
    """The pages of one file in order, and where it is broken; files of every format that `read_records` knows.

    Raises InputError when the file is missing, is of no known format, or cannot be read from its store.
    """
    return read_records(path, limits=ReadLimits(max_page_bytes=max_bytes))


def has_pages(path: str) -> bool:
    """Whether a file holds at least one page; raises InputError as `read_pages` does."""
    return any(isinstance(one, Page) and not one.problem for one in read_pages(path))
