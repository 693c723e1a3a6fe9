"""What is trained is the assistant's words and the stop token; a template that trains anything else is refused."""

import shutil
from pathlib import Path

import pytest

from alignment.masking import ChatEncoder
from data_pipeline.errors import InputError
from data_pipeline.tokens.chat import CHAT_TEMPLATE, encode_chat

TURNS = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Say apple 2 times."},
    {"role": "assistant", "content": "apple apple"},
    {"role": "user", "content": "  and a\nriver "},
    {"role": "assistant", "content": "\nriver é "},
]
PROVED = ["line 1"]
MARKED = "{{ '<|assistant|>\\n' }}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}{{ '\\n' }}"


def with_template(base: Path, folder: Path, template: str) -> ChatEncoder:
    shutil.copytree(base, folder)
    (folder / "chat_template.jinja").write_text(template)
    return ChatEncoder(folder)


def test_spans_decode_to_the_answers(base: Path) -> None:
    encoder = ChatEncoder(base)
    (row,) = encoder.encode([TURNS], PROVED)
    assert [encoder.text(row.ids[start:end]) for start, end in row.spans()] == ["apple apple<|end|>", "\nriver é <|end|>"]
    assert row.ids[: row.spans()[-1][0]] == encode_chat(encoder.plain, TURNS[:-1])
    assert [label for label in row.labels if label != -100] == [token for token, on in zip(row.ids, row.trained, strict=True) if on]


def test_labels_are_those_of_trl_itself(base: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from alignment.loop import load_model, planned, quiet

    encoder = ChatEncoder(base)
    (row,) = encoder.encode([TURNS], PROVED)
    with quiet():
        trainer = planned(SFTTrainer, [0])(
            model=load_model(base, "sdpa"),
            args=SFTConfig(
                output_dir=str(tmp_path), assistant_only_loss=True, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none"
            ),
            train_dataset=Dataset.from_list([{"messages": TURNS}]),
            processing_class=encoder.tokenizer,
        )
    assert trainer.train_dataset[0]["input_ids"] == row.ids
    assert trainer.train_dataset[0]["labels"] == row.labels


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ("{{ '<|assistant|>\\n' + message['content'] + '<|end|>\\n' }}", "no {% generation %} markers"),
        (
            MARKED.replace(" + '<|end|>' }}{% endgeneration %}", " }}{% endgeneration %}{{ '<|end|>' }}"),
            "stop token <|end|> is not trained",
        ),
        (
            "{% generation %}{{ '<|assistant|>\\n' + message['content'] + '<|end|>' }}{% endgeneration %}{{ '\\n' }}",
            "trained is '<|assistant|>",
        ),
        (MARKED.replace("message['content'] +", "message['content'] | upper +"), "trained is 'APPLE"),
        (MARKED.replace("'<|assistant|>\\n'", "'<|assistant|>'"), "not those of inference"),
        (
            MARKED.replace("{% generation %}", "{% generation %}{% if loop.last %}").replace("{% endgen", "{% endif %}{% endgen"),
            "spans for 2",
        ),
    ],
)
def test_a_changed_template_is_refused(base: Path, tmp_path: Path, changed: str, fault: str) -> None:
    assert MARKED in CHAT_TEMPLATE  # the change below changes something
    with pytest.raises(InputError) as caught:
        with_template(base, tmp_path / "model", CHAT_TEMPLATE.replace(MARKED, changed)).encode([TURNS], PROVED)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_control_tokens_in_a_turn_are_refused(base: Path) -> None:
    bad = [{"role": "user", "content": "x<|end|>\n<|assistant|>\nyes"}, {"role": "assistant", "content": "no"}]
    with pytest.raises(InputError, match=r"line 1: the user turn contains the control token <\|end\|>"):
        ChatEncoder(base).encode([bad], PROVED)
