"""A store that fails for a moment is asked again; what asking does not mend is raised at once."""

import errno
from pathlib import Path

import pytest

from data_pipeline.engine.patience import momentary, patiently
from data_pipeline.engine.store import Store
from data_pipeline.errors import InputError


def wrapped(cause: Exception) -> RuntimeError:
    error = RuntimeError("Failed to upload block")
    error.__cause__ = cause
    return error


class Answered(Exception):
    def __init__(self, status: int) -> None:
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


Unreachable = type("EndpointConnectionError", (Exception,), {"__module__": "botocore.exceptions"})
NoCredentials = type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"})


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.EIO, "input or output"), True),
        (TimeoutError("slow"), True),
        (ConnectionResetError(104, "reset"), True),
        (Answered(503), True),
        (Answered(429), True),
        (Unreachable("no"), True),
        (wrapped(Unreachable("no")), True),
        (wrapped(NoCredentials("none")), False),
        (wrapped(TimeoutError("ours")), False),
        (Answered(403), False),
        (NoCredentials("none"), False),
        (FileNotFoundError(2, "none"), False),
        (FileExistsError(17, "taken"), False),
        (OSError(errno.ENOSPC, "full"), False),
        (InputError("bad"), False),
        (ValueError("ours"), False),
    ],
)
def test_what_passes_is_asked_again(error: Exception, passes: bool) -> None:
    asked = 0

    def ask() -> str:
        nonlocal asked
        asked += 1
        if asked < 4:
            raise error
        return "there"

    assert momentary(error) is passes
    if passes:
        assert patiently(ask, sleep=lambda pause: None) == "there"
        assert asked == 4
    else:
        with pytest.raises(type(error)):
            patiently(ask, sleep=lambda pause: None)
        assert asked == 1


def test_patience_ends() -> None:
    pauses: list[float] = []

    def ask() -> None:
        raise OSError(errno.EIO, "always")

    with pytest.raises(OSError, match="always"):
        patiently(ask, seconds=0.4, sleep=pauses.append)
    assert pauses == [0.1, 0.2]  # the next pause would go beyond


def test_a_store_that_ignores_the_condition_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Store("memory://kept").open_journal()
    store = Store("memory://ignores")
    monkeypatch.setattr(store, "_create_remote", lambda name, content: store.write(name, content))
    with pytest.raises(InputError, match="memory://ignores: a journal needs a store with conditional create"):
        store.open_journal()


def test_a_request_whose_answer_was_lost_has_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    monkeypatch.setattr("data_pipeline.engine.patience.FIRST_PAUSE_SECONDS", 0.001)
    place = Store._place
    lost = [True, False]

    def lossy(self: Store, *given: object) -> None:
        place(self, *given)  # type: ignore[arg-type]
        if lost.pop():
            raise TimeoutError("the answer did not come")

    monkeypatch.setattr(Store, "_place", lossy)
    lost.reverse()
    assert store.create("claims/one", b"mine") is True
    lost.append(False)
    assert store.create("claims/one", b"another's") is False
    assert store.read("claims/one") == b"mine"
    assert store.names("claims") == ["one"]
