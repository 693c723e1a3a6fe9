"""The quality values by plain Python, slow, from the definitions: what the compiled pass is held against."""

import re
import unicodedata
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np

from data_pipeline.web import text_pass
from data_pipeline.web.characters import MARKS, MONEY, QUOTES, class_table
from data_pipeline.web.measures import STOP_WORDS, Values
from data_pipeline.web.word_exceptions import affixed, exceptions

POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATIONS = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
DASHES = "---|--|——|[-–—~]"


@cache
def among(bit: int) -> str:
    """The inside of a regular expression's character class: all code points with the bit."""
    points = sorted(map(ord, characters(bit)))
    starts = [point for before, point in pairwise([-2, *points]) if point != before + 1]
    ends = [point for point, after in pairwise([*points, 1 << 30]) if after != point + 1]
    return "".join(f"{re.escape(chr(start))}-{re.escape(chr(end))}" for start, end in zip(starts, ends, strict=True))


@cache
def characters(bit: int) -> frozenset[str]:
    """All code points with the bit."""
    return frozenset(chr(point) for point in np.flatnonzero(class_table() & bit).tolist())


@cache
def patterns() -> dict[str, re.Pattern[str]]:
    icon, marks, quotes, money = among(text_pass.ICON), re.escape(MARKS), re.escape(QUOTES), re.escape(MONEY)
    letter, lower, upper, host = (among(bit) for bit in (text_pass.LETTER, text_pass.LOWER, text_pass.UPPER, text_pass.HOST))
    units = "|".join(sorted((re.escape(unit) for unit in text_pass.UNITS.split()), key=len, reverse=True))
    return {
        "prefix": re.compile(rf"\.\.+|US\$|[CA]\$|\+(?![0-9])|[§%=—–{marks}{quotes}{money}{icon}]"),
        "suffix": re.compile(
            rf"(?:\.\.+|['’][sS]|(?<=[0-9])(?:{units}|[{money}])|[—–{marks}{quotes}{icon}]"
            rf"|(?<=[0-9%²+|{lower}{marks}{quotes}-])\.|(?<=[{upper}][{upper}])\.|(?<=°[FfCcKk])\.)\Z"
        ),
        "infix": re.compile(
            rf"\.\.+|…|[{icon}]|(?<=[0-9])[-+*^](?=[0-9-])|(?<=[{lower}{quotes}])\.(?=[{upper}{quotes}])|(?<=[{letter}]),(?=[{letter}])"
            rf"|(?<=[{letter}0-9])(?:{DASHES})(?=[{letter}])|(?<=[{letter}0-9])[:<>=/](?=[{letter}])"
        ),
        "address": re.compile(
            rf"(?:[\w+.-]{{2,}}://)?(?:\S+@)?(?:(?:[{host}][{host}_-]{{0,62}})?[{host}]\.)+[{lower}]{{2,63}}(?::[0-9]{{2,5}})?(?:[/?#]\S*)?\Z"
        ),
    }


@cache
def all_exceptions() -> dict[str, tuple[str, ...]]:
    return exceptions()


def tokens(text: str, known: dict[str, tuple[str, ...]] | None = None) -> list[str]:
    """The tokens of all runs without white space."""
    known = all_exceptions() if known is None else known
    return [token for run in text.split() for token in joined(split_run(run, known), known)]


def split_run(run: str, known: dict[str, tuple[str, ...]]) -> list[str]:
    front: list[str] = []
    back: list[str] = []
    while run and run not in known:
        prefix = found.group() if (found := patterns()["prefix"].match(run)) else ""
        suffix = found.group() if (found := patterns()["suffix"].search(run[len(prefix) :])) else ""
        if prefix and run[len(prefix) :] in known:
            suffix = ""
        elif suffix and run[: -len(suffix)] in known:
            prefix = ""
        if not prefix and not suffix:
            break
        front += [prefix] if prefix else []
        back += [suffix] if suffix else []
        run = run[len(prefix) : len(run) - len(suffix)]
    return [*front, *split_middle(run, known), *reversed(back)]


def split_middle(run: str, known: dict[str, tuple[str, ...]]) -> list[str]:
    if not run:
        return []
    if run in known:
        return list(known[run])
    if patterns()["address"].match(run):
        return [run]
    pieces, begin = [], 0
    for found in patterns()["infix"].finditer(run):
        if found.start() > 0:
            pieces += [run[begin : found.start()], found.group()]
            begin = found.end()
    pieces.append(run[begin:])
    return [part for piece in pieces if piece for part in (known[piece] if piece in known and affixed(piece) else (piece,))]


def joined(pieces: list[str], known: dict[str, tuple[str, ...]]) -> list[str]:
    """Neighbours that read as a whole exception become one token, the longest from the left."""
    found, place = [], 0
    while place < len(pieces):
        for end in range(min(len(pieces), place + 7), place, -1):
            whole = "".join(pieces[place:end])
            if end == place + 1 or (len(whole) <= 7 and whole in known and len(known[whole]) == 1 and affixed(whole)):
                found.append(whole)
                place = end
                break
    return found


def is_marks(token: str) -> bool:
    return all(unicodedata.category(character).startswith("P") for character in token)


def sentences(line: str) -> int:
    """How many sentences begin: behind a mark that ends one, at the first token that is no mark."""
    runs = [run for run in re.findall(r"\s+|\S+", line) if run != " "]
    count, ended = 1, False
    for token in (token for run in runs for token in ([run] if run.isspace() else tokens(run))):
        ends = len(token) == 1 and bool(class_table()[ord(token)] & text_pass.SENTENCE_END)
        if ended and not is_marks(token) and not ends:
            count, ended = count + 1, False
        ended |= ends
    return count


def c4(text: str) -> tuple[list[str], int, int, int]:
    """The lines that C4 keeps, their sentences, and the lines with a brace and with placeholder text."""
    kept, total, braces, lorem = [], 0, 0, 0
    for whole in text.splitlines():
        words = whole.split()
        line = CITATIONS.sub("", whole.strip())
        low = "".join(character.lower() if character < "\x80" else character for character in line)
        if (
            any(len(word) > 1000 for word in words)
            or not line.endswith((".", "?", "!", '"', "'"))
            or line.endswith("...")
            or len(words) < 3
        ):
            continue
        lorem += "lorem ipsum" in low
        if "javascript" in low:
            continue
        braces += "{" in line
        if any(phrase in low for phrase in POLICIES):
            continue
        total += sentences(line)
        kept.append(line)
    return kept, total, braces, lorem


def repeats(parts: list[str]) -> tuple[int, int]:
    """How many parts stood in the list before, and their characters."""
    again = [part for place, part in enumerate(parts) if part in set(parts[:place])]
    return len(again), sum(map(len, again))


def top(words: list[str], n: int) -> int:
    """The characters of the commonest n-gram, of several the first, joined by blanks, in all its places."""
    counts = Counter(tuple(words[place : place + n]) for place in range(len(words) - n + 1))
    if not counts:
        return 0
    gram, times = max(counts.items(), key=lambda one: one[1])
    return len(" ".join(gram)) * times


def repeated(words: list[str], n: int) -> int:
    """The characters of n-grams seen before, from left to right, without overlap."""
    seen, total, place = set(), 0, 0
    while place <= len(words) - n:
        gram = tuple(words[place : place + n])
        if gram in seen:
            total += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return total


def plain_values(text: str) -> Values:
    """What `measure` must say of a text."""
    found = tokens(text)
    words = [token for token in found if any(character not in characters(text_pass.SYMBOL) for character in token)]
    lines, parts, texts = text.splitlines(), re.split("\n+", text), [line for line in text.split("\n") if line.strip()]
    paragraphs = re.split("\n{2,}", text.strip())
    count, size = max(len(found), 1), max(len(text), 1)
    kept, total, braces, lorem = c4(text)
    return Values(
        words=len(words),
        tokens=len(found),
        characters=len(text),
        mean_word_length=sum(map(len, words)) / max(len(words), 1),
        symbol_ratio=max(text.count("#"), text.count("...") + text.count("…")) / count,
        bullet_lines=sum(line.lstrip().startswith(("•", "-")) for line in lines) / max(len(lines), 1),
        ellipsis_lines=sum(line.rstrip().endswith(("...", "…")) for line in lines) / max(len(lines), 1),
        alphabetic_words=sum(any(map(str.isalpha, token)) for token in found) / count,
        stop_words=len(set(STOP_WORDS) & set(found)),
        duplicate_lines=repeats(parts)[0] / len(parts),
        duplicate_line_characters=repeats(parts)[1] / size,
        duplicate_paragraphs=repeats(paragraphs)[0] / len(paragraphs),
        duplicate_paragraph_characters=repeats(paragraphs)[1] / size,
        top_2gram=top(found, 2) / size,
        top_3gram=top(found, 3) / size,
        top_4gram=top(found, 4) / size,
        **{f"duplicate_{n}grams": repeated(found, n) / size for n in range(5, 11)},
        line_ends=sum(line[-1] in characters(text_pass.LINE_END) for line in texts) / max(len(texts), 1),
        short_lines=sum(len(line) <= 30 for line in texts) / max(len(texts), 1),
        repeated_line_characters=repeats(texts)[1] / max(len(text.replace("\n", "")), 1),
        newline_ratio=text.count("\n") / count,
        sentences=total,
        c4_lines=len(kept),
        braces=braces,
        lorem_ipsum=lorem,
        link_density=0.0,
    )


def plain_words(text: str) -> list[str]:
    """Runs of letters and digits in lower case, without accents."""
    found = [""]
    for character in text:
        if character.isalnum() or unicodedata.category(character)[0] == "L":
            lower = character.lower()[0]
            base = [one for one in unicodedata.normalize("NFD", lower) if not unicodedata.combining(one)]
            found[-1] += base[0] if len(base) == 1 else lower
        elif unicodedata.category(character)[0] != "M":
            found.append("")
    return [word for word in found if word]
