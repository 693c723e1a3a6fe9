"""Hosts and registered domains of addresses, offline: the public suffix list is the one inside the package `tld`."""

import re
from functools import lru_cache

# scheme://, userinfo@ (the last @ before the path counts), host or [IPv6], port
AUTHORITY = re.compile(r"^\s*(?:[a-zA-Z][a-zA-Z0-9+.-]*:)?//([^/?#\\]*)")
NUMBERS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")


def host_of(url: str) -> str:
    """The host in lower case and ASCII (punycode), without userinfo, port and trailing dots; "" where there is none. Never raises."""
    found = AUTHORITY.match(url)
    if not found:
        return ""
    host = found[1].rpartition("@")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return plain_host(host.partition(":")[0])


def plain_host(host: str) -> str:
    """A host's name as it is compared: lower case, punycode, no dots at its ends."""
    host = host.strip().lower().strip(".")
    return host if host.isascii() else punycode(host)


@lru_cache(maxsize=1 << 14)
def punycode(host: str) -> str:
    """Labels with other letters in punycode; a label that has no such form stays as it is, without surrogates."""
    labels: list[str] = []
    for label in re.split("[.\u3002\uff0e\uff61]", host):
        try:
            labels.append(label.encode("idna").decode("ascii").lower())
        except UnicodeError:  # too long, or characters that no name may have
            labels.append(label.encode("utf-8", errors="replace").decode("utf-8"))
    return ".".join(one for one in labels if one)


def registered_domain(url: str) -> str:
    """The domain that somebody registered: `bbc.co.uk` of `https://news.bbc.co.uk:443/x`; the host itself where it has no public suffix."""
    return domain_of_host(host_of(url))


@lru_cache(maxsize=1 << 16)
def domain_of_host(host: str) -> str:
    if not host or "." not in host or ":" in host or NUMBERS.fullmatch(host):
        return host
    from tld import get_fld

    try:
        return get_fld(f"http://{host}", fail_silently=True) or host
    except Exception:  # the package's own errors, and those of urlsplit, for hosts that are none
        return host
