"""How much of a file is believed and unpacked."""

from pydantic import Field

from data_pipeline.recipe import Section


class ReadLimits(Section):
    """[web.limits]: what bounds the memory and the time that one record can take."""

    max_page_bytes: int = Field(default=8_000_000, ge=1_000, description="larger pages are dropped as too_large, their rest skipped")
    max_record_bytes: int = Field(
        default=1_000_000_000, ge=1_000, description="a record that says it is longer is not believed: the next one is searched for"
    )
    max_expansion: int = Field(
        default=200, ge=2, description="a gzip member that unpacks to more than max_page_bytes and to this many times its size is a bomb"
    )
