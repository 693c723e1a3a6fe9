"""Why a page is dropped."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rejection:
    """The reason that is counted, the value that was measured and the threshold it crossed."""

    reason: str
    measure: str
    value: float
    threshold: float
