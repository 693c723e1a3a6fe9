"""Text in, text out: prompts, streaming, sampling, limits."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from typer.testing import CliRunner

from data_pipeline.errors import InputError
from data_pipeline.tokens.tokenizer import load_tokenizer
from export import load_package
from export.conversation import Conversation
from export.package import open_package
from export.sampling import Sampling, pick, text_pieces, until_stop
from export.session import Package
from phial import app

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Größe in 東京?"}]


@pytest.fixture(scope="module")
def package(package_folder: Path) -> Package:
    return load_package(package_folder, 1)


def test_prompts_are_those_of_transformers_and_of_the_golden_chats(package: Package, package_folder: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(package_folder)
    chats = open_package(package_folder)["chat"]
    assert len(chats) >= 3
    for turns in [TURNS, *(chat["turns"] for chat in chats)]:
        ids = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        assert package.encode(turns) == ids
        assert package.encode(theirs.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)) == ids
    for chat in chats:
        assert package.encode(chat["turns"]) == chat["ids"]
    # What a user types is never a control token, while a text prompt is taken as it is.
    end = package.tokenizer.token_to_id("<|end|>")
    assert package.encode([{"role": "user", "content": "a<|end|>"}]).count(end) == 1
    assert package.encode("a<|end|>").count(end) == 1


def test_greedy_text_is_the_argmax_of_full_logits(package: Package) -> None:
    ids, expected = package.encode(TURNS), []
    for _ in range(12):
        token = int(package.logits(ids)[-1].argmax())
        if token in package.stop_ids:
            break
        expected.append(token)
        ids = [*ids, token]
    assert package.generate(TURNS, 12) == package.tokenizer.decode(expected)
    assert "".join(package.stream(TURNS, 12)) == package.generate(TURNS, 12)


def test_sampling_is_seeded_and_keeps_to_its_bounds(package: Package) -> None:
    draws = [package.generate("The pear", 20, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    logits_V = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    random = np.random.default_rng(0)
    counts = np.bincount([pick(logits_V, Sampling(temperature=1.0), random) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.15, 0.05], atol=0.03)
    assert {pick(logits_V, Sampling(temperature=1.0, top_k=2), random) for _ in range(200)} == {0, 1}
    assert {pick(logits_V, Sampling(temperature=1.0, top_p=0.79), random) for _ in range(200)} == {0, 1}
    assert pick(logits_V, Sampling(), random) == 0
    for tiny in (1e-5, 1e-308, 1e-320):  # warnings are errors here
        assert pick(logits_V.astype(np.float32)[::-1], Sampling(temperature=tiny), random) == 3
    for wrong in ({"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_k": -1}):
        with pytest.raises(InputError):
            Sampling(**wrong)  # type: ignore[arg-type]


def test_pieces_never_break_a_character(tokenizer_folder: Path) -> None:
    tokenizer: Tokenizer = load_tokenizer(tokenizer_folder)
    text = "naïve 🙂 ✓ ٣ 漢字 ok 👩‍🚀"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = list(text_pieces(ids, tokenizer))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert any(tokenizer.decode([token]) == "\ufffd" for token in ids)  # the text is one where decoding token by token breaks
    cut = "".join(text_pieces(ids[:-1], tokenizer))  # an answer that ends inside a character says so and loses nothing before it
    assert cut == tokenizer.decode(ids[:-1])


def test_stop_texts_end_the_answer_wherever_pieces_are_cut() -> None:
    for cut in range(1, 12):
        pieces = ["one two three"[start : start + cut] for start in range(0, 13, cut)]
        assert "".join(until_stop(pieces, ["two", "three"])) == "one "
        assert "".join(until_stop(pieces, ["four", "thread"])) == "one two three"


def test_limits_are_errors_of_one_line(package: Package) -> None:
    long = "pear " * 200
    for call in (
        lambda: package.generate(long),
        lambda: package.generate(""),
        lambda: package.generate("a", 0),
        lambda: package.generate("\ud800"),
        lambda: package.generate("a", stop=[""]),
        lambda: package.generate([{"role": "robot", "content": "a"}]),
        lambda: package.logits([package.runner.vocab_size]),
        lambda: package.logits([]),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)
    # An answer that reaches the end of the context stops there.
    ids = package.encode("pear " * 30)
    tokens = list(package.tokens(ids, 1000, Sampling(temperature=2.0, seed=5)))
    assert len(ids) + len(tokens) <= package.context


def test_a_conversation_lets_the_oldest_turns_go(package: Package) -> None:
    talk = Conversation(package, max_new_tokens=8, system="Be brief.")
    let_go = 0
    for number in range(12):
        gone, pieces = talk.ask(f"question {number}")
        let_go += gone
        answer = "".join(pieces)
        assert talk.turns[-1] == {"role": "assistant", "content": answer}
    assert let_go > 0
    assert talk.turns[0]["role"] == "system"
    assert len(package.encode(talk.turns)) <= package.context
    with pytest.raises(InputError, match="too long"):
        talk.ask("pear " * 200)
    assert talk.turns[-1]["role"] == "assistant"
    talk.reset()
    assert [turn["role"] for turn in talk.turns] == ["system"]


def test_a_system_turn_without_room_for_a_question_is_refused_at_once(package: Package) -> None:
    with pytest.raises(InputError, match="the system turn is too long"):
        Conversation(package, system="pear " * 200)


def test_the_verbs_chat_and_bench(package_folder: Path) -> None:
    with warnings.catch_warnings():
        chat = CliRunner().invoke(
            app, ["chat", str(package_folder), "--max-new-tokens", "5", "--threads", "1"], input="pear\n/reset\npear\n"
        )
    assert chat.exit_code == 0, chat.output
    answer = load_package(package_folder, 1).generate([{"role": "user", "content": "pear"}], 5)
    assert chat.stdout == f"{answer}\n" * 2
    bench = CliRunner().invoke(app, ["bench", str(package_folder), "--json", "--new-tokens", "4", "--threads", "1"])
    assert bench.exit_code == 0, bench.output
    found = json.loads(bench.stdout)
    for key in ("prompt_tokens_per_s", "decode_tokens_per_s", "load_s", "peak_rss_bytes", "bandwidth_bytes_per_s", "achieved_over_limit"):
        assert found[key] > 0
