"""A chat endpoint in OpenAI's form: one question, one answer, with waiting and trying again where that can help."""

import hashlib
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from data_pipeline.errors import InputError

MOST_BYTES = 4_000_000  # of an answer
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for


class EndpointFailure(Exception):
    """No answer after every try; `reason` is the last one's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenBucket:
    """At most `rate` requests a second, `burst` of them at once; threads wait in the order in which they came."""

    def __init__(
        self,
        rate: float,
        burst: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.rate, self.burst, self.clock, self.sleep = rate, burst, clock, sleep
        self.tokens, self.filled = float(burst), clock()
        self.lock = threading.Lock()

    def take(self) -> None:
        """Returns when the next request may go out. A rate of 0 knows no limit."""
        if not self.rate:
            return
        with self.lock:
            now = self.clock()
            self.tokens = min(float(self.burst), self.tokens + (now - self.filled) * self.rate) - 1.0
            self.filled = now
            wait = -self.tokens / self.rate
        if wait > 0:
            self.sleep(wait)


class Endpoint:
    """POSTs chat requests. A wrong key, model or address is an error of one line at once; what may pass is tried again; any other refusal
    is this one question's failure.

    Tried again are answers 408, 409, 425, 429 and from 500 on, time-outs, broken connections and answers that are no JSON of the form;
    after 1, 2, 4... seconds with up to half as much on top, or after the seconds that `Retry-After` says, at most a minute.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        timeout: float = 120.0,
        tries: int = 6,
        rate: float = 0.0,
        first_wait: float = 1.0,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.url, self.key = address_of(url), key
        self.timeout, self.tries, self.first_wait = timeout, tries, first_wait
        self.stopped = threading.Event()  # once set, nothing is asked any more and nobody waits
        self.sleep = sleep or self.stopped.wait
        self.bucket = TokenBucket(rate, sleep=self.sleep)
        host = urlsplit(self.url).hostname or ""
        here = host in ("localhost", "::1") or host.startswith("127.")
        self.opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))
        self.requests = 0

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a chat request: {"content", "usage"}; EndpointFailure when every try has failed."""
        reason = ""
        for number in range(self.tries):
            self.bucket.take()
            if self.stopped.is_set():
                raise EndpointFailure("stopped")
            wait = 0.0
            try:
                return answer_in(self.post(body))
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {said_in(error)}"
                if error.code in (401, 402, 403, 404, 405):
                    raise InputError(f"{self.url}: {reason}") from error
                if error.code < 500 and error.code not in (408, 409, 425, 429):  # this page is too long, or against the endpoint's rules
                    raise EndpointFailure(reason) from error
                wait = seconds_of(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, ValueError) as error:  # URLError and time-outs are OSErrors
                reason = f"{type(error).__name__}: {error}"
            if number + 1 < self.tries:
                self.sleep(wait or self.back_off(body, number))
        raise EndpointFailure(f"{reason} ({self.tries} tries)")

    def post(self, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "phial"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        self.requests += 1
        with self.opener.open(request, timeout=self.timeout) as response:
            content = response.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"an answer of more than {MOST_BYTES:,} bytes")
        return content

    def back_off(self, body: dict[str, Any], number: int) -> float:
        """Doubled each time, and up to half as much on top, which a hash of the question decides, so that many do not come back at once."""
        chance = hashlib.sha256(json.dumps([body, number], sort_keys=True).encode()).digest()[0] / 255
        return min(LONGEST_WAIT, self.first_wait * 2**number * (1 + chance / 2))


def address_of(url: str) -> str:
    """`.../v1` or `.../v1/chat/completions` -> the latter."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"--endpoint {url}: an http or https address is needed, for example http://localhost:8000/v1")
    if parts.username or parts.password:
        raise InputError("--endpoint has a name or password in it; give the key in an environment variable instead (--key-variable)")
    plain = url.rstrip("/")
    return plain if plain.endswith("/chat/completions") else f"{plain}/chat/completions"


def answer_in(content: bytes) -> dict[str, Any]:
    """The text and usage of a chat completion; ValueError where it has another form."""
    try:
        answer = json.loads(content)
        message = answer["choices"][0]["message"]
        text = message["content"]
        usage = answer.get("usage")
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no chat completion: {content[:80]!r}") from error
    return {"content": text if isinstance(text, str) else "", "usage": usage if isinstance(usage, dict) else {}}


def said_in(error: urllib.error.HTTPError) -> str:
    """A server's own words about an error, on one line."""
    try:
        content = error.read(2000)
        found = json.loads(content)
        said = found.get("error", found)
        text = str(said.get("message", said)) if isinstance(said, dict) else str(said)
    except (OSError, ValueError, AttributeError, http.client.HTTPException):
        text = str(error.reason)
    finally:
        error.close()
    return " ".join(text.split())[:200]


def seconds_of(header: str | None) -> float:
    """`Retry-After` in seconds, 0 where it is missing, a date, or no number."""
    try:
        return min(max(float(header or 0), 0.0), LONGEST_WAIT)
    except ValueError:
        return 0.0
