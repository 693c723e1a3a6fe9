"""The settings of [web.limits]: what no input may exceed."""

from pydantic import Field

from data_pipeline.recipe import Section


class ReadLimits(Section):
    """A record past a limit is counted as too large and not kept in memory."""

    max_page_bytes: int = Field(default=8_000_000, ge=1_000, description="larger pages, unpacked, are dropped unread")
    max_record_bytes: int = Field(default=32_000_000, ge=1_000, description="larger records are passed over")
    max_expansion: int = Field(
        default=500, ge=10, description="a gzip member that grows by more than this is no page: the rest is passed over"
    )
    max_broken: int = Field(default=100, ge=1, description="damages of a file that are told one by one; more are only counted")
