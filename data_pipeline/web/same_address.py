"""The same page under several addresses: a key that does not change with what makes no other page of it.

Kept apart are host, port, path, and the parameters that may matter. Made equal are: scheme (http and https), a leading `www.`, the case of
scheme and host and a point after it, names in Unicode and in punycode, the scheme's own port, user names, the fragment, session ids and
tracking parameters, the order of the parameters, empty ones, `index.html` and its like at the end, strokes at the end, doubled strokes, `.`
and `..`, and the percent encoding (RFC 3986, section 6.2.2: what need not be encoded is not, hexadecimal digits are upper case).
"""

import posixpath
import re
from collections.abc import Sequence

import numpy as np
import xxhash

TRACKING_NAMES = """gclid gclsrc dclid gbraid wbraid fbclid msclkid yclid ysclid twclid ttclid igshid igsh li_fat_id epik mc_cid mc_eid
    mkt_tok _ga _gl _hsenc _hsmi __hssc __hstc __hsfp hsctatracking vero_id oly_anon_id oly_enc_id wickedid rb_clickid zanpid irclickid
    spm ref_src ref_url"""
TRACKING = frozenset(TRACKING_NAMES.split())
TRACKING_STARTS = ("utm_", "pk_", "piwik_", "mtm_", "matomo_", "hsa_")
SESSIONS = frozenset({"phpsessid", "jsessionid", "asp.net_sessionid", "cfid", "cftoken", "zenid", "oscsid"})
SHORT_SESSIONS = frozenset({"sid", "sessionid", "session_id", "sessid", "osid"})  # or the number of a story: sessions are long
SESSION_LENGTH = 16
INDEX = re.compile(r"/(?:index|default)\.(?:html?|php[345]?|aspx?|jsp|cgi|shtml|xhtml)\Z", re.IGNORECASE)
PATH_SESSION = re.compile(r";(?:jsessionid|phpsessid|sid|sessionid)=[^/;?]*", re.IGNORECASE)
ADDRESS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.\-]*):)?//([^/?#]*)([^?#]*)(?:\?([^#]*))?", re.DOTALL)
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
PLAIN_PATH = re.compile(r"/(?:[A-Za-z0-9_~\-][A-Za-z0-9_~.\-]*/)*(?:[A-Za-z0-9_~\-][A-Za-z0-9_~.\-]*)?\Z")
PLAIN = re.compile(r"[A-Za-z0-9_~.\-!$&'()*+,;=:@/?]*\Z")
PLAIN_HOST = re.compile(r"[a-z0-9.\-]+\Z")
NAME = re.compile(r"[\w\-]+(?:\.[\w\-]+)*")  # names that IDNA refuses too, but no marks and blanks
BRACKETED = re.compile(r"\[[0-9a-f:.]+\]")
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
PORTS = {"http": "80", "https": "443"}
BLANKS = re.compile(r"[\t\r\n]")  # what browsers take out of an address


def address_key(url: str) -> bytes | None:
    """Sixteen bytes that are equal for addresses of the same page; None for what is no http or https address. Never raises."""
    address = same_address(url)
    return None if address is None else xxhash.xxh3_128_digest(address.encode("utf-8", "surrogatepass"))


def same_address(url: str) -> str | None:
    """The address in its normal form, without a scheme: `host[:port]/path[?parameters]`; None for what is no http or https address."""
    found = ADDRESS.match(BLANKS.sub("", url).strip())
    if found is None:
        return None
    scheme = (found[1] or "http").lower()
    if scheme not in PORTS:
        return None
    host = normal_host(found[2], PORTS[scheme])
    if host is None:
        return None
    query = normal_query(found[4]) if found[4] else ""
    return f"{host}{normal_path(found[3])}{'?' if query else ''}{query}"


def normal_host(authority: str, own_port: str) -> str | None:
    """Host and port in lower case, without `www.`, user name, or the scheme's own port; None without a host."""
    place = authority.rpartition("@")[2].strip().lower()
    host, port = place, ""
    if not place.endswith("]"):
        before, colon, after = place.rpartition(":")
        if colon:
            host, port = before, after
    host = host.rstrip(".。．｡")  # first: IDNA refuses an empty label
    if not PLAIN_HOST.match(host):
        host = plain_host(host).rstrip(".")
    if host.startswith("www.") and "." in host[4:]:
        host = host[4:]
    if not (BRACKETED if host.startswith("[") else NAME).fullmatch(host):
        return None
    if port.isdecimal():
        port = port.lstrip("0") or "0"
    return f"{host}:{port}" if port and port != own_port else host


def plain_host(host: str) -> str:
    """A host with escapes or letters beyond ASCII as its ASCII name, where it has one."""
    host = unescaped(host).lower()
    try:
        return host.encode("idna").decode("ascii").lower()
    except (UnicodeError, ValueError, IndexError):
        return host


def normal_path(path: str) -> str:
    """A path in normal form: `""` for the root, without a stroke or an index page at its end."""
    if ";" in path:
        path = PATH_SESSION.sub("", path)
    if not PLAIN_PATH.match(path):
        path = escaped(path)
        if "//" in path or "/." in path:
            path = "/" + posixpath.normpath(path).lstrip("/")
    return INDEX.sub("", path).rstrip("/")


def normal_query(query: str) -> str:
    """The parameters that may matter, each in normal form, sorted; repeated ones stay, in the order of their values."""
    kept = []
    for part in query.replace("&amp;", "&").split("&"):
        if not part:
            continue
        if not PLAIN.match(part):
            part = escaped(part.replace("+", "%20"))
        elif "+" in part:
            part = part.replace("+", "%20")
        name, _, value = part.partition("=")
        if (name or value) and not passing(name.lower(), value):
            kept.append(part if value else name)
    kept.sort()
    return "&".join(kept)


def passing(name: str, value: str) -> bool:
    """Whether a parameter says who came, and from where, and nothing of the page."""
    if name in TRACKING or name in SESSIONS or name.startswith(TRACKING_STARTS) or name.startswith("aspsessionid"):
        return True
    return name in SHORT_SESSIONS and len(value) >= SESSION_LENGTH


def escaped(text: str) -> str:
    """Percent encoding in normal form: unreserved characters bare, all else that came encoded with capitals, all beyond ASCII encoded."""
    text = ESCAPE.sub(lambda found: normal_escape(int(found[1], 16)), text)
    if text.isascii() and " " not in text:
        return text
    return "".join(one if " " < one < "\x7f" else "".join(f"%{byte:02X}" for byte in one.encode("utf-8", "surrogatepass")) for one in text)


def normal_escape(byte: int) -> str:
    return chr(byte) if byte in UNRESERVED else f"%{byte:02X}"


def unescaped(text: str) -> str:
    """The text with its escapes undone, as UTF-8."""
    if "%" not in text:
        return text
    raw = text.encode("utf-8", "surrogatepass")
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes((int(found[1], 16),)), raw).decode("utf-8", "replace")


def same_address_originals(keys: Sequence[bytes | None], *order: np.ndarray) -> np.ndarray:
    """For each document the one of its address that is kept: int64 [documents]; a document without a key keeps itself.

    `order` are arrays [documents], the first first: where documents of an address differ in it, the highest is kept (nan is the lowest);
    of those that are equal in all of them, the first. So `same_address_originals(keys, quality, fetched)` keeps the best, then the latest.
    """
    first: dict[bytes, int] = {}
    group = np.fromiter((place if key is None else first.setdefault(key, place) for place, key in enumerate(keys)), np.int64, len(keys))
    columns = [np.nan_to_num(np.asarray(one, np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf) for one in order]
    ranked = np.lexsort((np.arange(len(group)), *(-one for one in reversed(columns)), group))
    best = np.arange(len(group), dtype=np.int64)
    if len(group):
        heads = np.ones(len(group), bool)
        heads[1:] = group[ranked[1:]] != group[ranked[:-1]]
        best[group[ranked[heads]]] = ranked[heads]
    return best[group]
