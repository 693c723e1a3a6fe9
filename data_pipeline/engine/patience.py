"""A store that fails for a moment is asked again, with growing pauses and an end."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from data_pipeline.errors import InputError

Found = TypeVar("Found")

PATIENCE_SECONDS = 120.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
# What asking again does not mend: a name that is there or is not, a right that is missing, a disk that is full.
LASTING = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
LASTING_NUMBERS = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG, errno.EINVAL}
# Packages that speak to stores, and what the names of their exceptions for a moment's failure hold.
STORE_PACKAGES = {"botocore", "aiobotocore", "aiohttp", "s3fs", "azure", "adlfs", "gcsfs", "google", "requests", "urllib3"}
MOMENTARY_NAMES = ("Timeout", "Connect", "Endpoint", "ServiceRequest", "ServiceResponse", "IncompleteRead", "Disconnected", "Payload")


def momentary(error: BaseException) -> bool:
    """Whether a store's failure may be gone when it is asked again."""
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    if isinstance(error, (InputError, *LASTING)):
        return False
    if isinstance(error, OSError):
        return error.errno not in LASTING_NUMBERS
    if type(error) is RuntimeError and error.__cause__ is not None:  # adlfs wraps what Azure said while a file was written
        return of_a_store(error.__cause__) and momentary(error.__cause__)
    return of_a_store(error) and any(part in type(error).__name__ for part in MOMENTARY_NAMES)


def of_a_store(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in STORE_PACKAGES


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a store's exception carries, in the places where botocore, aiohttp, azure and gcsfs keep it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(error, "status", None) or getattr(error, "status_code", None) or getattr(error, "code", None)
    try:
        return int(found) if found is not None and 100 <= int(found) < 600 else None
    except (TypeError, ValueError):
        return None


def patiently(function: Callable[[], Found], *, seconds: float = PATIENCE_SECONDS, sleep: Callable[[float], object] = time.sleep) -> Found:
    """What `function` returns, asked again for at most `seconds` while it fails in a way that may pass.

    Every other exception is raised as it is; one that did not pass is raised at the end.
    """
    limit, pause = time.monotonic() + seconds, FIRST_PAUSE_SECONDS
    while True:
        try:
            return function()
        except Exception as error:
            if not momentary(error) or time.monotonic() + pause > limit:
                raise
        sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
