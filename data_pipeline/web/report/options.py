"""What a report is asked for."""

from pydantic import Field, model_validator

from data_pipeline.recipe import Section


class ReportOptions(Section):
    """How much is shown, and which whole crawl the forecast is for. Equal options and an equal build give an equal report, times apart."""

    crawl_pages: int | None = Field(default=None, ge=1, description="pages of the whole crawl, of which this build is a sample")
    crawl_bytes: int | None = Field(default=None, ge=1, description="or bytes of all its pages, unpacked, as html_bytes counts them")
    sample_share: float = Field(default=0.001, gt=0, le=1, description="else the share of the whole crawl that this build's pages are")
    price_per_core_hour: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="of one core, in any currency; 0 tells core hours only"
    )
    bytes_per_token: float = Field(
        default=4.0, gt=0, allow_inf_nan=False, description="assumed where the run has no token shards of this build"
    )
    samples: int = Field(default=10, ge=0, le=100, description="random pages shown per reason, and of those kept")
    sample_characters: int = Field(default=700, ge=40, le=20_000, description="of a shown page's text")
    domains: int = Field(default=25, ge=1, le=1000, description="domains shown on the page; domains.parquet has all")
    resamples: int = Field(default=2000, ge=100, le=100_000, description="bootstrap resamples behind an interval")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the shown pages and of the bootstrap")

    @model_validator(mode="after")
    def one_size(self) -> "ReportOptions":
        if self.crawl_pages is not None and self.crawl_bytes is not None:
            raise ValueError("crawl_pages and crawl_bytes both tell how large the whole crawl is; give one")
        return self
