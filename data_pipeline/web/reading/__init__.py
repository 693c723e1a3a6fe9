"""Web data, record by record: WARC, WET, ARC, HTML, Parquet and JSON lines by one function, `read_records`."""

from data_pipeline.web.reading.formats import names_of, read_records
from data_pipeline.web.reading.limits import ReadLimits
from data_pipeline.web.reading.records import Broken, NotWebData, Page, Place

__all__ = ["Broken", "NotWebData", "Page", "Place", "ReadLimits", "names_of", "read_records"]
