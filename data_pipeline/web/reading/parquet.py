"""Parquet files with a column of text or HTML, a few rows at a time."""

from collections.abc import Iterator
from typing import IO, Any

from data_pipeline.errors import InputError
from data_pipeline.web.reading.fields import HTML, NAMES, TEXT, page_of_fields
from data_pipeline.web.reading.limits import ReadLimits
from data_pipeline.web.reading.records import MAX_LINES, Broken, NotWebData, Page, Place

BATCH = 64  # rows


def read_parquet(stream: IO[bytes], path: str, name: str, limits: ReadLimits, start: Place) -> Iterator[Page | Broken]:
    """The pages of the rows; a row group that cannot be read is counted once and left out from where it is bad."""
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(stream, pre_buffer=False)
        names = set(file.schema_arrow.names)
    except Exception as error:  # pyarrow has many for bad data
        raise NotWebData(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
    if not names & {*TEXT, *HTML}:
        raise NotWebData(f"{path}: no column of text; one of {', '.join((*TEXT, *HTML))} is needed, it has {', '.join(sorted(names))}")
    columns = sorted(names & NAMES)
    record, broken, done = start.record, start.broken, start.done
    for group in range(start.offset, file.metadata.num_row_groups):
        row = start.inside if group == start.offset else 0
        rows = file.metadata.row_group(group).num_rows
        try:
            for cells in group_rows(file, group, columns, row):
                row += 1
                record += 1
                place = Place(group, row, record, broken, start.snapshot)
                try:
                    page = page_of_fields(cells, f"{name}:{group}:{record}", limits.max_page_bytes, start.snapshot)
                except ValueError as error:
                    broken += 1
                    if broken <= MAX_LINES:
                        line = f"{path}: row {record:,}: {error}"
                        yield Broken(line, 1, Place(group, row, record, broken, start.snapshot))
                    continue
                yield Page(**{**page.__dict__, "place": place})
        except OSError as error:
            if "thrift" in str(error).lower() or "corrupt" in str(error).lower() or "parquet" in str(error).lower() or is_damage(error):
                what = error
            else:
                raise InputError(f"{path}: reading failed: {type(error).__name__}: {error}") from error
            broken, record = broken + 1, record + rows - row
            if broken <= MAX_LINES:
                line = f"{path}: row group {group} is unreadable from row {row:,} of {rows:,} on ({str(what).splitlines()[0]})"
                yield Broken(line, 1, Place(group + 1, 0, record, broken, start.snapshot))
    if broken > MAX_LINES and not done:
        last = Place(file.metadata.num_row_groups, 0, record, broken, start.snapshot, done=True)
        yield Broken(f"{path}: {broken - MAX_LINES:,} more broken rows", broken - MAX_LINES, last)


def is_damage(error: OSError) -> bool:
    """pyarrow tells bad data as OSError too, then without the number that the system's errors carry."""
    return error.errno is None


def group_rows(file: Any, group: int, columns: list[str], skipped: int) -> Iterator[dict[str, Any]]:
    """The rows of a row group behind the first `skipped`; cells as bytes or text, bad UTF-8 as bytes."""
    import pyarrow

    seen = 0
    for batch in file.iter_batches(batch_size=BATCH, row_groups=[group], columns=columns):
        if seen + batch.num_rows <= skipped:
            seen += batch.num_rows
            continue
        for place in range(max(0, skipped - seen), batch.num_rows):
            cells: dict[str, Any] = {}
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                try:
                    cells[name] = column[place].as_py()
                except UnicodeDecodeError:
                    wide = pyarrow.types.is_large_string(column.type)
                    cells[name] = column.view(pyarrow.large_binary() if wide else pyarrow.binary())[place].as_py()
                    cells[name] = cells[name].decode("utf-8", errors="replace")
            yield cells
        seen += batch.num_rows
