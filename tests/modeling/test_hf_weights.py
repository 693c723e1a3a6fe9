"""Model folders: round trips through us and through transformers, shards, conversion, and one line for every folder that cannot be used."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_decoders import MEMBERS, random_decoder, random_ids
from transformers import Phi3ForCausalLM

from modeling import load_decoder, save_decoder
from modeling.checkpoint import read_checkpoint, write_checkpoint
from modeling.convert import convert_model
from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.hf_config import config_from_hf, config_to_hf
from modeling.hf_weights import INDEX, SINGLE
from modeling.model_checkpoint import load_decoder_checkpoint

MINI_AS_RELEASED = {  # the settings of the first 4k release's spelling, sizes of a toy
    "model_type": "phi3",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "original_max_position_embeddings": 16,
    "rope_scaling": {"type": "su", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "eos_token_id": 5,
    "attention_bias": False,
    "hidden_act": "silu",
}


def equal(one: Decoder, other: Decoder) -> bool:
    """Bit-equal parameters of equal configurations."""
    mine, theirs = one.state_dict(), other.state_dict()
    return one.config == other.config and list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_decoder(random_decoder(MEMBERS["window-gqa"]), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_saved_is_loaded(member: str, dtype: torch.dtype, tmp_path: Path) -> None:
    decoder = random_decoder(MEMBERS[member], dtype=dtype)
    save_decoder(decoder, tmp_path / "model")
    assert equal(load_decoder(tmp_path / "model"), decoder)
    assert next(load_decoder(tmp_path / "model", dtype=torch.float32).parameters()).dtype == torch.float32


@pytest.mark.parametrize("member", MEMBERS)
def test_transformers_trains_the_folder_and_it_loads_back(member: str, tmp_path: Path) -> None:
    save_decoder(random_decoder(MEMBERS[member]), tmp_path / "ours")
    theirs = Phi3ForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    ids_BT = random_ids(2, 20)
    before = theirs.model.embed_tokens.weight.detach().clone()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    theirs(ids_BT, labels=ids_BT).loss.backward()
    optimizer.step()
    assert not torch.equal(theirs.model.embed_tokens.weight, before)
    theirs.save_pretrained(tmp_path / "theirs")
    back = load_decoder(tmp_path / "theirs")
    assert back.config == MEMBERS[member]
    with torch.no_grad():
        assert torch.equal(back(ids_BT), theirs.eval()(ids_BT).logits)


def test_both_rope_spellings_are_written_and_read() -> None:
    config = MEMBERS["longrope"]
    raw = config_to_hf(config, "float32")
    assert config_from_hf({name: value for name, value in raw.items() if name != "rope_parameters"}, "old") == config
    old = {"rope_scaling", "rope_theta", "partial_rotary_factor"}
    assert config_from_hf({name: value for name, value in raw.items() if name not in old}, "new") == config
    partial = MEMBERS["partial-rotary"]
    raw = config_to_hf(partial, "float32")
    assert config_from_hf({name: value for name, value in raw.items() if name != "rope_parameters"}, "old") == partial


def test_an_early_release_is_read() -> None:
    config = config_from_hf(MINI_AS_RELEASED, "config.json")
    assert (config.num_kv_heads, config.window_keys, config.original_positions, config.eos_ids) == (4, 2047, 16, (5,))
    assert config.rope_scaling is not None
    assert abs(config.rope_attention_factor - (1 + torch.tensor(4.0).log() / torch.tensor(16.0).log()).sqrt().item()) < 1e-6


def test_end_of_text_ids_are_in_both_files(folder: Path) -> None:
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == [2, 3]
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 3]


def test_shards_with_an_index(tmp_path: Path) -> None:
    decoder = random_decoder(MEMBERS["gqa"])
    save_decoder(decoder, tmp_path / "model", shard_bytes=20_000)
    shards = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert not (tmp_path / "model" / SINGLE).exists()
    assert equal(load_decoder(tmp_path / "model"), decoder)
    theirs = Phi3ForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(theirs(random_ids(1, 9)).logits, decoder(random_ids(1, 9)))
    save_decoder(decoder, tmp_path / "model")  # and back to one file: nothing of the shards stays
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "generation_config.json", SINGLE]
    (tmp_path / "again").mkdir()
    save_decoder(decoder, tmp_path / "again", shard_bytes=20_000)
    (tmp_path / "again" / shards[0]).unlink()
    with pytest.raises(ModelError, match=rf"names {shards[0]}, which is not in the folder"):
        load_decoder(tmp_path / "again")


def test_a_tokenizer_beside_the_weights_is_kept(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    save_decoder(random_decoder(MEMBERS["tied"]), folder)
    assert (folder / "tokenizer.json").read_text() == "{}"
    save_decoder(random_decoder(MEMBERS["tied"]), tmp_path / "other", tokenizer=folder)
    assert (tmp_path / "other" / "tokenizer.json").exists()
    assert load_decoder(tmp_path / "other").config == MEMBERS["tied"]
    for wrong in (tmp_path / "nowhere", folder / "tokenizer.json"):
        with pytest.raises(ModelError, match="no such folder; the files of a tokenizer are to be copied from it"):
            save_decoder(random_decoder(MEMBERS["tied"]), tmp_path / "third", tokenizer=wrong)
    assert not (tmp_path / "third").exists()


def test_an_adapter_beside_the_weights_is_kept(folder: Path) -> None:
    """Only files with the names of weights make room for the new ones."""
    decoder = load_decoder(folder)
    save_decoder(decoder, folder, shard_bytes=20_000)
    (folder / "adapter_model.safetensors").write_text("mine")
    save_decoder(decoder, folder)
    assert files_in(folder) == {"adapter_model.safetensors", "config.json", "generation_config.json", SINGLE}


def test_a_failed_save_leaves_what_stood_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_decoder(folder)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modeling.hf_weights.write_json", full)
    with pytest.raises(OSError, match="No space left"):
        save_decoder(random_decoder(MEMBERS["tied"]), folder)
    assert equal(load_decoder(folder), before)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def edit_config(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        raw = json.loads((folder / "config.json").read_text())
        raw |= changes
        (folder / "config.json").write_text(json.dumps({name: value for name, value in raw.items() if value != "remove"}))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / SINGLE)
        change(tensors)
        save_file(tensors, folder / SINGLE, metadata={"format": "pt"})

    return edit


QKV = "model.layers.1.self_attn.qkv_proj.weight"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json: no such file"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), r"config\.json: not valid JSON"),
    "config is a folder": (
        lambda f: ((f / "config.json").unlink(), (f / "config.json").mkdir()),
        r"config\.json: a folder stands there; a JSON file is needed",
    ),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "a JSON object is needed, got list"),
    "another model": (edit_config(model_type="llama"), "model_type must be 'phi3' or 'phi3small', got 'llama'"),
    "a missing size": (edit_config(hidden_size="remove"), "no setting 'hidden_size'"),
    "a size as text": (edit_config(hidden_size="32"), "hidden_size must be a whole number of at least 1, got '32'"),
    "heads that do not divide": (edit_config(num_attention_heads=3), "hidden_size=32 is not a multiple of num_heads=3"),
    "another head width": (edit_config(head_dim=16), "head_dim must be hidden_size / num_attention_heads = 8, got 16"),
    "another activation": (edit_config(hidden_act="gelu"), "hidden_act must be 'silu', got 'gelu'"),
    "dropout": (edit_config(resid_pdrop=0.1), "resid_pdrop must be 0, got 0.1"),
    "another rope": (edit_config(rope_parameters={"rope_type": "linear"}), "must be 'default' or 'longrope', got 'linear'"),
    "longrope without factors": (edit_config(rope_parameters={"rope_type": "longrope"}), "longrope needs short_factor"),
    "no weights": (lambda f: (f / SINGLE).unlink(), "no weights; model.safetensors or"),
    "an index that is none": (
        lambda f: ((f / SINGLE).unlink(), (f / INDEX).write_text("{}")),
        "a weight_map of tensor names to file names is needed",
    ),
    "corrupt weights": (lambda f: (f / SINGLE).write_bytes(b"x" * 100), "not a whole safetensors file"),
    "cut weights": (lambda f: (f / SINGLE).write_bytes((f / SINGLE).read_bytes()[:-10]), "not a whole safetensors file"),
    "a missing tensor": (edit_weights(lambda t: t.pop(QKV)), rf"the weights lack {QKV}$"),
    "an unknown tensor": (edit_weights(lambda t: t.update(extra=torch.zeros(1))), "extra is no tensor of a 2-layer phi3 decoder"),
    "a wrong shape": (edit_weights(lambda t: t.update({QKV: torch.zeros(4, 4)})), rf"{QKV} must have the shape \(64, 32\).*got \(4, 4\)"),
    "mixed dtypes": (edit_weights(lambda t: t.update({QKV: t[QKV].double()})), "got float32, float64; give a dtype"),
    "integer weights": (edit_weights(lambda t: t.update({QKV: t[QKV].to(torch.int8)})), "must be of .*float64, got float32, int8$"),
    "weights are a folder": (
        lambda f: ((f / SINGLE).unlink(), (f / SINGLE).mkdir()),
        "a file of weights is needed, this is something else",
    ),
    "weights are a pipe": (lambda f: ((f / SINGLE).unlink(), os.mkfifo(f / SINGLE)), "a file of weights is needed, this is something else"),
    "a tensor in two shards": (
        lambda f: (
            save_file({QKV: torch.zeros(64, 32)}, f / "b.safetensors"),
            (f / SINGLE).rename(f / "a.safetensors"),
            (f / INDEX).write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})),
        ),
        rf"b\.safetensors: {QKV} is in another file of the folder too",
    ),
    "end of text in the other file": (
        lambda f: (f / "generation_config.json").write_text('{"eos_token_id": [2, 128]}'),
        r"model/generation_config\.json: eos_ids must be a token id from 0 to vocab_size-1=127, got 128",
    ),
    "a size past every memory": (edit_config(vocab_size=10**19), "vocab_size must be below 2147483648, got 1000"),
    "a rope number past every float": (
        edit_config(rope_parameters={"rope_theta": 10**400}),
        "rope_theta must be a number above 0, got 1000",
    ),
    "a factor past every float": (
        edit_config(
            original_max_position_embeddings=32,
            rope_parameters={"rope_type": "longrope", "factor": 10**400, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
        ),
        r"config\.json: a setting has the wrong type \(.*too large",
    ),
    "tied as text": (edit_config(tie_word_embeddings="false"), "tie_word_embeddings must be true or false, got 'false'"),
    "longrope from 1 on": (
        edit_config(
            original_max_position_embeddings=1,
            rope_parameters={"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
        ),
        "original_max_positions must be at least 2 .*, got 1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_cannot_be_used_gets_one_line(folder: Path, fault: str) -> None:
    spoil, words = FAULTS[fault]
    spoil(folder)
    with pytest.raises(ModelError, match=words) as caught:
        load_decoder(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert str(caught.value).count(".json: ") <= 1  # the file at fault, once


def test_weights_that_may_not_be_read_get_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors says that there is no such file."""

    def closed(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / SINGLE))

    monkeypatch.setattr("modeling.hf_weights.open", closed, raising=False)
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read: Permission denied"):
        load_decoder(folder)


def test_weights_may_be_read_by_whoever_may_read_the_configuration(folder: Path, tmp_path: Path) -> None:
    save_decoder(load_decoder(folder), tmp_path / "shards", shard_bytes=20_000)
    for root in (folder, tmp_path / "shards"):
        assert len({path.stat().st_mode for path in root.iterdir()}) == 1


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (70_000.0, "float16", r"layers\.1\.attention\.qkv\.weight holds numbers that are infinite in float16, and is not rounded"),
        (float("nan"), "bfloat16", r"layers\.1\.attention\.qkv\.weight holds numbers that are infinite or none, and is not rounded"),
        (-float("inf"), "float16", r"layers\.1\.attention\.qkv\.weight holds numbers that are infinite or none, and is not rounded"),
    ],
)
def test_rounding_makes_no_infinities(folder: Path, tmp_path: Path, value: float, dtype: str, words: str) -> None:
    """Every way that rounds: both conversions, both loaders. Without a dtype the weights stay what they are."""
    convert_model(folder, tmp_path / "whole", dtype=dtype)
    edit_weights(lambda t: t[QKV].__setitem__((3, 4), value))(folder)
    convert_model(folder, tmp_path / "checkpoint")
    for source in (folder, tmp_path / "checkpoint"):
        with pytest.raises(ModelError, match=words):
            convert_model(source, tmp_path / "rounded", dtype=dtype)
        assert not (tmp_path / "rounded").exists()
    for load, source in ((load_decoder, folder), (load_decoder_checkpoint, tmp_path / "checkpoint")):
        with pytest.raises(ModelError, match=words):
            load(source, dtype=dtype)
        assert torch.equal(load(source).layers[1].attention.qkv.weight[3, 4].isfinite(), torch.tensor(abs(value) < 1e30))


def test_dtypes_by_name(folder: Path) -> None:
    assert next(load_decoder(folder, dtype="bfloat16").parameters()).dtype == torch.bfloat16
    with pytest.raises(ModelError, match="no dtype 'float8' for weights; there is float32, bfloat16, float16"):
        load_decoder(folder, dtype="float8")


def test_the_single_file_is_read_where_an_index_was_left_behind(tmp_path: Path) -> None:
    """As transformers does."""
    older, newer = random_decoder(MEMBERS["gqa"], seed=1), random_decoder(MEMBERS["gqa"], seed=2)
    save_decoder(older, tmp_path / "model", shard_bytes=20_000)
    save_decoder(newer, tmp_path / "newer")
    (tmp_path / "newer" / SINGLE).rename(tmp_path / "model" / SINGLE)
    assert equal(load_decoder(tmp_path / "model"), newer)
    theirs = Phi3ForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert torch.equal(theirs.lm_head.weight, newer.head_weight)


def test_weights_of_other_formats_and_hidden_files_stay_behind(folder: Path, tmp_path: Path) -> None:
    """A copy has the tokenizer and the licence; a folder that is saved over keeps all that the decoder does not replace."""
    for name in ("pytorch_model-00001-of-00002.bin", "model.gguf", "consolidated.00.pth", "pytorch_model.bin.index.json", ".gitattributes"):
        (folder / name).write_text("x")
    for name in (".git/config", "onnx/model.onnx", "onnx/README.md", "original/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_text("x")
    convert_model(folder, tmp_path / "checkpoint")
    kept = {"LICENSE", "tokenizer.json", "onnx/README.md"}
    assert files_in(tmp_path / "checkpoint" / "beside") == kept
    before = files_in(folder)
    save_decoder(load_decoder(folder), tmp_path / "copy", tokenizer=folder)
    assert files_in(tmp_path / "copy") == kept | {"config.json", "generation_config.json", SINGLE}
    save_decoder(load_decoder(folder), folder)
    assert files_in(folder) == before


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_mixed_dtypes_are_refused_before_anything_is_written_or_rounded_to_one(folder: Path, tmp_path: Path) -> None:
    """Matrices in bfloat16 beside norms in float32, as some trainers leave them."""
    edit_weights(lambda t: t.update({name: one.bfloat16() for name, one in t.items() if one.ndim == 2}))(folder)
    with pytest.raises(ModelError, match=r"got bfloat16, float32; give a dtype, as `phial convert SRC DST --dtype bfloat16` does"):
        convert_model(folder, tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()
    with pytest.raises(ModelError, match="no dtype 'int8' for weights; there is float32, bfloat16, float16"):
        convert_model(folder, tmp_path / "checkpoint", dtype="int8")
    convert_model(folder, tmp_path / "checkpoint", dtype="bfloat16")
    assert equal(load_decoder_checkpoint(tmp_path / "checkpoint"), load_decoder(folder, dtype=torch.bfloat16))
    tensors, metadata = read_checkpoint(tmp_path / "checkpoint")
    mixed = {name: one.float() if one.ndim == 1 else one for name, one in tensors.items()}
    write_checkpoint(tmp_path / "mixed", mixed, metadata)
    for refused in (lambda: load_decoder_checkpoint(tmp_path / "mixed"), lambda: convert_model(tmp_path / "mixed", tmp_path / "back")):
        with pytest.raises(ModelError, match="got bfloat16, float32; give a dtype"):
            refused()
    assert not (tmp_path / "back").exists()
    convert_model(tmp_path / "mixed", tmp_path / "back", dtype="float16")
    assert next(load_decoder(tmp_path / "back").parameters()).dtype == torch.float16
    write_checkpoint(tmp_path / "whole numbers", {name: one.to(torch.int8) for name, one in tensors.items()}, metadata)
    with pytest.raises(ModelError, match="the weights must be of bfloat16, float16, float32, float64, got int8"):
        load_decoder_checkpoint(tmp_path / "whole numbers", dtype=torch.float32)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        load_decoder(tmp_path / "nowhere")


@pytest.mark.parametrize("member", ["window-gqa", "tied", "longrope"])
def test_conversion_and_back_is_bit_equal(member: str, tmp_path: Path) -> None:
    decoder = random_decoder(MEMBERS[member], dtype=torch.bfloat16)
    save_decoder(decoder, tmp_path / "model", shard_bytes=10_000)
    (tmp_path / "model" / "tokenizer.json").write_text('{"a": 1}')
    kind, config = convert_model(tmp_path / "model", tmp_path / "checkpoint", shard_bytes=10_000)
    assert (kind, config) == ("checkpoint", MEMBERS[member])
    assert equal(load_decoder_checkpoint(tmp_path / "checkpoint"), decoder)
    assert len(list((tmp_path / "checkpoint").glob("part-*"))) > 1
    kind, _ = convert_model(tmp_path / "checkpoint", tmp_path / "back")
    assert kind == "Hugging Face folder"
    assert equal(load_decoder(tmp_path / "back"), decoder)
    assert (tmp_path / "back" / "tokenizer.json").read_text() == '{"a": 1}'


def test_conversion_refuses_what_does_not_fit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no such folder; a Hugging Face folder \(phi3 or phi3small\) or a checkpoint"):
        convert_model(tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(ModelError, match="the folder is not empty"):
        convert_model(folder, folder)
    with pytest.raises(ModelError, match="lies inside"):
        convert_model(folder, folder / "inside")
    assert not (folder / "inside").exists()
    (tmp_path / "notes.txt").write_text("mine")
    for through in ("notes.txt/out", "notes.txt/a/b"):
        for source in (folder, tmp_path / "whole"):
            if not source.exists():
                convert_model(folder, source)
            with pytest.raises(ModelError, match="a file stands there or above it; a folder is needed"):
                convert_model(source, tmp_path / through)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"neither config\.json"):
        convert_model(tmp_path / "empty", tmp_path / "new")
    write_checkpoint(tmp_path / "other", {"x": torch.zeros(3)}, {})
    with pytest.raises(ModelError, match="this checkpoint holds no decoder"):
        convert_model(tmp_path / "other", tmp_path / "new")
    convert_model(folder, tmp_path / "checkpoint")
    tensors, metadata = read_checkpoint(tmp_path / "checkpoint")
    deeper = dataclasses.asdict(dataclasses.replace(MEMBERS["window-gqa"], num_layers=3))
    write_checkpoint(tmp_path / "short", tensors, metadata | {"model": deeper})
    with pytest.raises(ModelError, match=r"no tensor 'weight/layers\.2\."):
        convert_model(tmp_path / "short", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".*"))


def test_the_verb(folder: Path, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]

    def phial(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, root / "phial.py", "convert", *map(str, arguments)], capture_output=True, text=True, cwd=root, check=False
        )

    done = phial(folder, tmp_path / "checkpoint", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kind"] == "checkpoint"
    with_none = phial(tmp_path / "checkpoint", tmp_path / "back")
    assert with_none.returncode == 0, with_none.stderr
    assert f"{tmp_path}/back: without a tokenizer.json" in with_none.stdout
    refused = phial(folder, tmp_path / "checkpoint")
    assert refused.returncode == 2
    assert refused.stderr.strip() == f"phial: {tmp_path}/checkpoint: the folder is not empty; an empty or new one is needed"
