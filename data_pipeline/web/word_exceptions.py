"""English words that the tokenizer of the published rules splits (do|n't, can|not) or keeps whole (Mr., e.g., o'clock).

Facts of English as spaCy's blank English tokenizer treats them; a piece list gives the lengths of all pieces but the last.
"""

import numpy as np

from data_pipeline.web.text_pass import MATCHED, hash_of


def listed(line: str) -> list[str]:
    return line.split()


MODALS = listed("ca could do does did had may might must need ought sha should wo would")
HAVE_AFTER = listed("could might must should would")
OTHER_VERBS = listed("ai are is was were have has dare")
QUESTIONS = listed("who what when where why how there")
NOT_SPLIT = set(listed("Ill ill Its its Hell hell Shell shell Shed shed were Were Well well Whore whore"))
CLIPPED = listed("doin goin nothin nuthin ol somethin lovin havin")
WHOLE = listed(
    "'em 'll 'nuff 'S 's \u2018S \u2018s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout ma'am Ma'am o'clock O'clock 'd "
    "Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans. Ky. La. Mar. "
    "Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. Wis. "
    "a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. "
    "Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. ' '' C++ ä. ö. ü. \\\") <space> \\t \\n "
    ":) :-) :)) :-)) :))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :(( :-(( :((( :-((( :-))) "
    "): )-: =( >:( "
    ":') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x "
    ":D :-D "
    ";D ;-D =D 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o "
    "@_@ <3 <33 <333 </3 (^_^) (-_-) (._.) (>_<) (*_*)"
)
SPLIT = (
    "y'|all y|all how|'d|'y How|'d|'y can|not Can|not gon|na Gon|na got|ta Got|ta let|'s Let|'s c'm|on C'm|on not|'ve not|ve Not|'ve Not|ve"
)


def with_title(words: list[str]) -> list[str]:
    return [form for word in words for form in (word, word.title())]


def contractions() -> set[tuple[str, ...]]:
    """The pieces of every contraction, with its apostrophe; a form without it exists for each."""
    found: set[tuple[str, ...]] = set()
    for word in with_title(["i"]):
        found |= {(word, "'m"), (word, "'m", "a")}
    for word in with_title([*listed("i you he she it we they"), *QUESTIONS, "that", "this", "these", "those"]):
        found |= {(word, end) for end in ("'ll", "'d")} | {(word, end, "'ve") for end in ("'ll", "'d")}
    for word in with_title([*listed("i you we they"), *QUESTIONS, "these", "those"]):
        found.add((word, "'ve"))
    for word in with_title([*listed("you we they"), *QUESTIONS, "these", "those"]):
        found.add((word, "'re"))
    for word in with_title([*listed("he she it"), *QUESTIONS, "that", "this"]):
        found.add((word, "'s"))
    for word in with_title(MODALS):
        found |= {(word, "n't"), (word, "n't", "'ve")}
    for word in with_title(OTHER_VERBS):
        found.add((word, "n't"))
    for word in with_title(HAVE_AFTER):
        found.add((word, "'ve"))
    return found


def exceptions() -> dict[str, tuple[str, ...]]:
    """Every exception and its pieces; one piece says that the word stays whole."""
    found: dict[str, tuple[str, ...]] = {}
    for pieces in contractions():
        bare = tuple(piece.replace("'", "") for piece in pieces)
        found |= {"".join(pieces): pieces, "".join(bare): bare}
    found = {word: pieces for word, pieces in found.items() if word not in NOT_SPLIT}
    for line in listed(SPLIT):
        found[line.replace("|", "")] = tuple(line.split("|"))
    for hour in range(1, 13):
        found |= {f"{hour}{half}": (str(hour), half) for half in ("a.m.", "am", "p.m.", "pm")}
    for letter in "cfkCFK":
        found[f"°{letter}."] = ("°", letter, ".")
    clipped = [form for word in with_title(CLIPPED) for form in (word, f"{word}'")]
    for word in [*WHOLE, *clipped, *(f"{letter}." for letter in "abcdefghijklmnopqrstuvwxyz")]:
        found[word] = (word,)
    curly = {word: pieces for word, pieces in found.items() if "'" in word}
    for word, pieces in curly.items():
        found.setdefault(word.replace("'", "’"), tuple(piece.replace("'", "’") for piece in pieces))
    return found


def affixed(word: str) -> bool:
    """Whether the tokenizer would split something off the word if it were no exception."""
    bare = word.replace("’", "'")
    return bare[0] == "'" or bare[-1] == "'" or bare[-2:] in ("'s", "'S") or not bare.replace("'", "").isalnum()


def exception_table() -> tuple[np.ndarray, np.ndarray]:
    """The exceptions for compiled code, an open-addressed table: hashes uint64 [slots] and pieces int64 [slots], -1 where nothing stands.

    Pieces are the length of the first plus 256 times that of the second of three, 0 keeps the word whole; MATCHED is added to those that
    count between other tokens of a run too.
    """
    slots = 4096
    keys, pieces = np.zeros(slots, np.uint64), np.full(slots, -1, np.int64)
    for word, parts in sorted(exceptions().items()):
        codes = np.frombuffer(word.encode("utf-32-le"), np.uint32)
        key = np.uint64(hash_of(codes, 0, len(codes)))
        slot = int(key) % slots
        while pieces[slot] >= 0:
            slot = (slot + 1) % slots
        keys[slot] = key
        lengths = 0 if len(parts) == 1 else len(parts[0]) + (256 * len(parts[1]) if len(parts) == 3 else 0)
        pieces[slot] = lengths + (MATCHED if affixed(word) else 0)
    return keys, pieces
