"""Personal data masked: e-mail, phone, IP, card numbers, IBANs become <email>, <phone>, <ip>, <card>, <iban>.

Technical text is full of numbers that look alike, so each pattern is checked as far as its format allows: the Luhn digit of a card, the
remainder of an IBAN, whether an address is one of the public Internet. Version numbers and addresses such as 127.0.0.1 stay.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache

EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w@])")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?\b")
CARD = re.compile(
    r"(?<![\w.,-])(?:\d{4}[ -]){3}\d{1,7}(?![\w-])|(?<![\w.,-])3[47]\d{2}[ -]\d{6}[ -]\d{5}(?![\w-])|(?<![\w.,-])\d{13,16}(?![\w.-])"
)
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w/]|\.\w)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:){2,7}(?::?[0-9A-Fa-f]{1,4}){1,7}(?![\w:/])")
# Each way to write a number, and a pattern without which it cannot stand on a line: searching for all of them everywhere is slow.
PHONES = (
    (re.compile(r"\+"), r"(?<![\w.+])\+[1-9]\d{0,2}(?:[ ./-]?\(?\d{1,5}\)?){2,6}(?![\w.]\d|\w)"),  # +49 30 1234567
    (re.compile(r"\("), r"(?<![\w.)])(?:1[ .-])?\([2-9]\d{2}\) ?\d{3}[ .-]\d{4}(?!\w)"),  # (212) 555-0123
    (re.compile(r"\d[.-]\d"), r"(?<![\w.-])(?:1[.-])?[2-9]\d{2}[.-]\d{3}[.-]\d{4}(?![\w.-]\d|\w)"),  # 212-555-0123
    (
        re.compile(r"[lLeEnN][: .]{1,2}0"),
        r"(?i:(?<=tel )|(?<=tel: )|(?<=tel\. )|(?<=phone )|(?<=phone: )|(?<=telefon: )|(?<=call ))0\d{1,4}[ /-]?\d{3,4}[ -]?\d{2,6}(?!\w)",
    ),
)
VERSION_BEFORE = re.compile(r"(?:\bversions?|\bv|\brelease|\bpython|\brevision)\s*[:=]?\s*$", re.IGNORECASE)


CONTEXT = 16  # characters before a line that may say what a number on it is


def mask(text: str) -> tuple[str, Counter[str]]:
    """The text with personal data replaced, and how many of each kind were.

    No pattern reaches over a line's end, so only lines that could hold one are searched.
    """
    found: Counter[str] = Counter()
    lines = text.split("\n")
    before = ""
    for place, line in enumerate(lines):
        if may_hold(line):
            lines[place] = mask_line(line, before, found)
        before = (before + line[-CONTEXT:] + "\n")[-CONTEXT:]
    return "\n".join(lines), found


def may_hold(line: str) -> bool:
    """An at sign, four digits (the shortest IP address has them), or the colons of an address that has no digits."""
    return "@" in line or line.count(":") > 1 or sum(map(line.count, "0123456789")) > 3


def mask_line(line: str, before: str, found: Counter[str]) -> str:
    """One line masked; `before` is what stands in front of it, and stays."""
    whole = before + line
    for kind, sign, matches, is_one in KINDS:
        if sign.search(whole, len(before)) is None:
            continue
        parts, start = [], 0
        for match in matches(whole, len(before)):
            if is_one(match):
                found[kind] += 1
                parts += [whole[start : match.start()], f"<{kind}>"]
                start = match.end()
        if parts:
            whole = "".join([*parts, whole[start:]])
    return whole[len(before) :]


def is_email(match: re.Match[str]) -> bool:
    return ".." not in match[0]


def is_iban(match: re.Match[str]) -> bool:
    """ISO 13616: with the first four characters moved to the end and letters as 10 to 35, the number modulo 97 is 1."""
    text = re.sub(r"[ -]", "", match[0])
    if not 15 <= len(text) <= 34:
        return False
    return int("".join(str(int(mark, 36)) for mark in text[4:] + text[:4])) % 97 == 1


def is_card(match: re.Match[str]) -> bool:
    """A card scheme's prefix and length, and the Luhn sum."""
    digits = re.sub(r"[ -]", "", match[0])
    schemes = {
        13: digits.startswith("4"),
        14: digits.startswith(("30", "36", "38", "39")),
        15: digits.startswith(("34", "37")),
        16: digits.startswith(("4", "51", "52", "53", "54", "55", "6011", "65")) or "2221" <= digits[:4] <= "2720",
        19: digits.startswith(("4", "62")),
    }
    if not schemes.get(len(digits), False) or len(set(digits)) < 3:
        return False
    values = [int(digit) for digit in reversed(digits)]
    return sum(values[0::2] + [sum(divmod(2 * value, 10)) for value in values[1::2]]) % 10 == 0


def is_public_address(match: re.Match[str]) -> bool:
    """An address of the public Internet that does not stand behind the word version."""
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    before = match.string[max(0, match.start() - 16) : match.start()]
    return address.is_global and not address.is_multicast and VERSION_BEFORE.search(before) is None


def is_phone(match: re.Match[str]) -> bool:
    """Seven to fifteen digits (E.164)."""
    return 7 <= sum(mark.isdigit() for mark in match[0]) <= 15


def phones(text: str, start: int) -> Iterable[re.Match[str]]:
    """What looks like a phone number, of the kinds that can be there."""
    wanted = tuple(sign.search(text, start) is not None for sign, _ in PHONES)
    return phone_pattern(wanted).finditer(text, start) if any(wanted) else ()


@lru_cache(maxsize=16)
def phone_pattern(wanted: tuple[bool, ...]) -> re.Pattern[str]:
    return re.compile("|".join(pattern for one, (_, pattern) in zip(wanted, PHONES, strict=True) if one))


# In this order: an IBAN's and a card's digits must not be taken for a phone number. The second is quick to search and stands in every one.
Matches = Callable[[str, int], Iterable[re.Match[str]]]
KINDS: tuple[tuple[str, re.Pattern[str], Matches, Callable[[re.Match[str]], bool]], ...] = (
    ("email", re.compile("@"), EMAIL.finditer, is_email),
    ("iban", re.compile(r"[A-Z]{2}\d{2}"), IBAN.finditer, is_iban),
    ("card", re.compile(r"\d{4}[ -]?\d{4}|3[47]\d{2}[ -]\d{6}"), CARD.finditer, is_card),
    ("ip", re.compile(r"\d\.\d{1,3}\.\d"), IPV4.finditer, is_public_address),
    ("ip", re.compile(r":[0-9A-Fa-f]{0,4}:"), IPV6.finditer, is_public_address),
    ("phone", re.compile(r"\d"), phones, is_phone),
)
