"""The recipe sections [tokenizer] and [tokens]."""

from typing import Literal

from pydantic import Field

from data_pipeline.recipe import Section

Source = Literal["web", "web_clean", "synthetic"]


class TokenizerRecipe(Section):
    """[tokenizer]: the byte-level BPE."""

    vocab_size: int = Field(
        default=4096, ge=320, le=262_144, multiple_of=64, description="entries, special tokens and the 256 bytes included"
    )
    min_frequency: int = Field(default=2, ge=1, description="a pair of symbols seen less often is not merged")
    split_digits: bool = Field(
        default=True,
        description="every digit is its own token, so that place value is the same in every number and arithmetic is easier to learn",
    )
    max_token_length: int = Field(default=32, ge=2, le=1024, description="bytes; keeps lines of repeated characters from becoming entries")


class TokensRecipe(Section):
    """[tokens]: the token shards."""

    sources: tuple[Source, ...] = Field(
        default=("web", "web_clean", "synthetic"),
        min_length=1,
        description="which folders of shards are written: kept pages, clean ones, lessons",
    )
    shard_tokens: int = Field(
        default=16_777_216,
        ge=1024,
        description="a shard is closed before the document that would take it past this many; documents stay whole",
    )
    batch_documents: int = Field(default=1024, ge=1, le=65_536, description="documents encoded at a time; decides memory, not the result")
