"""From a model folder to a checked package, in one call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.storage import atomic_folder, write_json
from data_pipeline.tokens.tokenizer import load_tokenizer
from export.architecture import read_architecture
from export.graph import write_graph
from export.package import copy_tokenizer, describe_package, golden_chats, write_generation_settings
from export.recipe import ExportRecipe
from export.session import Package
from export.verify import check_package
from export.weights import WeightFolder


def silent(line: str) -> None:
    """The progress of a caller that does not want any."""


def export_package(
    recipe: ExportRecipe, model: Path, out: Path, check_texts: list[str] | None = None, progress: Callable[[str], None] = silent
) -> dict[str, Any]:
    """Writes the package of a Hugging Face Phi3 folder at `out`, complete and within budget, or leaves what stood there.

    `check_texts`: held-out texts for the check; None or none at all means samples of the model itself, which `progress` is told.
    Returns the manifest. Errors: InputError for a folder that is no Phi3 model, and for a package over budget.
    """
    model, out = Path(model), Path(out)
    if out.resolve() == model.resolve() or out.resolve() in model.resolve().parents:
        raise InputError(f"{out}: the package would replace the model it is made from; give another folder")
    # A damaged package, too, has one of its own files; a manifest alone stands in other folders as well.
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not any(out.glob("model.onnx*")))):
        raise InputError(f"{out}: stands there and is no package; give a new folder, an empty one or a package to replace")
    config, context = read_architecture(model, recipe.context)
    weights = WeightFolder(model)
    with atomic_folder(out) as folder:
        copy_tokenizer(model, folder)
        tokenizer = load_tokenizer(folder)
        write_generation_settings(folder, config, tokenizer)
        chats = golden_chats(folder, tokenizer)
        progress(f"quantizing {config.num_layers} layers to {recipe.bits} bits, blocks of {recipe.block}")
        streamed = write_graph(folder, config, context, weights, recipe)
        manifest = describe_package(folder, config, context, recipe, streamed=streamed, chats=chats)
        if not check_texts:
            progress("no check text given: the package is checked on samples of the model itself")
        progress("checking the file in onnxruntime against the float32 model")
        check = check_package(Package(folder, manifest), model, check_texts or [], recipe)
        manifest["check"] = check
        write_json(folder / "manifest.json", manifest)
    size = sum(one["bytes"] for one in manifest["files"].values())
    progress(f"{out}: {size / 1e6:.1f} MB, KL {check['kl']:.4f} nats, top-1 agreement {check['top1']:.3f}")
    return manifest
