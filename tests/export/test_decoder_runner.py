"""Chat with float weights: the same door as the package's, told by what the folder holds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from data_pipeline.errors import InputError
from data_pipeline.tokens.tokenizer import load_tokenizer
from export.decoder_runner import DecoderRunner, open_session
from export.session import Package, Session
from modeling import load_decoder
from modeling.convert import convert_model
from phial import app

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Größe in 東京?"}]


@pytest.fixture(scope="module")
def folder(make_model: Callable[..., Path]) -> Path:
    return make_model(max_positions=600, window_keys=40)


def by_whole_texts(session: Session, folder: Path, steps: int) -> list[int]:
    """The reference: all tokens through the decoder again at every step."""
    decoder = load_decoder(folder)
    ids = session.encode(TURNS)
    start = len(ids)
    for _ in range(steps):
        with torch.no_grad():
            token = int(decoder(torch.tensor([ids]))[0, -1].argmax())
        if token in session.stop_ids:
            break
        ids.append(token)
    return ids[start:]


def test_a_hugging_face_folder_answers(folder: Path) -> None:
    session = open_session(folder)
    assert session.generate(TURNS, 30) == session.tokenizer.decode(by_whole_texts(session, folder, 30))
    assert session.generate(TURNS, 30) == session.generate(TURNS, 30)  # the second time from the cache


def test_a_checkpoint_answers_the_same(folder: Path, tmp_path: Path) -> None:
    convert_model(folder, tmp_path / "checkpoint")
    assert open_session(tmp_path / "checkpoint").generate(TURNS, 20) == open_session(folder).generate(TURNS, 20)


def test_a_package_is_still_a_package(package_folder: Path) -> None:
    assert isinstance(open_session(package_folder, 1), Package)


def test_the_cache_grows_and_prompts_are_continued(folder: Path) -> None:
    decoder = load_decoder(folder)
    runner = DecoderRunner(decoder)
    ids = [(7 * number) % 300 for number in range(500)]
    fed: list[int] = []
    hook = decoder.embedding.register_forward_hook(lambda module, args, out: fed.append(args[0].shape[1]))
    for length, news in ((20, 20), (300, 280), (500, 200), (400, None), (401, 1)):
        fed.clear()
        found = torch.from_numpy(runner.prefill(ids[:length]))
        assert news is None or sum(fed) == news
        with torch.no_grad():
            whole = decoder(torch.tensor([ids[:length]]))[0, -1]
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    hook.remove()


def test_ctrl_c_in_a_prompt_or_an_answer_spoils_no_later_answer(folder: Path) -> None:
    decoder = load_decoder(folder)
    runner = DecoderRunner(decoder)
    ids = [(7 * number) % 300 for number in range(60)]
    runner.prefill(ids[:20])

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for broken_off in (lambda: runner.feed([5]), lambda: runner.prefill(ids[:50])):
        hook = decoder.embedding.register_forward_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            broken_off()
        hook.remove()
        for length in (50, 60):
            found = torch.from_numpy(runner.prefill(ids[:length]))
            with torch.no_grad():
                whole = decoder(torch.tensor([ids[:length]]))[0, -1]
            torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


def test_the_verb_takes_float_weights(folder: Path) -> None:
    result = CliRunner().invoke(app, ["chat", str(folder), "--max-new-tokens", "5"], input="The pear\n")
    assert result.exit_code == 0, result.output
    assert result.output.strip()


def test_a_missing_tokenizer_is_told_before_the_weights_are_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert_model(folder, tmp_path / "checkpoint")
    shutil.rmtree(tmp_path / "checkpoint" / "beside")
    shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer.json"))

    def load(*_: object) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr("export.decoder_runner.load_decoder", load)
    monkeypatch.setattr("export.decoder_runner.load_decoder_checkpoint", load)
    for name, words in (("checkpoint", "a checkpoint without a tokenizer"), ("model", r"tokenizer\.json: no such file")):
        with pytest.raises(InputError, match=words):
            open_session(tmp_path / name)


def test_folders_that_cannot_chat_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither model\.onnx"):
        open_session(tmp_path)
    with pytest.raises(InputError, match="no such folder; a package, a Hugging Face folder or a checkpoint is needed"):
        open_session(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder; a package, "):
        open_session(tmp_path / "file")
    convert_model(folder, tmp_path / "checkpoint")
    for path in (tmp_path / "checkpoint" / "beside").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="a checkpoint without a tokenizer"):
        open_session(tmp_path / "checkpoint")
    assert load_tokenizer(folder).get_vocab_size() > 0
