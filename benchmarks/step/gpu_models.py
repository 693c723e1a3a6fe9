"""What the GPU benchmark trains, and what a GPU's tensor cores can do at most."""

from modeling.config import DecoderConfig
from modeling.loss import CHUNK_TOKENS_ELSEWHERE
from modeling.presets import preset

# Dense models of the usual shape, beside the family's members.
ONE_B = DecoderConfig(
    vocab_size=32_064,
    hidden_size=2048,
    intermediate_size=5632,
    num_layers=18,
    num_heads=16,
    num_kv_heads=16,
    max_positions=4096,
)
SEVEN_B = DecoderConfig(
    vocab_size=32_064,
    hidden_size=4096,
    intermediate_size=11_008,
    num_layers=32,
    num_heads=32,
    num_kv_heads=32,
    max_positions=4096,
)
MEMBERS = ("phi3-mini-4k", "phi3-small-8k", "phi4-mini", "tiny")
MODELS = ("1b", "7b", *MEMBERS)
CONTEXTS = {"phi3-small-8k": 8192, "tiny": 64}
DEFAULT_CONTEXT = 4096

# Dense bfloat16 without sparsity, FLOP/s, from NVIDIA's data sheets; the first name found in the device's name counts.
PEAKS = (
    ("H200", 989.5e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989.5e12),
    ("GH200", 989.5e12),
    ("B200", 2250e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("RTX 4090", 165.2e12),
)
GOAL = 0.50
PUBLISHED = "published: 42-48 % for dense 3-8B on 8 or more H100, some counting full attention, worth about 4 points here"


def model_config(name: str) -> DecoderConfig:
    return {"1b": ONE_B, "7b": SEVEN_B}.get(name) or preset(name)


def peak_flops(device_name: str) -> float | None:
    """The device's bfloat16 peak; None where the table does not have it, so that no MFU is made up."""
    return next((peak for name, peak in PEAKS if name in device_name), None)


def start_rows(config: DecoderConfig, context: int, free_bytes: int, parameters: int, recompute: str, all_logits: bool) -> int:
    """Rows at a time to try first: what fits by an estimate that leans high, since the trial then lowers it.

    `free_bytes` is what weights, masters and moments leave; gradients take 2 bytes a parameter of it. A layer keeps per token, in bfloat16,
    about 7 widths, 4 hidden widths and the heads' q, k, v and output; under "selective" the products only, under "full" its input. Logits
    take 16 bytes an entry: bfloat16, float32, its log-softmax, and the gradients of two of them. `all_logits` has them for every token at
    once; else there is one chunk of them, and the head's gradient summed in float32.
    """
    heads = (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    kept = {
        "none": 7 * config.hidden_size + 4 * config.intermediate_size + heads,
        "selective": 3 * config.hidden_size + 2 * config.intermediate_size + heads,
        "full": config.hidden_size,
    }[recompute]
    row_bytes = 2 * config.num_layers * context * kept
    logit_bytes = 16 * config.vocab_size
    fixed = 2 * parameters
    if all_logits:
        row_bytes += context * logit_bytes
    else:
        fixed += CHUNK_TOKENS_ELSEWHERE * logit_bytes + 4 * config.vocab_size * config.hidden_size
    return max(1, min(64, int((free_bytes - fixed) // row_bytes)))
