"""Addresses to hosts and to the domains that somebody registered, by the public suffix list that the package tld brings along."""

import ipaddress
from functools import lru_cache
from urllib.parse import unquote


def host_of(url: str) -> str:
    """The host of an address in lower case, as ASCII where it has such a name; "" where there is none. Never raises."""
    _, mark, rest = url.strip().partition("//")
    if not mark:
        return ""
    for end in "/?#\\":
        rest = rest.partition(end)[0]
    place = rest.rpartition("@")[2]
    host = place[: place.find("]") + 1] if place.startswith("[") else place.partition(":")[0]
    return ascii_host(host)


@lru_cache(maxsize=65_536)
def ascii_host(host: str) -> str:
    host = host.lower().rstrip(".")
    if host.isascii() and "%" not in host:
        return host
    try:
        return unquote(host).encode("idna").decode("ascii").lower().rstrip(".")
    except (UnicodeError, ValueError, IndexError):
        return host.encode("ascii", "replace").decode()


def registered_domain(url: str) -> str:
    """`example.co.uk` for `https://www.example.co.uk/x`; the host itself where it is an IP address or under no known suffix."""
    return domain_of_host(host_of(url))


@lru_cache(maxsize=65_536)
def domain_of_host(host: str) -> str:
    from tld import get_tld

    if not host or host.startswith("[") or is_address(host):
        return host
    found = get_tld(host, fix_protocol=True, fail_silently=True, as_object=True, search_private=False)
    return found.fld if found is not None and not isinstance(found, str) else host


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
