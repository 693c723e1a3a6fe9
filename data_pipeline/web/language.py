from dataclasses import dataclass
from resiliparse.parse.lang import detect_fast
@dataclass(frozen=True)
class Language:
    code: str
    distance: int
    second: str = ""
def language_of(text, preferred=(), margin=0, most=0):
    if not text:
        return Language("", 0)
    language, distance = detect_fast(text, cutoff=1_000_000)
    if preferred and language not in preferred:
        near, near_distance = detect_fast(text, cutoff=1_000_000, langs=list(preferred))
        if near in preferred and near_distance - distance <= margin:
            return Language(near, int(near_distance))
    return Language(language, int(distance))
