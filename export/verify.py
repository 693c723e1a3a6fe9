"""Does the file still say the same? The package as onnxruntime runs it against the float32 model in torch, token by token.

KL      mean over tokens of sum_v p(v) (log p(v) - log q(v)), p the float32 model, q the package, in nats
top-1   share of tokens whose most likely successor is the same
bits per byte of both, over the same rows
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from data_pipeline.errors import InputError
from data_pipeline.tokens.tokenizer import end_of_text_id
from export.recipe import ExportRecipe
from export.session import Package
from modeling import load_decoder

ROW = 256  # tokens per row of the check


def check_rows(texts: list[str], tokenizer: Tokenizer, context: int, budget: int) -> list[list[int]]:
    """Rows of at most ROW tokens, each the beginning or a later stretch of one text, until the budget is used up."""
    rows: list[list[int]] = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        step = min(ROW, context)
        for start in range(0, len(ids), step):
            row = ids[start : start + min(step, budget)]
            if len(row) > 1:
                rows.append(row)
                budget -= len(row)
            if budget < 2:
                return rows
    if not rows:
        raise InputError("check text: holds no two tokens in a row; give a longer text to check the package on")
    return rows


def sampled_rows(decoder: Any, first: int, context: int, budget: int, seed: int = 0) -> list[list[int]]:
    """Rows that the float32 model itself draws at temperature 1, each beginning with the token `first`."""
    length = min(128, context)
    count = max(1, min(budget // length, 16))
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.full((count, 1), first)
    with torch.inference_mode():
        for _ in range(length - 1):
            chances = torch.softmax(decoder(ids_BT)[:, -1].float(), -1)
            ids_BT = torch.cat([ids_BT, torch.multinomial(chances, 1, generator=generator)], 1)
    return ids_BT.tolist()


def reference(decoder: Any, rows: list[list[int]]) -> Iterator[np.ndarray]:
    """Logits of the float32 model, float32 (T, V) per row."""
    with torch.inference_mode():
        for row in rows:
            yield decoder(torch.tensor([row]))[0].float().numpy()


def log_softmax(logits_TV: np.ndarray) -> np.ndarray:
    """In float64, along the vocabulary."""
    shifted = logits_TV.astype(np.float64) - logits_TV.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def compare(package: Package, decoder: Any, rows: list[list[int]]) -> dict[str, Any]:
    """kl, its standard error, kl_worst, top1, bits_per_byte and bits_per_byte_float32, tokens, rows."""
    divergences: list[np.ndarray] = []
    agree = 0
    bits, bits_float, num_bytes = 0.0, 0.0, 0
    for row, ours_TV in zip(rows, reference(decoder, rows), strict=True):
        p_TV, q_TV = log_softmax(ours_TV), log_softmax(package.logits(row))
        divergences.append((np.exp(p_TV) * (p_TV - q_TV)).sum(-1))
        agree += int((p_TV.argmax(-1) == q_TV.argmax(-1)).sum())
        following = (np.arange(len(row) - 1), np.array(row[1:]))
        bits_float -= float(p_TV[following].sum()) / np.log(2)
        bits -= float(q_TV[following].sum()) / np.log(2)
        num_bytes += len(package.tokenizer.decode(row[1:], skip_special_tokens=False).encode("utf-8"))
    kl_T = np.concatenate(divergences)
    return {
        "kl": float(kl_T.mean()),
        "kl_stderr": float(kl_T.std() / np.sqrt(len(kl_T))),
        "kl_worst": float(kl_T.max()),
        "top1": agree / len(kl_T),
        "bits_per_byte": float(bits) / num_bytes,
        "bits_per_byte_float32": float(bits_float) / num_bytes,
        "tokens": len(kl_T),
        "rows": len(rows),
    }


def check_package(package: Package, model: Path, texts: list[str], recipe: ExportRecipe) -> dict[str, Any]:
    """The comparison, or an error with both numbers where it is over budget. Without texts the model's own samples are used."""
    decoder = load_decoder(model, torch.float32).eval()
    if texts:
        rows, source = check_rows(texts, package.tokenizer, package.context, recipe.check_tokens), "given text"
    else:
        first = end_of_text_id(package.tokenizer)
        rows, source = sampled_rows(decoder, first, package.context, recipe.check_tokens), "the model's own samples"
    found = {**compare(package, decoder, rows), "text": source, "kl_budget": recipe.kl_budget, "top1_budget": recipe.top1_budget}
    if not (found["kl"] <= recipe.kl_budget and found["top1"] >= recipe.top1_budget):
        raise InputError(
            f"{model}: the {recipe.bits}-bit file is over budget, nothing was written: KL {found['kl']:.4f} nats "
            f"(at most {recipe.kl_budget}), top-1 agreement {found['top1']:.4f} (at least {recipe.top1_budget}), "
            f"over {found['tokens']} tokens of {source}; "
            "a smaller export.block or more export.bits makes it closer"
        )
    return found
