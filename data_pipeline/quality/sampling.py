"""Which documents a teacher is asked about: a sample stratified by length, first score and site, a function of documents and seed."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

LENGTHS = (500, 2_000, 8_000)  # characters at which a new length class begins


class Candidate(NamedTuple):
    """What the sample looks at: the first score is the nearest whole score of an earlier model, -1 without one."""

    id: str
    site: str
    characters: int
    first_score: int = -1

    @property
    def stratum(self) -> tuple[int, int]:
        """Length class and first score."""
        return sum(self.characters >= length for length in LENGTHS), self.first_score


class Drawn(NamedTuple):
    """A drawn document: `stands_for` is how many documents of its stratum there are for each drawn one."""

    id: str
    stratum: tuple[int, int]
    stands_for: float


def draw(candidates: Iterable[Candidate], count: int, seed: int) -> list[Drawn]:
    """`count` documents (all where there are fewer), alike from each stratum and within it in turns from each site.

    A stratum with fewer documents than its share gives them all, and the others share the rest. The order of the candidates does not
    matter; neither does it matter for a document's rank which others there are, but for those of its site.
    """
    strata: dict[tuple[int, int], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        strata[candidate.stratum].append(candidate)
    left, drawn = count, []
    for number, (stratum, inside) in enumerate(sorted(strata.items(), key=lambda one: (len(one[1]), one[0]))):
        share = min(len(inside), left // (len(strata) - number))
        left -= share
        chosen = sorted(inside, key=lambda one: hashed(seed, one.id))
        chosen = [one for one, _ in zip(in_turns(chosen, seed), range(share), strict=False)]
        drawn += [Drawn(one.id, stratum, len(inside) / share) for one in chosen]
    return sorted(drawn, key=lambda one: hashed(seed, one.id))


def in_turns(candidates: list[Candidate], seed: int) -> Iterator[Candidate]:
    """One of each site, then a second of each, and so on; sites in an order of the seed."""
    sites: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        sites[candidate.site].append(candidate)
    queues = [sites[site] for site in sorted(sites, key=lambda one: hashed(seed, one))]
    for turn in range(max(map(len, queues), default=0)):
        yield from (queue[turn] for queue in queues if turn < len(queue))


def hashed(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode("utf-8", "surrogatepass")).digest()[:16]


def is_chosen(seed: int, identity: str, share: float) -> bool:
    """Whether a document is in a share of all: a pure function of the seed and its id."""
    return int.from_bytes(hashed(seed, identity)[:8], "big") < share * 2**64
