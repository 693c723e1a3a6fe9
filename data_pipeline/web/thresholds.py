"""What a page must satisfy: the thresholds of the quality rules, of all kept pages and of the `clean` subset."""

from pydantic import Field

from data_pipeline.recipe import Section


class Thresholds(Section):
    """What a page must satisfy. Defaults are those published for Gopher, C4 and FineWeb where there is one."""

    min_words: int = Field(default=50, ge=0, description="Gopher: 50")
    max_words: int = Field(default=100_000, ge=1, description="Gopher: 100,000")
    min_mean_word_length: float = Field(default=3.0, ge=0, le=100, description="Gopher: 3 characters")
    max_mean_word_length: float = Field(default=10.0, gt=0, le=100, description="Gopher: 10 characters")
    max_symbol_ratio: float = Field(default=0.1, ge=0, description="hash marks or ellipses per word; Gopher: 0.1")
    max_bullet_lines: float = Field(default=0.9, ge=0, le=1, description="share of lines that begin with a bullet; Gopher: 0.9")
    max_ellipsis_lines: float = Field(default=0.3, ge=0, le=1, description="share of lines that end with an ellipsis; Gopher: 0.3")
    min_alphabetic_words: float = Field(default=0.8, ge=0, le=1, description="share of words with a letter in them; Gopher: 0.8")
    min_stop_words: int = Field(default=2, ge=0, le=8, description="how many of the, be, to, of, and, that, have, with appear; Gopher: 2")
    max_duplicate_lines: float = Field(default=0.3, ge=0, le=1, description="share of lines seen before on the page; Gopher: 0.3")
    max_duplicate_line_characters: float = Field(default=0.2, ge=0, le=1, description="the same in characters; Gopher: 0.2")
    max_duplicate_paragraphs: float = Field(default=0.3, ge=0, le=1, description="share of paragraphs seen before; Gopher: 0.3")
    max_duplicate_paragraph_characters: float = Field(default=0.2, ge=0, le=1, description="the same in characters; Gopher: 0.2")
    max_top_2gram: float = Field(default=0.20, ge=0, le=1, description="share of characters in the commonest 2-gram; Gopher: 0.20")
    max_top_3gram: float = Field(default=0.18, ge=0, le=1, description="Gopher: 0.18")
    max_top_4gram: float = Field(default=0.16, ge=0, le=1, description="Gopher: 0.16")
    max_duplicate_5grams: float = Field(default=0.15, ge=0, le=1, description="share of characters in repeated 5-grams; Gopher: 0.15")
    max_duplicate_6grams: float = Field(default=0.14, ge=0, le=1, description="Gopher: 0.14")
    max_duplicate_7grams: float = Field(default=0.13, ge=0, le=1, description="Gopher: 0.13")
    max_duplicate_8grams: float = Field(default=0.12, ge=0, le=1, description="Gopher: 0.12")
    max_duplicate_9grams: float = Field(default=0.11, ge=0, le=1, description="Gopher: 0.11")
    max_duplicate_10grams: float = Field(default=0.10, ge=0, le=1, description="share of characters in repeated 10-grams; Gopher: 0.10")
    min_line_ends: float = Field(default=0.12, ge=0, le=1, description="share of lines that end in punctuation; FineWeb: 0.12")
    max_short_lines: float = Field(default=0.67, ge=0, le=1, description="share of lines of 30 characters or fewer; FineWeb: 0.67")
    max_repeated_line_characters: float = Field(
        default=0.01, ge=0, le=1, description="share of the characters outside line breaks in lines seen before; FineWeb: 0.01"
    )
    max_newline_ratio: float = Field(default=0.3, ge=0, description="line breaks per token; FineWeb: 0.3")
    min_sentences: int = Field(default=5, ge=0, description="sentences in the lines that C4 keeps; C4: 5")
    max_link_density: float = Field(default=0.8, ge=0, le=1, description="share of the page's characters that are links")


class CleanThresholds(Thresholds):
    """The stricter rules of the `clean` subset, which the second phase of pretraining reads."""

    min_words: int = Field(default=100, ge=0)
    max_duplicate_lines: float = Field(default=0.2, ge=0, le=1)
    max_duplicate_5grams: float = Field(default=0.12, ge=0, le=1)
    min_stop_words: int = Field(default=4, ge=0, le=8)
    max_link_density: float = Field(default=0.4, ge=0, le=1)
