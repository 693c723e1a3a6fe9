"""How a decoder's parameters start."""

import torch
from torch import nn

from modeling.decoder import Decoder
from modeling.mup import parameter_scales
from modeling.norm import RMSNorm
from modeling.parallel.pieces import parameter_pieces


def initialise(decoder: Decoder, generator: torch.Generator) -> Decoder:
    """Every matrix from a normal distribution of mean 0 and deviation `initializer_range`, every norm weight 1, every bias 0.

    Under muP the hidden matrices' deviation is scaled as `modeling.mup` says. Returns the decoder.

    Parameters are filled in the order of their names' appearance, in float32 and then rounded, so a seed gives the same numbers at any
    dtype; every rank of a decoder over several draws each parameter whole and keeps its part, so it gives them at any number of ranks.
    The embedding's pad row is zeroed, as transformers does at its start; from there it is learnt like any other row, because the pad id
    of the family is also its end-of-text id (transformers keeps that row from being learnt as an input).
    """
    config = decoder.config
    scales = parameter_scales(decoder)
    pieces = parameter_pieces(decoder)
    with torch.no_grad():
        for name, module in decoder.named_modules():
            if isinstance(module, RMSNorm | nn.LayerNorm):
                module.weight.fill_(1.0)
            elif isinstance(module, nn.Linear | nn.Embedding):
                deviation = config.initializer_range * scales[f"{name}.weight"].deviation
                part = pieces[f"{name}.weight"]
                drawn = torch.empty(part.shape, dtype=torch.float32, device=generator.device)
                drawn.normal_(0.0, deviation, generator=generator)
                module.weight.copy_(part.take(drawn))
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter):
                bias.zero_()
        if config.pad_id is not None and config.pad_id in decoder.embedding.mine:
            decoder.embedding.weight[config.pad_id - decoder.embedding.mine.start] = 0.0
    return decoder
