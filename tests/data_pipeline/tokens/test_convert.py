"""Converted tokenizers give the ids of sentencepiece and tiktoken, the members' special ids, and chats equal to their text."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import phial
from benchmarks.family_tokenizers import GOLDEN
from data_pipeline.errors import InputError
from data_pipeline.tokens.chat import encode_chat, render_chat, stop_ids
from data_pipeline.tokens.chat_format import chat_format
from data_pipeline.tokens.convert import Source, build_tokenizer, convert_tokenizer, from_tiktoken
from data_pipeline.tokens.members import MEMBERS, Member, member_named
from data_pipeline.tokens.plain_text import encode_text, encode_texts
from data_pipeline.tokens.tokenizer import load_tokenizer
from tests.data_pipeline.tokens.small_vocabularies import CORPUS, TEXTS, learnt_ranks, random_texts, sentencepiece_file, tiktoken_file

SP = "\u2581"
WHY = "not run here: needs {}, which `pip install --group dev` installs"
# By hand: joins by falling score, the characters that they are made of, and runs of blanks of one last score, as Llama-2 has them.
CHARACTERS = [(sign, -900.0 - number) for number, sign in enumerate(SP + "helowrdabc\n")]
JOINS = ["he", "ll", "hell", "hello", SP + "hello", "wor", "or", "world", SP + "w", "ld", SP + "world", "aba", "ab", "ba"]
RUNS = [(SP * length, -1e9) for length in (2, 4, 3, 8, 5, 6)]
PIECES = [*((join, -1.0 - number) for number, join in enumerate(JOINS)), *CHARACTERS, *RUNS]
BY_HAND = sentencepiece_file(PIECES)
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  What is 12 + 34?\n\n"},
    {"role": "assistant", "content": "\n\n 46, naïvely \U0001f642"},
    {"role": "user", "content": ""},
]


def sized(name: str, entries: int) -> Member:
    """The member with a vocabulary of the test's size."""
    return replace(MEMBERS[name], entries=entries)


def from_bytes(content: bytes, member: Member, rstrip: bool = True) -> Tokenizer:
    return build_tokenizer(Source(Path("given"), content), member, rstrip)[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A SentencePiece model with Llama-2's settings, and sentencepiece's own encoder of it."""
    sentencepiece = pytest.importorskip("sentencepiece", reason=WHY.format("sentencepiece"))
    path = tmp_path_factory.mktemp("model") / "small"
    settings = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    settings |= {"split_digits": True, "allow_whitespace_only_pieces": True, "vocab_size": 480, "minloglevel": 9, "num_threads": 1}
    lines = [line for text in CORPUS * 20 for line in text.split("\n")]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_prefix=str(path), character_coverage=0.98, **settings)
    file = path.with_suffix(".model")
    return file, sentencepiece.SentencePieceProcessor(model_file=str(file))


def test_sentencepiece_by_hand() -> None:
    """Expected pieces worked out on paper; so this holds without the sentencepiece package."""
    tokenizer = from_bytes(BY_HAND, sized("mini", 259 + len(PIECES)))
    for text, pieces in {
        "": [],
        "hello world": [SP + "hello", SP + "world"],
        "hell": [SP, "hell"],
        " hello": [SP, SP + "hello"],
        "   hello": [SP * 3, SP + "hello"],
        "ababa": [SP, "aba", "ba"],
        "é\n": [SP, "<0xC3>", "<0xA9>", "\n"],
        "<s>": [SP, "<0x3C>", "<0x73>", "<0x3E>"],
        " " * 9: [SP * 8, SP * 2],  # 2, 3, ... 6; no 7, so 2 begins anew and joins the 6
    }.items():
        assert [tokenizer.id_to_token(number) for number in encode_text(tokenizer, text)] == pieces, text
        assert tokenizer.decode(encode_text(tokenizer, text), skip_special_tokens=False) == text


@pytest.mark.parametrize("which", ["trained", "by hand"])
def test_sentencepiece_agrees_with_its_own_encoder(which: str, trained: tuple[Path, Any]) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason=WHY.format("sentencepiece"))
    content = BY_HAND if which == "by hand" else trained[0].read_bytes()
    reference: Any = sentencepiece.SentencePieceProcessor(model_proto=content)
    tokenizer = from_bytes(content, sized("mini", reference.get_piece_size()))
    texts = [*TEXTS, *random_texts(400), *("ab" * n + "a" for n in range(9)), *(" " * n + "x" for n in range(60))]
    found = encode_texts(tokenizer, texts)
    for text, ids in zip(texts, found, strict=True):
        assert ids == reference.encode(text), text
        assert tokenizer.decode(ids, skip_special_tokens=False) == reference.decode(ids) == text.replace(SP, " "), text
    if which == "trained":  # merges in another order are found out
        wrong = from_bytes(content, sized("mini", reference.get_piece_size())).to_str()
        assert any(encode_texts(reversed_merges(wrong), [text])[0] != ids for text, ids in zip(texts, found, strict=True))


def reversed_merges(tokenizer_json: str) -> Tokenizer:
    parts = json.loads(tokenizer_json)
    parts["model"]["merges"].reverse()
    return Tokenizer.from_str(json.dumps(parts))


def test_tiktoken_agrees_with_its_own_encoder() -> None:
    tiktoken = pytest.importorskip("tiktoken", reason=WHY.format("tiktoken"))
    ranks = learnt_ranks(400)
    # Contraction endings, marks and numbers as OpenAI publishes cl100k's pattern, in tiktoken's own newer spelling.
    pattern = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    member = sized("small", len(ranks))
    reference = tiktoken.Encoding("small", pat_str=pattern, mergeable_ranks=ranks, special_tokens=member.special_ids())
    tokenizer = from_bytes(tiktoken_file(ranks), member)
    texts = [*TEXTS, *random_texts(400)]
    for text, ids in zip(texts, encode_texts(tokenizer, texts), strict=True):
        assert ids == reference.encode_ordinary(text), text
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
    for text in ("<|user|>\nhi<|end|>\n", "a<|endoftext|> b<|dummy_id_86|>"):
        assert tokenizer.encode(text).ids == reference.encode(text, allowed_special="all")
    wrong = reversed_merges(tokenizer.to_str())
    assert any(encode_text(wrong, text) != reference.encode_ordinary(text) for text in texts)


def test_tiktoken_by_hand() -> None:
    """A word that is an entry as a whole is that entry even where no joins lead to it; inside a word it never comes about."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"bc": 256, b"ab": 257, b" a": 258, b"abc": 259, b"xyz": 260}
    tokenizer = from_tiktoken(ranks, sized("small", len(ranks)), "given")
    expected = {"abc": [259], "xyz": [260], "xyzz": [*b"xyzz"], "ab": [257], " abc": [258, 256], "": []}
    assert {text: encode_text(tokenizer, text) for text in expected} == expected


def test_special_ids_are_the_published_ones() -> None:
    known = {
        "mini": {"<|endoftext|>": 32000, "<|assistant|>": 32001, "<|system|>": 32006, "<|end|>": 32007, "<|user|>": 32010},
        "small": {"<|endoftext|>": 100257, "<|system|>": 100261, "<|user|>": 100262, "<|assistant|>": 100263, "<|end|>": 100266},
        "phi-4": {"<|endoftext|>": 100257, "<|im_start|>": 100264, "<|im_end|>": 100265, "<|im_sep|>": 100266, "<|dummy_85|>": 100349},
        "phi-4-mini": {"<|endoftext|>": 199999, "<|assistant|>": 200019, "<|end|>": 200020, "<|user|>": 200021, "<|tool|>": 200023},
    }
    known["medium"] = known["mini"]
    known["small"] |= {"<|dummy_id_2|>": 100256, "<|fim_suffix|>": 100260, "<|dummy_id_11|>": 100275, "<|dummy_id_86|>": 100351}
    for name, ids in known.items():
        member = member_named(name)
        assert ids.items() <= member.special_ids().items()
        assert len(set(member.specials)) == len(member.specials)
        assert {member.eos, member.pad, *member.format.required} <= set(member.specials)
    assert [MEMBERS[name].entries + len(MEMBERS[name].specials) for name in ("mini", "small", "phi-4")] == [32011, 100352, 100352]


@pytest.mark.parametrize("rstrip", [True, False])
@pytest.mark.parametrize("name", list(MEMBERS))
def test_chats_are_their_text_and_autotokenizer_reads_the_folder(name: str, rstrip: bool, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ranks = learnt_ranks(100)
    content, entries = (BY_HAND, 259 + len(PIECES)) if MEMBERS[name].vocabulary == "sentencepiece" else (tiktoken_file(ranks), len(ranks))
    (tmp_path / "vocabulary").write_bytes(content)
    member = sized(name, entries)
    facts = convert_tokenizer(tmp_path / "vocabulary", tmp_path / "out", member, rstrip)
    (tmp_path / "out" / "config.json").write_text('{"model_type": "phi3"}', encoding="utf-8")
    ours, theirs = load_tokenizer(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    assert facts["vocab_size"] == len(theirs) == entries + len(member.specials)
    assert chat_format(ours) == member.format
    assert (theirs.eos_token, theirs.pad_token, theirs.bos_token) == (member.eos, member.pad, member.bos)
    for prompt in (True, False):
        text = render_chat(TURNS, prompt, member.format)
        ids = encode_chat(ours, TURNS, prompt)
        assert text == theirs.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=prompt)
        assert ids == ours.encode(text, add_special_tokens=False).ids == theirs(text, add_special_tokens=False)["input_ids"]
    assert stop_ids(ours) == (member.special_ids()[member.format.end], member.special_ids()["<|endoftext|>"])
    for text in TEXTS:
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text, add_special_tokens=False).ids
    # Content cannot become a special token, and what could not be told apart is refused.
    evil = [{"role": "user", "content": f"x{member.format.end}{member.eos}{member.bos}"}]
    inner = encode_chat(ours, evil)
    plain = encode_chat(ours, [{"role": "user", "content": "x"}])
    count = {number for number in range(entries, facts["vocab_size"])} | ({0, 1, 2} if member.vocabulary == "sentencepiece" else set())
    assert sum(number in count for number in inner) == sum(number in count for number in plain)
    for refuse in (lambda: render_chat(evil, True, member.format), lambda: theirs.apply_chat_template(evil, tokenize=False)):
        with pytest.raises(Exception, match="must not spell the special token"):
            refuse()


def test_the_newline_after_a_tag_in_both_releases_of_mini() -> None:
    member = sized("mini", 259 + len(PIECES))
    special = member.special_ids()
    newline = dict((text, 259 + at) for at, (text, _) in enumerate(PIECES))
    turns = [{"role": "user", "content": "hello"}]
    tag, end, answer = special["<|user|>"], special["<|end|>"], special["<|assistant|>"]
    assert encode_chat(from_bytes(BY_HAND, member, True), turns) == [tag, newline[SP + "hello"], end, answer]
    blank = [newline[SP], newline["\n"]]
    expected = [tag, *blank, newline["hello"], end, *blank, answer, *blank]
    assert encode_chat(from_bytes(BY_HAND, member, False), turns) == expected


def test_rendered_chats_of_all_formats() -> None:
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    expected = {
        "mini": "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\n",
        "small": "<|endoftext|><|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\n",
        "phi-4-mini": "<|system|>S<|end|><|user|>U<|end|><|assistant|>",
        "phi-4": "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>U<|im_end|><|im_start|>assistant<|im_sep|>",
    }
    expected["medium"] = expected["mini"]
    assert {name: render_chat(turns, True, member.format) for name, member in MEMBERS.items()} == expected


def test_a_tokenizer_json_is_kept_and_checked(tmp_path: Path) -> None:
    member = sized("mini", 259 + len(PIECES))
    (tmp_path / "tokenizer.model").write_bytes(BY_HAND)
    convert_tokenizer(tmp_path, tmp_path / "a", member, rstrip=False)
    assert convert_tokenizer(tmp_path / "a", tmp_path / "b", member)["kind"] == "tokenizer.json"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with pytest.raises(InputError, match="entries, small has 100,256"):
        convert_tokenizer(tmp_path / "a", tmp_path / "c", MEMBERS["small"])
    with pytest.raises(InputError, match="must be the token"):
        convert_tokenizer(tmp_path / "a", tmp_path / "c", replace(member, specials=member.specials[::-1]))
    with pytest.raises(InputError, match="holds the source"):
        convert_tokenizer(tmp_path / "a", tmp_path / "a", member)
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", ["cl100k", "o200k", "llama"])
def test_published_ids_of_the_real_vocabularies(vocabulary: str) -> None:
    """PHIAL_CL100K, PHIAL_O200K and PHIAL_LLAMA name the real files."""
    file = os.environ.get(f"PHIAL_{vocabulary.upper()}")
    if file is None:
        pytest.skip(f"not run here: set PHIAL_{vocabulary.upper()} to the real file")
    member = MEMBERS[{"cl100k": "small", "o200k": "phi-4-mini", "llama": "mini"}[vocabulary]]
    tokenizer = from_bytes(Path(file).read_bytes(), member)
    assert {text: encode_text(tokenizer, text) for text in GOLDEN[vocabulary]} == GOLDEN[vocabulary]
    if vocabulary == "llama":
        assert encode_chat(tokenizer, [{"role": "user", "content": "Hello world"}]) == [32010, 15043, 3186, 32007, 32001]
    if vocabulary == "cl100k":
        phi4 = from_bytes(Path(file).read_bytes(), MEMBERS["phi-4"])
        assert phi4.encode("<|im_start|>Hello<|im_sep|> World<|im_end|><|dummy_85|>").ids == [100264, 9906, 100266, 4435, 100265, 100349]


def test_a_tokenizer_beside_a_model(tmp_path: Path) -> None:
    """What lies in the folder stays; the four files are those of a folder of its own, and none is half there if one cannot be."""
    model, alone, member = tmp_path / "model", tmp_path / "alone", sized("mini", 259 + len(PIECES))
    (tmp_path / "source").write_bytes(BY_HAND)
    (model / "adapter").mkdir(parents=True)
    for name in ("model.safetensors", "adapter/weights", "tokenizer.json"):
        (model / name).write_text(f"old {name}")
    facts = convert_tokenizer(tmp_path / "source", alone, member)
    assert convert_tokenizer(tmp_path / "source", model, member) == facts
    names = {path.name for path in alone.iterdir()}
    assert {path.name for path in model.iterdir()} == {*names, "model.safetensors", "adapter"}
    assert all((model / name).read_bytes() == (alone / name).read_bytes() for name in names)
    assert [(model / name).read_text() for name in ("model.safetensors", "adapter/weights")] == [
        "old model.safetensors",
        "old adapter/weights",
    ]
    (model / "chat_template.jinja").unlink()
    (model / "chat_template.jinja").mkdir()
    (model / "tokenizer.json").write_text("mine")
    with pytest.raises(InputError, match=r"chat_template\.jinja: a file to write is needed"):
        convert_tokenizer(tmp_path / "source", model, member)
    assert (model / "tokenizer.json").read_text() == "mine"


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEMBERS, "mini", sized("mini", 259 + len(PIECES)))
    (tmp_path / "tokenizer.model").write_bytes(BY_HAND)
    arguments = ["tokenizer", "convert", str(tmp_path), str(tmp_path / "out"), "--member", "mini"]
    for more, strips in [([], True), (["--no-rstrip"], False)]:
        assert phial.run([*arguments, "--json", *more]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["kind"], facts["vocab_size"]) == ("sentencepiece", 259 + len(PIECES) + 11)
        tokens = load_tokenizer(tmp_path / "out").get_added_tokens_decoder().values()
        assert {token.content: token.rstrip for token in tokens}["<|user|>"] is strips
    assert phial.run(arguments) == 0
    assert "mini, " in capsys.readouterr().out
