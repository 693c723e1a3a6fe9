"""Web data read record by record: WARC, WET, ARC, HTML, Parquet, JSON lines; damaged files too, and from any record on."""

from data_pipeline.web.reading.forms import has_pages, names_of, read_records
from data_pipeline.web.reading.limits import ReadLimits
from data_pipeline.web.reading.page import Broken, Page, Place

__all__ = ["Broken", "Page", "Place", "ReadLimits", "has_pages", "names_of", "read_records"]
