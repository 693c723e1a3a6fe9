"""muP: initial deviations, learning rates and decay that hold at every width (Tensor Programs V, arXiv 2203.03466, table 8, Adam).

m is the width over the width of the base model, at which learning rate, deviation and decay are tuned; a decoder knows it as
`logits_divisor`. From the base to the width the deviation of a hidden matrix falls with sqrt(m) and its rate with m; embeddings, biases
and norms keep theirs, and so does the head, whose logits are divided by m. Heads and feed-forward block are taken to widen with the rest.

Published for phi-3-small are m = 8 (so a base width of 512), the embedding multiplier, 1/d in attention, `initializer_range` 0.02, and that
the released code starts the feed-forward output narrower by sqrt(2 * layers). Ours, since neither initial values nor rates of the real run
are known: that 0.02 is the deviation at the base width, which lets one recipe serve every width; that the attention output is narrowed as
well, as the released code's comment says but its names miss; and all rates and decay.
"""

import math
from dataclasses import dataclass

from torch import nn

from modeling.config import DecoderConfig
from modeling.decoder import Decoder


@dataclass(frozen=True)
class ParameterScales:
    """Factors of one parameter: of `initializer_range`, of the learning rate, of the decay, which AdamW multiplies with the rate."""

    deviation: float = 1.0
    rate: float = 1.0
    decay: float = 1.0


def width_multiplier(config: DecoderConfig) -> float:
    """m, the width over the base width; 1 for a decoder without muP."""
    return config.logits_divisor if config.mup else 1.0


def parameter_scales(decoder: Decoder) -> dict[str, ParameterScales]:
    """Every parameter's factors by name; all are 1 for a decoder without muP.

    The decay of a hidden matrix grows with m because its rate falls with m: what a step takes off a weight, rate * decay, stays.
    """
    config = decoder.config
    scales = {name: ParameterScales() for name, _ in decoder.named_parameters()}
    if not config.mup:
        return scales
    multiplier = width_multiplier(config)
    for name, module in decoder.layers.named_modules():
        if isinstance(module, nn.Linear):
            depth = 1 / math.sqrt(2 * config.num_layers) if name.endswith((".attention.out", ".feed_forward.down")) else 1.0
            scales[f"layers.{name}.weight"] = ParameterScales(depth / math.sqrt(multiplier), 1 / multiplier, multiplier)
    return scales
