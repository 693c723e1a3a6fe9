"""phi-3-small against an implementation written from its specification; and the released checkpoint's names and shapes."""

# B batch, T tokens, D width, V vocabulary.

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import phi3_small_reference as reference
import pytest
import torch
from phi3_small_reference import Sizes
from torch import Tensor, nn
from torch.nn import functional

from modeling.config import BlockSparse, DecoderConfig
from modeling.decoder import Decoder
from modeling.feed_forward import ClampedGeglu
from modeling.parallel.stream import ONE_RANK
from modeling.presets import PHI3_SMALL_8K

# Blocks of 4, two of them local, every third vertical: at 37 tokens a query of the last block sees 2 local and up to 3 vertical ones of 10.
SIZES = Sizes(
    hidden_size=32,
    ff_intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=61,
    blocksparse_block_size=4,
    blocksparse_num_local_blocks=2,
    blocksparse_vert_stride=3,
    dummy_token_indices=(7, 58, 60),
)
LENGTHS = (37, 3, 24)

NAMES = {
    "attention_norm": "input_layernorm",
    "attention.qkv": "self_attn.query_key_value",
    "attention.out": "self_attn.dense",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate_up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}


def config_for(sizes: Sizes, max_positions: int = 64) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.ff_intermediate_size,
        num_layers=sizes.num_hidden_layers,
        num_heads=sizes.num_attention_heads,
        num_kv_heads=sizes.num_key_value_heads,
        max_positions=max_positions,
        rope_theta=sizes.rope_embedding_base,
        norm_eps=sizes.layer_norm_epsilon,
        tied=True,
        norm="layer",
        biased=True,
        feed_forward="geglu",
        geglu_limit=sizes.gegelu_limit,
        grouped_qkv=True,
        mup=True,
        embedding_multiplier=sizes.mup_embedding_multiplier,
        logits_divisor=sizes.mup_width_multiplier,
        blocksparse=BlockSparse(
            block=sizes.blocksparse_block_size,
            local_blocks=sizes.blocksparse_num_local_blocks,
            vertical_stride=sizes.blocksparse_vert_stride,
            dense_every=sizes.dense_attention_every_n_layers,
        ),
        dummy_ids=sizes.dummy_token_indices,
        embedding_dropout=0.1,
        feed_forward_dropout=0.1,
    )


def released_name(name: str) -> str:
    """The released checkpoint's key of one of our parameters."""
    if name == "embedding.weight":
        return "model.embed_tokens.weight"
    if name.startswith("norm."):
        return f"model.final_layernorm.{name.removeprefix('norm.')}"
    layer, inner = name.removeprefix("layers.").split(".", 1)
    part, kind = inner.rsplit(".", 1)
    return f"model.layers.{layer}.{NAMES[part]}.{kind}"


def random_weights(seed: int, sizes: Sizes = SIZES) -> reference.Weights:
    """Seeded weights of the released names: attention far from uniform, and pre-activations beyond the clamp."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in reference.shapes(sizes).items():
        deviation = 0.3
        if name.endswith("query_key_value.weight"):
            deviation = 0.4
        elif "up_proj" in name:
            deviation = 2.0
        drawn = deviation * torch.randn(shape, generator=generator)
        weights[name] = 1 + drawn if name.endswith("norm.weight") else drawn
    return weights


def decoder_with(weights: reference.Weights, sizes: Sizes = SIZES, attention: str = "sdpa") -> Decoder:
    decoder = Decoder(config_for(sizes), attention=attention)
    decoder.load_state_dict({name: weights[released_name(name)] for name, _ in decoder.named_parameters()})
    return decoder.eval()


def ids_of(tokens: int, seed: int = 0, batch: int = 2) -> Tensor:
    return torch.randint(0, SIZES.vocab_size, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def seeds_of(logits_BTV: Tensor) -> Tensor:
    """What is multiplied with finite logits to make a scalar that every logit has a part in."""
    return torch.randn(logits_BTV.shape, generator=torch.Generator().manual_seed(99))


def outcome(logits_BTV: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The logits, -inf as 0, and the gradient of each parameter by released name."""
    assert torch.equal(logits_BTV[..., list(SIZES.dummy_token_indices)].isneginf().all(), torch.tensor(True))
    finite_BTV = logits_BTV.masked_fill(logits_BTV.isneginf(), 0)
    (finite_BTV.double() * seeds_of(finite_BTV)).sum().backward()
    found = {"logits": finite_BTV.detach()}
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        found[name] = parameter.grad
    return found


def ours(weights: reference.Weights, ids_BT: Tensor, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    decoder = decoder_with(weights, attention=attention).to(dtype)
    return outcome(decoder(ids_BT), {released_name(name): one for name, one in decoder.named_parameters()})


def theirs(weights: reference.Weights, ids_BT: Tensor, sizes: Sizes = SIZES, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    leaves = {name: one.to(dtype).clone().requires_grad_() for name, one in weights.items()}
    return outcome(reference.logits(leaves, ids_BT, sizes), leaves)


def worst(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest relative difference in norm over logits and gradients."""
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).norm() / other[name].double().norm()) for name in one)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_logits_and_gradients_equal_the_reference(attention: str, tokens: int, seed: int) -> None:
    """float32 against the reference in float64, each tensor in norm; the reference's own float32 is as far away (2e-6 to 4e-6)."""
    weights, ids_BT = random_weights(seed), ids_of(tokens, seed)
    assert worst(ours(weights, ids_BT, attention), theirs(weights, ids_BT)) < 1e-5


def test_the_clamp_and_the_vertical_blocks_act_in_these_tests() -> None:
    """What the comparison above would not see, were it not there: keys seen only through vertical blocks, and both clamps."""
    tokens, size = 37, SIZES.blocksparse_block_size
    for head in range(SIZES.num_attention_heads):
        seen_TT = reference.seen_by(0, head, tokens, SIZES)
        far_TT = torch.tensor([[query // size - key // size >= 2 for key in range(tokens)] for query in range(tokens)])
        assert (seen_TT & far_TT).any()
        assert (~seen_TT & far_TT).any()
    pre: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pre.append(output)

    decoder = decoder_with(random_weights(0))
    for module in decoder.modules():
        if isinstance(module, ClampedGeglu):
            module.gate_up.register_forward_hook(keep)
    decoder(ids_of(tokens))
    both = torch.stack(pre)
    for part in (both[..., 0::2] > 20, both[..., 1::2] > 20, both[..., 1::2] < -20):
        assert 0.01 < part.float().mean() < 0.5


def swapped_gegelu(both_TF: Tensor, limit: float) -> Tensor:
    return TRUE_GEGELU(both_TF.unflatten(-1, (-1, 2)).flip(-1).flatten(-2), limit)


def ungrouped(fused_TF: Tensor, sizes: Sizes) -> list[tuple[list[Tensor], Tensor, Tensor]]:
    """[Q | K | V] as in the other members."""
    heads, each = list(fused_TF.split(sizes.head_dim, dim=-1)), sizes.num_attention_heads // sizes.num_key_value_heads
    keys = heads[sizes.num_attention_heads :]
    return [
        (heads[group * each : (group + 1) * each], keys[group], keys[group + sizes.num_key_value_heads])
        for group in range(sizes.num_key_value_heads)
    ]


TRUE_GEGELU, TRUE_VERTICAL, TRUE_DENSE = reference.gegelu, reference.is_vertical, reference.is_dense
FUNCTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "head offset shifted": ("is_vertical", lambda block, head, sizes: TRUE_VERTICAL(block + 1, head, sizes)),
    "one offset for all heads": ("is_vertical", lambda block, head, sizes: TRUE_VERTICAL(block, 0, sizes)),
    "dense and sparse swapped": ("is_dense", lambda number, sizes: not TRUE_DENSE(number, sizes)),
    "gate and linear swapped": ("gegelu", swapped_gegelu),
    "no 1 added to the linear part": ("gegelu", lambda both, limit: TRUE_GEGELU(both - torch.tensor([0.0, 1.0]).repeat(24), limit)),
    "query, key, value not grouped": ("split_groups", ungrouped),
}
CHANGES: dict[str, dict[str, Any]] = {
    "one local block fewer": {"blocksparse_num_local_blocks": 1},
    "blocks twice as large": {"blocksparse_block_size": 8},
    "stride of vertical blocks": {"blocksparse_vert_stride": 4},
    "no clamp": {"gegelu_limit": math.inf},
    "no embedding multiplier": {"mup_embedding_multiplier": 1.0},
    "attention scaled by the root": {"mup_use_scaling": False},
    "logits not divided": {"mup_width_multiplier": 1.0},
    "other rotation base": {"rope_embedding_base": 1e4},
}


@pytest.mark.parametrize("fault", [*FUNCTIONS, *CHANGES])
def test_every_fault_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, ids_BT = random_weights(0), ids_of(37, batch=1)
    if fault in FUNCTIONS:
        monkeypatch.setattr(reference, *FUNCTIONS[fault])
    faulty = theirs(weights, ids_BT, dataclasses.replace(SIZES, **CHANGES.get(fault, {})))
    right = ours(weights, ids_BT)
    error = (right["logits"] - faulty["logits"]).norm() / faulty["logits"].norm()
    assert error > 1e-2
    assert worst(right, faulty) > 1e-2


def test_packed_documents_equal_documents_alone() -> None:
    """Blocks and positions are counted from each document's start, also where it is no multiple of a block."""
    weights = random_weights(3)
    lengths = (13, 30, 5)
    ids_1T = ids_of(sum(lengths), batch=1)
    documents_1T = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    doubled = {name: one.double() for name, one in weights.items()}
    alone = [reference.logits(doubled, part, SIZES) for part in ids_1T.split(list(lengths), dim=1)]
    wanted_1TV = torch.cat(alone, dim=1)
    kept_V = [entry for entry in range(SIZES.vocab_size) if entry not in SIZES.dummy_token_indices]

    def error(packed_1TV: Tensor) -> float:
        return float((packed_1TV - wanted_1TV)[..., kept_V].norm() / wanted_1TV[..., kept_V].norm())

    decoder = decoder_with(weights)
    with torch.no_grad():
        assert error(decoder(ids_1T, documents_BT=documents_1T)) < 1e-5
        assert error(decoder(ids_1T)) > 1e-2  # not told of documents


def test_bfloat16_is_as_near_as_bfloat16_allows() -> None:
    """Against the exact result for the rounded weights: within 5 % in norm, and no worse than twice the reference's own bfloat16."""
    weights = {name: one.bfloat16().float() for name, one in random_weights(4).items()}
    ids_BT = ids_of(37)
    exact = theirs(weights, ids_BT)["logits"]
    mine = ours(weights, ids_BT, dtype=torch.bfloat16)["logits"]
    plain = theirs(weights, ids_BT, dtype=torch.bfloat16)["logits"]
    error, allowed = (float((one.double() - exact).norm() / exact.norm()) for one in (mine, plain))
    assert error < 0.05
    assert error < 2 * allowed


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_the_fused_loss_is_the_cross_entropy_of_the_references_logits(z_loss: float) -> None:
    """Dummy entries take no part in the softmax, whose gradient stays finite."""
    weights, ids_BT = random_weights(5), ids_of(25)
    targets_BT = ids_of(25, seed=8)
    targets_BT[torch.isin(targets_BT, torch.tensor(SIZES.dummy_token_indices))] = -100
    leaves = {name: one.double().requires_grad_() for name, one in weights.items()}
    logits_BTV = reference.logits(leaves, ids_BT, SIZES)
    wanted = functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
    wanted = wanted + z_loss * logits_BTV.logsumexp(-1)[targets_BT != -100].square().mean()
    wanted.backward()
    decoder = decoder_with(weights)
    loss = decoder.loss(ids_BT, targets_BT, z_loss=z_loss, chunk_tokens=16)
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    for name, parameter in decoder.named_parameters():
        grad, right = parameter.grad, leaves[released_name(name)].grad
        assert grad is not None
        assert right is not None
        assert grad.isfinite().all()
        assert (grad.double() - right).norm() < 1e-5 * right.norm()
    # The check can fail: a softmax over the dummy entries too is another loss.
    with_dummies = functional.cross_entropy(
        reference.logits(leaves, ids_BT, dataclasses.replace(SIZES, dummy_token_indices=())).flatten(0, 1), targets_BT.flatten()
    )
    assert abs(with_dummies.item() - wanted.item()) > 1e-3


def test_infinities_pass_the_clamp() -> None:
    values = torch.tensor([-torch.inf, -300.0, -25.0, -1.0, 0.0, 0.5, 25.0, 300.0, torch.inf])
    both_F = torch.cartesian_prod(values, values).flatten()
    block = ClampedGeglu(dataclasses.replace(config_for(SIZES), intermediate_size=len(both_F) // 2, feed_forward_dropout=0.0)).eval()
    kept: list[Tensor] = []
    block.down.register_forward_hook(lambda _module, inputs, _output: kept.append(inputs[0]))
    with torch.no_grad():
        block.gate_up.weight.zero_()
        block.gate_up.bias.copy_(both_F)
        block(torch.zeros(1, 1, SIZES.hidden_size), ONE_RANK.stream(1))
    wanted = reference.gegelu(both_F[None], 20.0)
    torch.testing.assert_close(kept[0][0], wanted, rtol=1e-6, atol=1e-30, equal_nan=True)
    assert kept[0].isinf().any()
    assert kept[0][kept[0].isfinite()].abs().max() < 20 * 21 + 6001  # a gate of -300 is not clamped, its sigmoid is 0


def test_dropout_acts_in_training_only() -> None:
    decoder, ids_BT = decoder_with(random_weights(6)), ids_of(9)
    with torch.no_grad():
        assert torch.equal(decoder(ids_BT), decoder(ids_BT))
        decoder.train()
        assert not torch.equal(decoder(ids_BT), decoder(ids_BT))


def test_released_names_shapes_and_count() -> None:
    """Names, shapes and the count of the released checkpoint; its four shards hold 14.78 GB, two bytes for each of these."""
    released = Sizes()
    with torch.device("meta"):
        decoder = Decoder(config_for(released, max_positions=8192))
    found = {released_name(name): tuple(one.shape) for name, one in decoder.named_parameters()}
    assert found == reference.shapes(released)
    assert sum(math.prod(shape) for shape in found.values()) == 7_392_272_384
    ids = {name: getattr(PHI3_SMALL_8K, name) for name in ("bos_id", "eos_ids", "pad_id")}
    assert dataclasses.replace(decoder.config, **ids) == PHI3_SMALL_8K
    at = "model.layers.31."
    assert {name.removeprefix(at): shape for name, shape in found.items() if name.startswith(at)} == {
        "input_layernorm.weight": (4096,),
        "input_layernorm.bias": (4096,),
        "self_attn.query_key_value.weight": (6144, 4096),
        "self_attn.query_key_value.bias": (6144,),
        "self_attn.dense.weight": (4096, 4096),
        "self_attn.dense.bias": (4096,),
        "post_attention_layernorm.weight": (4096,),
        "post_attention_layernorm.bias": (4096,),
        "mlp.up_proj.weight": (28672, 4096),
        "mlp.up_proj.bias": (28672,),
        "mlp.down_proj.weight": (4096, 14336),
        "mlp.down_proj.bias": (4096,),
    }
    assert found["model.embed_tokens.weight"] == (100352, 4096)
    assert found["model.final_layernorm.bias"] == (4096,)
    assert "lm_head.weight" not in found
