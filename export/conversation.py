"""A conversation with a model: turns are kept, and the oldest are let go when the context is full."""

from collections.abc import Iterator
from typing import Any

from data_pipeline.errors import InputError
from export.session import Session


class Conversation:
    """Turns and the settings of their answers. The model's cache makes a next turn cost only its own tokens.

    A system turn that leaves no room for any question is an InputError.
    """

    def __init__(self, session: Session, max_new_tokens: int = 256, system: str = "", **sampling: Any) -> None:
        self.session = session
        self.max_new_tokens = max_new_tokens
        self.sampling = sampling
        self.start: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
        self.turns = list(self.start)
        if system and len(session.encode([*self.start, {"role": "user", "content": ""}])) >= session.context:
            raise InputError(f"the system turn is too long: it leaves no room for a question in the context of {session.context} tokens")

    def reset(self) -> None:
        """Forgets everything said."""
        self.turns = list(self.start)

    def make_room(self) -> int:
        """Lets the oldest exchanges go until an answer of a quarter of the context, or of `max_new_tokens`, fits; returns how many went.

        What was asked last always stays; if it does not fit by itself, the model says so.
        """
        room = min(self.max_new_tokens, self.session.context // 4)
        gone, first = 0, len(self.start)
        while len(self.turns) > first + 1 and len(self.session.encode(self.turns)) + room > self.session.context:
            del self.turns[first : first + 2]
            gone += 1
        return gone

    def ask(self, text: str) -> tuple[int, Iterator[str]]:
        """Adds a user's turn; returns how many old exchanges were let go, and the answer piece by piece.

        However far the answer was read, that much of it is kept. A question that does not fit is an InputError and is not kept.
        """
        before = list(self.turns)
        self.turns.append({"role": "user", "content": text})
        try:
            gone = self.make_room()
            if len(self.session.encode(self.turns)) >= self.session.context:
                raise InputError(f"this is too long for the context of {self.session.context} tokens")
        except InputError:
            self.turns = before
            raise
        return gone, self.answer()

    def answer(self) -> Iterator[str]:
        """The pieces of the answer to the last turn, recorded as they are read."""
        pieces: list[str] = []
        try:
            for piece in self.session.stream(self.turns, self.max_new_tokens, **self.sampling):
                pieces.append(piece)
                yield piece
        finally:
            self.turns.append({"role": "assistant", "content": "".join(pieces)})
