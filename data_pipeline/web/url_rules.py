"""Addresses that are dropped before a page is looked at: blocked domains, words and addresses, from the recipe and from list files."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from data_pipeline.errors import InputError
from data_pipeline.recipe import Section
from data_pipeline.storage import is_local, open_read
from data_pipeline.web.domains import host_of, plain_host
from data_pipeline.web.rejection import Rejection

WORDS = re.compile(r"[^\W_]+")
# The first field of a line in a hosts file.
HOSTS = frozenset({"0.0.0.0", "127.0.0.1", "::", "::1", "255.255.255.255"})
LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "broadcasthost", "local", "0.0.0.0"})


class AddressRules(Section):
    """[web.addresses]: which addresses are dropped. A list file has an entry per line; `#` begins a comment.

    A domain list may be plain, a hosts file, or a folder of the UT1 lists (its files `domains` and `urls`, in any folder below).
    """

    schemes: tuple[str, ...] = Field(default=("http", "https"), description="allowed schemes; empty allows all")
    blocked_domains: tuple[str, ...] = Field(default=(), description="domains; those below them match too")
    domain_lists: tuple[str, ...] = Field(default=(), description="files of domains, hosts files, or UT1 folders")
    blocked_words: tuple[str, ...] = Field(default=(), description="words that must not stand in an address, between marks")
    word_lists: tuple[str, ...] = Field(default=(), description="files of such words")
    max_blocked_words: int = Field(default=0, ge=0, description="so many different blocked words are let pass")
    blocked_addresses: tuple[str, ...] = Field(default=(), description="addresses; those below them match too, schemes do not matter")
    address_lists: tuple[str, ...] = Field(default=(), description="files of such addresses")


@dataclass(frozen=True)
class Lists:
    """The rules as they are asked."""

    schemes: frozenset[str]
    domains: frozenset[str]
    words: frozenset[str]
    addresses: frozenset[str]
    max_words: int


# The last rules that were asked, with their lists: a run asks the same ones millions of times.
LOADED: list[tuple[AddressRules, Lists]] = []


def check_address(rules: AddressRules, url: str) -> Rejection | None:
    """Why an address is dropped, or None. Lists are read once, when a process first asks these rules; InputError where one is missing."""
    if not LOADED or LOADED[0][0] is not rules:
        LOADED[:] = [(rules, load(rules))]
    lists = LOADED[0][1]
    scheme, mark, _ = url.partition(":")
    if lists.schemes and (not mark or scheme.strip().lower() not in lists.schemes):
        return Rejection("address_scheme", "address_scheme", 1.0, 0.0)
    if lists.domains or lists.addresses:
        host = host_of(url)
        if lists.domains and blocked_host(lists.domains, host):
            return Rejection("blocked_domain", "blocked_domains", 1.0, 0.0)
        if lists.addresses and blocked_below(lists.addresses, address_of(url, host)):
            return Rejection("blocked_address", "blocked_addresses", 1.0, 0.0)
    if lists.words:
        found = len(lists.words.intersection(WORDS.findall(url.lower())))
        if found > lists.max_words:
            return Rejection("blocked_words", "blocked_words", float(found), float(lists.max_words))
    return None


def blocked_host(domains: frozenset[str], host: str) -> bool:
    """Whether the host or one above it is in the set."""
    while host:
        if host in domains:
            return True
        host = host.partition(".")[2]
    return False


def address_of(url: str, host: str) -> str:
    """host/path?query, without scheme, port, fragment, a leading www. and slashes at the end."""
    rest = url.partition("#")[0].partition("//")[2]
    cut = min((place for mark in "/?" if (place := rest.find(mark)) >= 0), default=len(rest))
    return (host.removeprefix("www.") + rest[cut:]).rstrip("/")


def blocked_below(addresses: frozenset[str], address: str) -> bool:
    """Whether the address or one above it is in the set; a query belongs to its own address."""
    path = address.partition("?")[0].rstrip("/")
    if address in addresses:
        return True
    while path:
        if path in addresses:
            return True
        path = path.rpartition("/")[0]
    return False


def load(rules: AddressRules) -> Lists:
    """The rules with the contents of their list files. Raises InputError where a file is missing or an entry is none."""
    domains = {plain_host(one) for one in rules.blocked_domains}
    addresses = {listed_address(one) for one in rules.blocked_addresses}
    for path in rules.domain_lists:
        for kind, file in list_files(path):
            for line in lines_of(file):
                if kind == "urls":
                    addresses.add(listed_address(line))
                else:
                    domains.update(listed_domains(line))
    for path in rules.address_lists:
        addresses.update(listed_address(line) for line in lines_of(path))
    words = {one.lower() for one in rules.blocked_words}
    for path in rules.word_lists:
        words.update(line.lower() for line in lines_of(path))
    strange = next((one for one in sorted(words) if not WORDS.fullmatch(one)), None)
    if strange is not None:
        raise InputError(f"a blocked word may have letters and digits only, as words are cut at all other marks; got {strange!r}")
    schemes = frozenset(one.lower() for one in rules.schemes)
    return Lists(schemes, frozenset(domains - {""}), frozenset(words), frozenset(addresses - {""}), rules.max_blocked_words)


def listed_domains(line: str) -> list[str]:
    """The domains of a line: one, or those behind the address of a hosts file's line; an address is taken for its host."""
    fields = line.split()
    if fields[0] in HOSTS and len(fields) > 1:
        return [plain_host(one) for one in fields[1:] if one.lower() not in LOCAL_NAMES]
    return [host_of(fields[0]) if "//" in fields[0] else plain_host(fields[0].removeprefix("*.").partition("/")[0])]


def listed_address(line: str) -> str:
    url = line.strip() if "//" in line.partition("?")[0] else f"//{line.strip()}"
    return address_of(url, host_of(url))


def list_files(path: str) -> list[tuple[str, str]]:
    """(kind, file) of a list: a file as "domains", of a UT1 folder each file `domains` or `urls` below it."""
    if not is_local(path) or not Path(path).is_dir():
        return [("domains", path)]
    found = sorted((one.name, str(one)) for name in ("domains", "urls") for one in Path(path).rglob(name) if one.is_file())
    if not found:
        raise InputError(f"{path}: a folder of lists has files named domains or urls, and this one has none")
    return found


def lines_of(path: str) -> Iterator[str]:
    """The entries of a list file."""
    for line in content_of(path).decode("utf-8", errors="replace").splitlines():
        entry = line.partition(" #")[0].strip()
        if entry and not entry.startswith("#"):
            yield entry


def content_of(path: str) -> bytes:
    try:
        with open_read(path) as stream:
            return stream.read()
    except InputError:
        raise
    except Exception as error:  # every store has errors of its own
        raise InputError(f"{path}: a list of addresses cannot be read: {type(error).__name__}: {error}") from error


def fingerprint_of(rules: AddressRules) -> str:
    """A hash of the rules and of the contents of their list files: the same lists under other names give the same."""
    digest = hashlib.sha256()
    settings = rules.model_dump(mode="json")
    lists = {name: settings.pop(name) for name in ("domain_lists", "word_lists", "address_lists")}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, paths in sorted(lists.items()):
        for path in paths:
            for kind, file in list_files(path) if name == "domain_lists" else [("", path)]:
                digest.update(f"{name} {kind} {hashlib.sha256(content_of(file)).hexdigest()}\n".encode())
    return digest.hexdigest()
