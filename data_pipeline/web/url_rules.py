"""Addresses that are not wanted, told before a page is unpacked: blocked domains, addresses, words, and schemes."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from data_pipeline.errors import InputError
from data_pipeline.recipe import Section
from data_pipeline.web.domains import ascii_host, host_of
from data_pipeline.web.rejection import Rejection
from data_pipeline.web.same_address import same_address

# A line of a list: blanks, comments, and the addresses with which hosts files begin.
COMMENT = re.compile(r"(?:^|\s)#.*")
HOSTS = re.compile(r"^(?:0\.0\.0\.0|127\.0\.0\.1|::1?)\s+")
WORDS = re.compile(r"[a-z0-9]+")
LIST_FILES = ("domains", "urls")  # in a folder of lists, such as the UT1 collection's: <category>/domains, <category>/urls


class AddressRules(Section):
    """[web.addresses]: each entry is a value, or a file of values (a name with a stroke or a dot file ending), one a line."""

    blocked_domains: tuple[str, ...] = Field(
        default=(), description="domains with all their subdomains; files in plain or hosts form, UT1 folders"
    )
    blocked_addresses: tuple[str, ...] = Field(
        default=(), description="single pages, whatever their scheme, tracking parameters and session ids"
    )
    blocked_words: tuple[str, ...] = Field(default=(), description="words that no address may have between its signs")
    schemes: tuple[str, ...] = Field(default=("http", "https"), description="schemes that are read; a page without an address passes")


@dataclass(frozen=True)
class AddressChecker:
    """The loaded lists."""

    domains: frozenset[str]
    addresses: frozenset[str]
    words: frozenset[str]
    schemes: frozenset[str]

    @classmethod
    def load(cls, rules: AddressRules) -> "AddressChecker":
        """Reads the lists; one that is missing is an error of one line."""
        domains, addresses = set[str](), set[str]()
        for kind, line in entries(rules.blocked_domains, "domains"):
            if kind == "urls":
                addresses.add(normal(line))
            else:
                domains.add(ascii_host(line.removeprefix("*.").removeprefix(".")))
        addresses |= {normal(line) for _, line in entries(rules.blocked_addresses, "urls")}
        words = frozenset(line.lower() for _, line in entries(rules.blocked_words, "words"))
        return cls(frozenset(domains), frozenset(addresses), words, frozenset(rules.schemes))

    def check(self, url: str) -> Rejection | None:
        """Why a page of this address is not wanted; never raises."""
        if not url:
            return None
        scheme, mark, _ = url.partition(":")
        if mark and scheme.strip().lower() not in self.schemes and "/" not in scheme:
            return Rejection("scheme", clean(scheme.strip().lower()[:40]), 1.0, 0.0)
        if self.domains:
            host = host_of(url)
            while host:
                if host in self.domains:
                    return Rejection("blocked_domain", host, 1.0, 0.0)
                host = host.partition(".")[2]
        if self.addresses and normal(url) in self.addresses:
            return Rejection("blocked_address", "address", 1.0, 0.0)
        if self.words:
            found = next((word for word in WORDS.findall(url.lower()) if word in self.words), None)
            if found is not None:
                return Rejection("blocked_word", found, 1.0, 0.0)
        return None


def normal(url: str) -> str:
    """An address as it is compared; entries of lists may lack a scheme."""
    return same_address(url if "//" in url else f"http://{url}") or url


def clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def entries(values: Iterable[str], kind: str) -> Iterator[tuple[str, str]]:
    """(kind of list, entry) of values, files and folders of files."""
    for value in values:
        path = Path(value)
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.name in LIST_FILES]
            if not files:
                raise InputError(f"[web.addresses] {value}: a folder without a file named {' or '.join(LIST_FILES)}")
            for file in files:
                yield from ((file.name, line) for line in lines_of(file))
        elif is_file_name(value, path):
            yield from ((kind, line) for line in lines_of(path))
        elif value.strip():
            yield kind, value.strip()


def is_file_name(value: str, path: Path) -> bool:
    """Whether a value names a file; one that ends like a file and is not there is a mistake and no domain."""
    if path.is_file():
        return True
    if value.endswith((".txt", ".lst", ".list", ".csv", ".hosts")) or ("/" in value and "//" not in value and value.startswith((".", "/"))):
        raise InputError(f"[web.addresses] {value}: no such file; a list has one entry a line")
    return False


def lines_of(path: Path) -> Iterator[str]:
    """The entries of a list file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                entry = HOSTS.sub("", COMMENT.sub("", line).strip())
                if entry:
                    yield entry.split()[0]
    except OSError as error:
        raise InputError(f"[web.addresses] {path}: cannot be read ({error.strerror})") from error


def fingerprint_of(rules: AddressRules) -> str:
    """What decides the rules: the settings and the contents of their files."""
    digest = hashlib.sha256(rules.model_dump_json().encode())
    for values, kind in ((rules.blocked_domains, "domains"), (rules.blocked_addresses, "urls"), (rules.blocked_words, "words")):
        for found in sorted(set(entries(values, kind))):
            digest.update(repr(found).encode())
    return digest.hexdigest()
