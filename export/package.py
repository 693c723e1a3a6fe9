"""The package folder: what lies in it, its manifest, and the check that nothing in it has changed.

model.onnx, model.onnx.data        the graph, and the weights beside it
tokenizer.json, tokenizer_config.json, chat_template.jinja
generation_config.json             the ids that end an answer
manifest.json                      sizes and SHA-256 of all of these, architecture, quantization, limits, results of the check
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json, sha256_of, write_json
from data_pipeline.tokens.chat import CHAT_TEMPLATE, encode_chat, render_chat, stop_ids
from export.recipe import ExportRecipe
from modeling.config import DecoderConfig

FORMAT = 1
FILES = (
    "model.onnx",
    "model.onnx.data",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)
# What `limits` of the manifest must hold.
NEEDED_LIMITS = ("context", "kv_shape", "kv_bytes_per_token", "weight_bytes_per_token")
# Conversations whose prompt text and ids the manifest records, so that every runtime can prove that it builds the same prompt.
GOLDEN_CHATS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Hello, who are you?"}],
    [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "2 + 2?"}],
    [
        {"role": "user", "content": "Name a fruit."},
        {"role": "assistant", "content": "Pear"},
        {"role": "user", "content": "Größer?\nCafé 東京"},
    ],
)


def copy_tokenizer(model: Path, folder: Path) -> None:
    """The tokenizer's files from a model folder; a missing chat template becomes phi-3's."""
    if not (model / "tokenizer.json").exists():
        raise InputError(f"{model}: has no tokenizer.json; a package needs the model's tokenizer beside its weights")
    shutil.copyfile(model / "tokenizer.json", folder / "tokenizer.json")
    settings = model / "tokenizer_config.json"
    if settings.exists():
        shutil.copyfile(settings, folder / "tokenizer_config.json")
    else:
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    template = model / "chat_template.jinja"
    inline = read_json(settings).get("chat_template") if settings.exists() else None
    text = template.read_text(encoding="utf-8") if template.exists() else inline or CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def write_generation_settings(folder: Path, config: DecoderConfig, tokenizer: Tokenizer) -> None:
    """generation_config.json: the model's own end ids and the tokenizer's, greedy by default."""
    ending = sorted({*config.eos_ids, *stop_ids(tokenizer)})
    outside = [token for token in ending if token >= config.vocab_size]
    if outside:
        raise InputError(
            f"tokenizer: id {outside[0]} ends an answer, but the model has only {config.vocab_size} entries; they do not match"
        )
    pad = config.pad_id if config.pad_id is not None else stop_ids(tokenizer)[1]
    write_json(folder / "generation_config.json", {"do_sample": False, "eos_token_id": ending, "pad_token_id": pad})


def golden_chats(folder: Path, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The golden conversations with prompt text and ids; refused where the folder's own chat template says otherwise."""
    import transformers

    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    theirs.chat_template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    pairs: list[dict[str, Any]] = []
    for turns in GOLDEN_CHATS:
        rendered, prompt = theirs.apply_chat_template(turns, tokenize=False, add_generation_prompt=True), render_chat(turns)
        ids = encode_chat(tokenizer, turns)
        if rendered != prompt or tokenizer.encode(prompt, add_special_tokens=False).ids != ids:
            raise InputError(f"{folder.name}: the tokenizer's chat template is not phi-3's; it makes {rendered!r:.120} of {turns!r:.120}")
        pairs.append({"turns": turns, "prompt": prompt, "ids": ids})
    return pairs


def describe_package(
    folder: Path,
    config: DecoderConfig,
    context: int,
    recipe: ExportRecipe,
    *,
    streamed: int,
    chats: list[dict[str, Any]],
) -> dict[str, Any]:
    """The manifest but for the results of the check. `streamed`: weight bytes that one decoded token reads."""
    kv_bytes = 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4
    return {
        "format": FORMAT,
        "files": {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in FILES},
        "architecture": {"model_type": "phi3", **listed(dataclasses.asdict(config)), "head_dim": config.head_dim},
        "quantization": {
            "method": "round-to-nearest" + (", searched scales" if recipe.search and recipe.bits != 32 else ""),
            "bits": recipe.bits,
            "embedding_bits": 32 if recipe.bits == 32 else recipe.embedding_bits,
            "block": recipe.block,
            "symmetric": recipe.symmetric,
            "accuracy_level": recipe.accuracy_level,
            "activations": "float32, rounded to int8 inside products" if recipe.accuracy_level == 4 and recipe.bits != 32 else "float32",
        },
        "limits": {
            "context": context,
            "kv_dtype": "float32",
            "kv_shape": ["batch", config.num_kv_heads, "tokens", config.head_dim],
            "kv_bytes_per_token": kv_bytes,
            "weight_bytes_per_token": streamed,
            "kv_bytes_at_context": kv_bytes * context,
        },
        "chat": chats,
        "check": {},
    }


def listed(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: listed(one) for key, one in value.items()}
    return [listed(one) for one in value] if isinstance(value, list | tuple) else value


def open_package(folder: str | Path) -> dict[str, Any]:
    """The manifest, after every file's size and SHA-256 were found to be as it says."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; a package written by `phial export` is needed")
    if not (root / "manifest.json").exists():
        raise InputError(f"{root}: not a package (no manifest.json); a folder written by `phial export` is needed")
    manifest = read_json(root / "manifest.json")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise InputError(f"{root / 'manifest.json'}: not a package's manifest")
    if manifest["format"] != FORMAT:
        raise InputError(f"{root}: package format {manifest['format']}; this program reads format {FORMAT}")
    check_manifest(root / "manifest.json", manifest)
    entries = manifest["files"]
    for name in FILES:
        path = root / name
        if not path.exists():
            raise InputError(f"{path}: missing; the package is not complete")
        if path.stat().st_size != entries[name]["bytes"]:
            raise InputError(f"{path}: has {path.stat().st_size} bytes, the manifest says {entries[name]['bytes']}; the file is damaged")
        found = sha256_of(path)
        if found != entries[name]["sha256"]:
            raise InputError(f"{path}: wrong checksum {found[:12]}, the manifest says {entries[name]['sha256'][:12]}; the file is damaged")
    return manifest


def check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Refuses a manifest that lacks what a runtime reads from it."""
    entries = manifest.get("files")
    for name in FILES:
        if not isinstance(entries, dict) or name not in entries:
            raise InputError(f"{path}: does not list {name}")
        if not isinstance(entries[name], dict) or not {"bytes", "sha256"} <= entries[name].keys():
            raise InputError(f"{path}: bytes and sha256 are needed of {name}, got {entries[name]!r:.80}")
    for table, names in {"limits": NEEDED_LIMITS, "architecture": ("vocab_size",)}.items():
        found = manifest.get(table)
        absent = [name for name in names if not isinstance(found, dict) or name not in found]
        if absent:
            raise InputError(f"{path}: {table} lacks {absent[0]}; export the model again")
    shape, context = manifest["limits"]["kv_shape"], manifest["limits"]["context"]
    if not isinstance(shape, list) or len(shape) != 4 or not all(isinstance(shape[axis], int) for axis in (1, 3)):
        raise InputError(f'{path}: kv_shape must be ["batch", heads, "tokens", width], got {shape!r:.80}')
    if not isinstance(context, int) or context < 1:
        raise InputError(f"{path}: context must be a number of 1 or more, got {context!r:.80}")
