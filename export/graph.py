"""The ONNX graph of a Phi3 decoder, built node by node while the weights stream through.

Inputs and outputs carry the names that onnxruntime-genai uses, so other runtimes find what they expect:

    input_ids (batch, tokens) int64          the tokens to feed
    attention_mask (batch, total) int64      ones over past and new tokens together
    past_key_values.N.key / .value           (batch, kv_heads, past, head_width) float32, past may be 0
    logits (batch, tokens, vocabulary)       float32, for every token fed
    present.N.key / .value                   past and new together; may share the buffer of the past

Layer: x + attention(norm(x)), then x + down(up * silu(gate)), with root-mean-square norms; each norm takes the residual sum with it.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from export.architecture import rotary_tables
from export.data_file import DataFile
from export.quantize import Quantized, quantize
from export.recipe import ExportRecipe
from export.weights import WeightFolder
from modeling.config import DecoderConfig

CONTRIB = "com.microsoft"


class GraphBuilder:
    """Collects nodes and initializers; `node` returns the outputs of what it adds."""

    def __init__(self, data: DataFile, recipe: ExportRecipe) -> None:
        self.data = data
        self.recipe = recipe
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.streamed = 0  # bytes of linear weights, all of which every token reads

    def node(
        self, op: str, inputs: list[ir.Value | None], outputs: list[str], domain: str = "", **attributes: int | float
    ) -> list[ir.Value]:
        """One node; an output with an empty name is left out."""
        values = [ir.Value(name=name or "") for name in outputs]
        attribute_list = ir.convenience.convert_attributes(attributes)
        self.nodes.append(ir.Node(domain, op, inputs, attributes=attribute_list, outputs=values, name=outputs[0]))
        return values

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        value = self.data.add(name, array)
        self.initializers.append(value)
        return value

    def linear(self, name: str, x: ir.Value, weights_NK: np.ndarray) -> ir.Value:
        """x W^T: a MatMulNBits of quantized weights, or a plain MatMul at 32 bits."""
        recipe = self.recipe
        if recipe.bits == 32:
            self.streamed += weights_NK.nbytes
            return self.node("MatMul", [x, self.constant(f"{name}.weight", weights_NK.T)], [f"{name}.out"])[0]
        packed = quantize(weights_NK, bits=recipe.bits, block=recipe.block, symmetric=recipe.symmetric, search=recipe.search)
        self.streamed += packed.nbytes
        return self.node(
            "MatMulNBits",
            [x, *self.parts(name, packed, packed.codes)],
            [f"{name}.out"],
            CONTRIB,
            K=packed.columns,
            N=packed.rows,
            bits=packed.bits,
            block_size=packed.block,
            accuracy_level=recipe.accuracy_level,
        )[0]

    def embedding(self, name: str, ids: ir.Value, weights_VD: np.ndarray) -> ir.Value:
        """Rows of the embedding: a GatherBlockQuantized of quantized weights, or a plain Gather at 32 bits."""
        recipe = self.recipe
        if recipe.bits == 32 or recipe.embedding_bits == 32:
            return self.node("Gather", [self.constant(f"{name}.weight", weights_VD), ids], [f"{name}.out"], axis=0)[0]
        packed = quantize(weights_VD, bits=recipe.embedding_bits, block=recipe.block, symmetric=recipe.symmetric, search=recipe.search)
        codes, *rest = self.parts(name, packed, packed.gather_codes())
        return self.node(
            "GatherBlockQuantized",
            [codes, ids, *rest],
            [f"{name}.out"],
            CONTRIB,
            gather_axis=0,
            quantize_axis=1,
            block_size=packed.block,
            bits=packed.bits,
        )[0]

    def parts(self, name: str, packed: Quantized, codes: np.ndarray) -> list[ir.Value]:
        """Codes, scales and, where they are not all in the middle, zero points."""
        values = [self.constant(f"{name}.codes", codes), self.constant(f"{name}.scales", packed.scales)]
        if packed.zero_points is not None:
            values.append(self.constant(f"{name}.zero_points", packed.zero_points))
        return values


def build_graph(config: DecoderConfig, context: int, weights: WeightFolder, data: DataFile, recipe: ExportRecipe) -> tuple[ir.Model, int]:
    """The whole model, and the weight bytes that one token streams; tensors are read, quantized and written one at a time."""
    a, build = config, GraphBuilder(data, recipe)
    input_ids = value("input_ids", ir.DataType.INT64, ("batch", "tokens"))
    mask = value("attention_mask", ir.DataType.INT64, ("batch", "total"))
    lengths, total = sequence_lengths(build, mask)
    rotary = [build.constant(name, table) for name, table in zip(("rotary.cos", "rotary.sin"), rotary_tables(a, context), strict=True)]

    embedding = weights.tensor("model.embed_tokens.weight", (a.vocab_size, a.hidden_size))
    stream = build.embedding("embedding", input_ids, embedding)
    if not a.tied:
        del embedding
    first_norm = build.constant("layer.0.attention_norm.weight", weights.tensor("model.layers.0.input_layernorm.weight", (a.hidden_size,)))
    epsilon = a.norm_eps
    normed = build.node("SimplifiedLayerNormalization", [stream, first_norm], ["layer.0.attention_norm.out"], epsilon=epsilon, axis=-1)[0]
    past: list[ir.Value] = []
    present: list[ir.Value] = []
    for layer in range(a.num_layers):
        cache = [value(f"past_key_values.{layer}.{part}", ir.DataType.FLOAT, kv_shape(a, "past")) for part in ("key", "value")]
        attended, *now = attention(build, weights, a, layer, normed, cache, lengths, total, rotary)
        past += cache
        present += now
        stream, normed = add_and_norm(
            build, weights, a, f"model.layers.{layer}.post_attention_layernorm", f"layer.{layer}.mlp_norm", stream, attended
        )
        fed = feed_forward(build, weights, a, layer, normed)
        last = layer + 1 == a.num_layers
        source = "model.norm" if last else f"model.layers.{layer + 1}.input_layernorm"
        name = "norm" if last else f"layer.{layer + 1}.attention_norm"
        stream, normed = add_and_norm(build, weights, a, source, name, stream, fed)
    head = embedding if a.tied else weights.tensor("lm_head.weight", (a.vocab_size, a.hidden_size))
    logits = build.linear("head", normed, head)
    logits.name, logits.type, logits.shape = "logits", ir.TensorType(ir.DataType.FLOAT), ir.Shape(("batch", "tokens", a.vocab_size))
    graph = ir.Graph(
        [input_ids, mask, *past],
        [logits, *present],
        nodes=build.nodes,
        initializers=build.initializers,
        opset_imports={"": 21, CONTRIB: 1},
        name="phi3",
    )
    return ir.Model(graph, ir_version=10, producer_name="phial"), build.streamed


def sequence_lengths(build: GraphBuilder, mask: ir.Value) -> tuple[ir.Value, ir.Value]:
    """What GroupQueryAttention wants to know: per row the index of the last key (int32), and the total length (int32 scalar)."""
    one = build.constant("one", np.array(1, np.int64))
    axis = build.constant("last_axis", np.array([1], np.int64))
    counted = build.node("ReduceSum", [mask, axis], ["mask_sum"], keepdims=0)[0]
    last = build.node("Sub", [counted, one], ["last_key"])[0]
    lengths = build.node("Cast", [last], ["seqlens_k"], to=int(ir.DataType.INT32))[0]
    shape = build.node("Shape", [mask], ["mask_shape"])[0]
    size = build.node("Gather", [shape, one], ["total"], axis=0)[0]
    return lengths, build.node("Cast", [size], ["total_sequence_length"], to=int(ir.DataType.INT32))[0]


def attention(
    build: GraphBuilder,
    weights: WeightFolder,
    a: DecoderConfig,
    layer: int,
    normed: ir.Value,
    cache: list[ir.Value],
    lengths: ir.Value,
    total: ir.Value,
    rotary: list[ir.Value],
) -> list[ir.Value]:
    """The attention's output, and the keys and values of past and new tokens."""
    source, name = f"model.layers.{layer}.self_attn", f"layer.{layer}"
    rows = (a.num_heads + 2 * a.num_kv_heads) * a.head_dim
    qkv = build.linear(f"{name}.qkv", normed, weights.tensor(f"{source}.qkv_proj.weight", (rows, a.hidden_size)))
    mixed, key, val = build.node(
        "GroupQueryAttention",
        [qkv, None, None, *cache, lengths, total, *rotary],
        [f"{name}.attention.out", f"present.{layer}.key", f"present.{layer}.value"],
        CONTRIB,
        num_heads=a.num_heads,
        kv_num_heads=a.num_kv_heads,
        scale=float(a.head_dim**-0.5),
        do_rotary=1,
        rotary_interleaved=0,
        local_window_size=a.window_keys or -1,
    )
    for one in (key, val):
        one.type, one.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(kv_shape(a, "total"))
    out = weights.tensor(f"{source}.o_proj.weight", (a.hidden_size, a.num_heads * a.head_dim))
    return [build.linear(f"{name}.out", mixed, out), key, val]


def feed_forward(build: GraphBuilder, weights: WeightFolder, a: DecoderConfig, layer: int, normed: ir.Value) -> ir.Value:
    """down(up * silu(gate)); gate and up come from one product, the gate first."""
    source, name = f"model.layers.{layer}.mlp", f"layer.{layer}"
    both = build.linear(
        f"{name}.gate_up", normed, weights.tensor(f"{source}.gate_up_proj.weight", (2 * a.intermediate_size, a.hidden_size))
    )
    gate, up = build.node("Split", [both], [f"{name}.gate", f"{name}.up"], axis=-1, num_outputs=2)
    sigmoid = build.node("Sigmoid", [gate], [f"{name}.sigmoid"])[0]
    silu = build.node("Mul", [gate, sigmoid], [f"{name}.silu"])[0]
    product = build.node("Mul", [up, silu], [f"{name}.product"])[0]
    return build.linear(f"{name}.down", product, weights.tensor(f"{source}.down_proj.weight", (a.hidden_size, a.intermediate_size)))


def add_and_norm(
    build: GraphBuilder, weights: WeightFolder, a: DecoderConfig, source: str, name: str, stream: ir.Value, added: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The residual sum, and its norm."""
    gain = build.constant(f"{name}.weight", weights.tensor(f"{source}.weight", (a.hidden_size,)))
    outputs = [f"{name}.out", "", "", f"{name}.sum"]
    normed, _, _, total = build.node("SkipSimplifiedLayerNormalization", [stream, added, gain], outputs, CONTRIB, epsilon=a.norm_eps)
    return total, normed


def kv_shape(a: DecoderConfig, length: str) -> tuple[str | int, ...]:
    return ("batch", a.num_kv_heads, length, a.head_dim)


def value(name: str, dtype: ir.DataType, shape: tuple[str | int, ...]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def write_graph(folder: Path, config: DecoderConfig, context: int, weights: WeightFolder, recipe: ExportRecipe) -> int:
    """`model.onnx` and `model.onnx.data` in an existing folder; returns the weight bytes that one token streams."""
    data = DataFile(folder, "model.onnx.data")
    try:
        model, streamed = build_graph(config, context, weights, data, recipe)
    finally:
        data.close()
    (folder / "model.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    return streamed
