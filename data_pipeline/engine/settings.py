"""What a run of tasks may take: limits of one task, and the budget of all."""

from typing import Any

from pydantic import Field, ValidationError

from data_pipeline.errors import InputError
from data_pipeline.recipe import Section


class Checked(Section):
    """A section that is made in Python: a bad value is one line."""

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "its settings"
            raise InputError(f"{type(self).__name__}: {where}: {first['msg']}, got {first['input']!r}"[:300]) from error


class Limits(Checked):
    """The limits of one task. All are named: `Limits(seconds=60, memory_bytes=2**30)`."""

    seconds: float | None = Field(default=None, gt=0, description="Wall time of one try; over it the process is killed, in C code too.")
    memory_bytes: int | None = Field(default=None, gt=0, description="Resident memory of the process and its children during one try.")
    retries: int = Field(default=6, ge=1, description="Tries that may end by the task's own errors or limits before it is dead.")
    losses: int = Field(default=6, ge=1, description="Workers that may be lost under the task before it is dead; counted by themselves.")
    backoff_seconds: float = Field(default=0.5, ge=0, description="The pause before the second try; doubles with each, up to 60 seconds.")


class Budget(Checked):
    """What a journal may cost: core-hours, or money at a price. What has been spent before counts."""

    core_hours: float | None = Field(default=None, gt=0, description="Hours that workers may be busy, a core each.")
    money: float | None = Field(default=None, gt=0, description="The same in money, in whatever currency the price has.")
    price_per_core_hour: float = Field(default=0.0, ge=0, description="What a core-hour costs.")

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        if self.money is not None and not self.price_per_core_hour:
            raise InputError("Budget: money needs price_per_core_hour above 0, which says how many core-hours it buys")
        if self.money is not None and self.core_hours is not None:
            raise InputError(f"Budget: core_hours or money, not both; got core_hours={self.core_hours}, money={self.money}")

    @property
    def core_seconds(self) -> float | None:
        """The limit in seconds of one core; None where there is none."""
        if self.money is not None:
            return 3600 * self.money / self.price_per_core_hour
        return None if self.core_hours is None else 3600 * self.core_hours
