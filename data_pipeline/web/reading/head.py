"""What a page says of itself beside its text: robots rules, licence, language; a scan of its first bytes, not a parser."""

import re

SCANNED = 16_384
ROBOTS = re.compile(rb"<meta\s[^>]{0,200}?name\s*=\s*[\"']?robots[\"']?[^>]{0,200}>", re.IGNORECASE)
CONTENT = re.compile(rb"content\s*=\s*[\"']?([^\"'>]{1,200})", re.IGNORECASE)
LICENCE = re.compile(rb"<(?:link|a)\s[^>]{0,300}?rel\s*=\s*[\"']?[^\"'>]{0,40}licen[sc]e[^>]{0,300}>", re.IGNORECASE)
ADDRESS = re.compile(rb"href\s*=\s*[\"']?([^\"'\s>]{1,300})", re.IGNORECASE)
COMMONS = re.compile(rb"https?://creativecommons\.org/(?:licenses|publicdomain)/[a-z0-9./-]{1,60}", re.IGNORECASE)
LANGUAGE = re.compile(rb"<html\s[^>]{0,300}?\blang\s*=\s*[\"']?([A-Za-z-]{2,20})", re.IGNORECASE)


def head_metadata(headers: dict[str, str], html: bytes) -> dict[str, str]:
    """robots (of the X-Robots-Tag header and the page's own), licence (an address), language (as declared), where they are there."""
    start = html[:SCANNED]
    robots = [headers["x-robots-tag"]] if "x-robots-tag" in headers else []
    if (tag := ROBOTS.search(start)) and (content := CONTENT.search(tag[0])):
        robots.append(text(content[1]))
    found = {"robots": ", ".join(robots).lower()} if robots else {}
    licence = (tag := LICENCE.search(start)) and (address := ADDRESS.search(tag[0])) and address[1]
    if not licence and b"creativecommons.org/" in html and (named := COMMONS.search(html)):
        licence = named[0]
    if licence:
        found["licence"] = text(licence)
    declared = headers.get("content-language", "") or ((tag := LANGUAGE.search(start)) and text(tag[1])) or ""
    return found | ({"language": declared.lower()} if declared else {})


def text(found: bytes) -> str:
    return " ".join(found.decode("utf-8", "replace").split())
