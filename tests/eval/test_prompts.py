"""Prompts: the exact text of each protocol, the split between prompt and answer, and what is left out when it is too long."""

from pathlib import Path

import pytest

from data_pipeline.benchmarks import ChoiceItem
from data_pipeline.errors import InputError
from eval.prompts import PROTOCOLS, ChoiceProtocol, choice_prompt, choice_text, described, split_joined
from eval.text import TextSide

ITEM = ChoiceItem(id="a/0", subject="abstract_algebra", question=" Which {A} is 7? ", options=("7", "{B} 8", "None", "9\n"), answer=0)
SHOT = ChoiceItem(id="a/1", subject="abstract_algebra", question="Which is 4?", options=("1", "2", "3", "4"), answer=3)


@pytest.fixture(scope="module")
def text(model_folder: Path) -> TextSide:
    return TextSide.open(model_folder)


def test_the_default_form_letter_by_letter(text: TextSide) -> None:
    found, delimiter = choice_text(ChoiceProtocol(shots=1), text, ITEM, [SHOT])
    assert delimiter == " "
    assert found == (
        "The following are multiple choice questions (with answers) about abstract algebra.\n\n"
        "Which is 4?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: D\n\n"
        "Which {A} is 7?\nA. 7\nB. {B} 8\nC. None\nD. 9\n\nAnswer:"
    )


def test_the_original_form_has_two_spaces_and_keeps_the_question(text: TextSide) -> None:
    found, _ = choice_text(PROTOCOLS["hendrycks"], text, ITEM, [])
    assert "about  abstract algebra.\n\n Which {A} is 7? \nA. 7" in found


def test_chat_has_the_shots_as_turns(text: TextSide) -> None:
    found, delimiter = choice_text(ChoiceProtocol(shots=1, chat=True), text, ITEM, [SHOT])
    assert delimiter == ""
    assert found.startswith("<|user|>\nWhich is 4?\nA. 1")
    assert "Answer:<|end|>\n<|assistant|>\nD<|end|>\n<|user|>\nWhich {A} is 7?" in found
    assert found.endswith("Answer:<|end|>\n<|assistant|>\n")


def test_the_hash_follows_every_setting() -> None:
    hashes = {
        described(protocol)["hash"]
        for protocol in (*PROTOCOLS.values(), ChoiceProtocol(shots=1), ChoiceProtocol(delimiter=""), ChoiceProtocol(chat_template="x"))
    }
    assert len(hashes) == 5
    assert described(ChoiceProtocol())["hash"] == described(ChoiceProtocol())["hash"]


def test_split_keeps_the_joined_tokens(text: TextSide) -> None:
    for prompt, answers in (("Answer:", [" A", " river café"]), ("The answ", ["er is 7.", "er"]), ("a\n", ["A", "7"])):
        context, continuations = split_joined(text, prompt, answers)
        for answer, continuation in zip(answers, continuations, strict=True):
            assert [*context, *continuation] == text.encode([prompt + answer])[0]
            assert continuation


def test_a_token_over_the_joint_is_split_before_it(text: TextSide) -> None:
    # "answ" + "er": the joined string has a token that spans the joint, so tokens of the halves would be others.
    (alone,) = text.encode(["The answ"])
    context, _ = split_joined(text, "The answ", ["er is 7."])
    assert len(context) < len(alone)


def test_shots_are_dropped_from_the_end_and_counted(text: TextSide) -> None:
    protocol = ChoiceProtocol(shots=3)
    shots = [SHOT, ITEM, SHOT]
    whole = choice_prompt(protocol, text, ITEM, shots, 10_000)
    assert (whole.shots_dropped, whole.tokens_cut) == (0, 0)
    one = choice_prompt(ChoiceProtocol(shots=1), text, ITEM, shots, 10_000)
    longest = max(len(option) for option in one.texts)
    tight = choice_prompt(protocol, text, ITEM, shots, len(one.context) + longest - 1)
    assert (tight.shots_dropped, tight.tokens_cut) == (2, 0)
    assert tight.context == one.context
    none = choice_prompt(protocol, text, ITEM, shots, 40)
    assert none.shots_dropped == 3
    assert none.tokens_cut > 0
    assert len(none.context) == 40 - longest + 1
    assert none.context == one.context[-len(none.context) :]


def test_impossible_settings_are_one_line(text: TextSide) -> None:
    with pytest.raises(InputError, match="0 to 5 are possible"):
        ChoiceProtocol(shots=6)
    with pytest.raises(InputError, match="does not fit a context of 1"):
        choice_prompt(ChoiceProtocol(), text, ITEM, [], 1)
    with pytest.raises(InputError, match="chat template does not take"):
        text.chat([{"role": "wizard", "content": "x"}], answer_next=True)
