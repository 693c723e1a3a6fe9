"""A plan against the closed forms it must have, against decoders that are really built, and against bytes that are really sent."""

# B rows, T tokens.

import json
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from data_pipeline.errors import InputError
from modeling.config import DecoderConfig
from modeling.decoder import Decoder
from modeling.parallel.ledger import recording
from modeling.parallel.mesh import Mesh
from modeling.parallel.stream import Parallel
from modeling.presets import preset
from modeling.recompute import RECOMPUTE
from phial import run
from tests.compiler_warnings import COMPILER_WARNINGS
from tests.training import engine_ranks
from training.batches import BatchPlan
from training.plan.commands import read_mfu
from training.plan.devices import find_device
from training.plan.layouts import Candidate, Refused, all_layouts, best_layouts, judge
from training.plan.memory import kept_token_bytes, layer_token_bytes, memory_of
from training.plan.run import shape_of
from training.plan.shape import Shape, local_parameters, uneven_heads
from training.plan.traffic import context_layer_numbers, data_traffic, tensor_layer_numbers
from training.recipe import LayoutRecipe, PretrainRecipe

GIB = 2**30
MODELS = {"mini": "phi3-mini-4k", "small": "phi3-small-8k", "medium": "phi3-medium-4k"}
TOKENS = {"mini": 3.3e12, "small": 4.8e12, "medium": 4.8e12}


def shape(model: str, **settings) -> Shape:
    config = preset(MODELS.get(model, model))
    context = {"small": 8192}.get(model, 4096)
    return Shape(**{"config": config, "context": context, "rows_per_step": 2**22 // context, "ranks": 8, **settings})


# GiB at 16 bytes a parameter (bfloat16 weight and gradient, float32 master and two moments), ZeRO 0 to 3, by tensor and data ranks.
STATES = {
    ("mini", 1, 8): (56.9, 19.6, 13.3, 7.1),
    ("mini", 1, 64): (56.9, 14.9, 7.9, 0.9),
    ("small", 1, 8): (110.2, 37.9, 25.8, 13.8),
    ("small", 2, 64): (55.1, 14.4, 7.6, 0.9),
    ("medium", 1, 8): (208.0, 71.5, 48.8, 26.0),
    ("medium", 2, 8): (104.0, 35.8, 24.4, 13.0),
    ("medium", 8, 64): (26.0, 6.8, 3.6, 0.4),
}


@pytest.mark.parametrize(("model", "tensor", "data"), STATES)
def test_states_of_published_sizes(model: str, tensor: int, data: int) -> None:
    """Weights, gradients and optimizer by stage; ours keep gradients in float32, two bytes a parameter more."""
    for stage, expected in enumerate(STATES[model, tensor, data]):
        found = memory_of(shape(model, zero_stage=stage, tensor=tensor, ranks=tensor * data))
        counts = local_parameters(preset(MODELS[model]), tensor)
        held = max(counts)
        expected *= held / (sum(counts) / tensor)  # uneven heads: the most loaded rank has more than the mean
        wider = 2 * held / (data if stage >= 2 else 1)
        assert (found.weights + found.gradients + found.optimizer - wider) / GIB == pytest.approx(expected, abs=0.06 + 0.002 * expected)


@pytest.mark.parametrize(("model", "plain", "full"), [("mini", 12.0, 0.75), ("small", 17.0, 1.0), ("medium", 26.6, 1.56)])
def test_activations_of_4096_tokens(model: str, plain: float, full: float) -> None:
    """The plain closed form (mini: 2 (8 D + 3 F) a layer), and what ours keeps beside it: norms' inputs in float32, rotated queries."""
    config = preset(MODELS[model])
    assert config.num_layers * 4096 * kept_token_bytes(config, "full") / GIB == pytest.approx(full, rel=0.01)
    ours = config.num_layers * 4096 * layer_token_bytes(config) / GIB
    assert plain < ours < 2.2 * plain


def saved_bytes(config: DecoderConfig, tokens: int, autocast: bool, dtype: torch.dtype, compiled: str | None = None) -> int:
    """Bytes that autograd keeps for the way back, weights left out, each storage once. `compiled` is the recomputation then."""
    decoder = Decoder(config, recompute=compiled or "none").to(dtype)
    if compiled is not None:
        torch.compiler.reset()
        decoder.compile_layers(backend="aot_eager_decomp_partition")  # what inductor would keep, without its kernels
    weights = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        random_state = tensor.dtype == torch.uint8
        if tensor.untyped_storage().data_ptr() not in weights and tensor.numel() >= tokens and not random_state:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    documents_BT = torch.zeros(1, tokens, dtype=torch.long)
    documents_BT[:, tokens // 2 :] = 1
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden, _ = decoder._run(torch.randint(0, config.vocab_size, (1, tokens)), None, documents_BT)
    copies = sum(one.numel() * 2 for one in weights_of(decoder)) if autocast and compiled in (None, "none") else 0
    found = sum(one.untyped_storage().nbytes() for one in kept.values())
    del hidden
    return found - copies


def weights_of(decoder: Decoder) -> list[torch.nn.Parameter]:
    return [one for name, one in decoder.named_parameters() if one.ndim == 2 and "layers" in name]


DTYPES = {"float32": torch.float32, "bfloat16-master": torch.bfloat16, "bfloat16": torch.float32}


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("sizes", [(96, 272, 4, 2), (64, 96, 4, 4), (160, 320, 5, 1)])
@pytest.mark.parametrize("family", ["tiny", "tiny-small"])
def test_what_a_layer_keeps_is_what_autograd_keeps(precision: str, sizes: tuple[int, int, int, int], family: str) -> None:
    """Two layers less one, byte for byte."""
    width, hidden, heads, keys = sizes
    dense = {"window_keys": None, "blocksparse": None, "embedding_dropout": 0.0}
    config = replace(
        preset(family), hidden_size=width, intermediate_size=hidden, num_heads=heads, num_kv_heads=keys, max_positions=128, **dense
    )
    tokens = 64
    two, one = (saved_bytes(replace(config, num_layers=layers), tokens, precision == "bfloat16", DTYPES[precision]) for layers in (2, 1))
    assert (two - one) / tokens == layer_token_bytes(config, precision=precision)


@pytest.mark.filterwarnings(*COMPILER_WARNINGS)
@pytest.mark.parametrize("recompute", RECOMPUTE)
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("family", ["tiny", "tiny-small"])
def test_what_a_compiled_layer_keeps(precision: str, family: str, recompute: str) -> None:
    """Of another width than its weights' copies, so that these are told apart; two layers less one, byte for byte."""
    dense = {"window_keys": None, "blocksparse": None, "embedding_dropout": 0.0}
    sizes = {"hidden_size": 96, "intermediate_size": 272, "num_heads": 4, "num_kv_heads": 2, "max_positions": 128}
    config = replace(preset(family), **sizes, **dense)
    tokens, autocast = 64, precision == "bfloat16"
    two, one = (saved_bytes(replace(config, num_layers=n), tokens, autocast, DTYPES[precision], recompute) for n in (2, 1))
    assert (two - one) / tokens == kept_token_bytes(config, recompute, precision=precision, compiled=True)
    assert two - one < tokens * kept_token_bytes(config, "none", precision=precision)


def held_by_ranks(name: str) -> int:
    parallel = Parallel(Mesh({"tensor": dist.get_world_size()}))
    return sum(one.numel() for one in Decoder(preset(name), parallel=parallel).parameters())


@pytest.mark.parametrize("tensor", [2, 3, 4])
@pytest.mark.parametrize("name", ["tiny", "tiny-small"])
def test_parameters_of_a_rank_are_the_decoders(ranks, name: str, tensor: int) -> None:
    if name == "tiny-small":
        with pytest.raises(InputError, match="dropout over tensor ranks"):
            shape(name, context=16, rows_per_step=8, ranks=tensor, tensor=tensor).check()
        return
    assert ranks(tensor, held_by_ranks, name) == local_parameters(preset(name), tensor)


def sent(layout: dict) -> dict[str, int]:
    """Bytes by operator that this rank sends in a step, by the ledger."""
    engine, batches = engine_ranks.build(layout, dist.get_world_size())
    with recording() as ledger:
        engine_ranks.train(engine, batches, range(1))
    return {name: cost.bytes for name, cost in ledger.by_operator().items()}


def test_gradients_sent_without_zero(ranks) -> None:
    for found in ranks(2, sent, {"zero_stage": 0}):
        laid = replace(planned(2), zero_stage=0)
        assert found["GradientSum"] == sum(one.bytes for one in data_traffic(laid))


def planned(ranks: int, **settings) -> Shape:
    recipe = engine_ranks.RECIPE
    fields = {"config": engine_ranks.CONFIG, "context": recipe.context, "rows_per_step": recipe.rows_per_step, "precision": "float32"}
    return Shape(**{**fields, "ranks": ranks, "micro_rows": recipe.micro_rows, **settings})


def layers_sent(layout: dict) -> int:
    """What one layer sends in a step: three layers less two."""
    found = []
    for layers in (3, 2):
        kept = engine_ranks.CONFIG
        engine_ranks.CONFIG = replace(kept, num_layers=layers)
        try:
            found.append(sum(bytes_ for name, bytes_ in sent(layout).items() if name != "GradientSum"))
        finally:
            engine_ranks.CONFIG = kept
    return found[0] - found[1]


@pytest.mark.parametrize("sequence", [False, True])
def test_layers_over_tensor_ranks(ranks, sequence: bool) -> None:
    laid = planned(2, tensor=2, sequence=sequence)
    found = ranks(2, layers_sent, {"zero_stage": 0, "tensor": 2, "sequence": sequence})
    there, back = tensor_layer_numbers(laid)
    assert found[0] == 4 * (there + back) * laid.accumulation


@pytest.mark.parametrize("way", ["ulysses", "ring", "halo"])
def test_layers_over_context_ranks(ranks, way: str) -> None:
    laid = planned(2, context_ranks=2, context_way=way)
    found = ranks(2, layers_sent, {"zero_stage": 0, "context": 2, "context_way": way})
    for me, bytes_ in enumerate(found):
        there, back = context_layer_numbers(laid, me)
        assert bytes_ == 4 * (there + back) * laid.accumulation


def deepspeed_log(layout: dict, precision: str) -> dict[str, int]:
    """DeepSpeed's own log of a step: bytes by collective, as it counts them."""
    from deepspeed.comm import comm

    from training import zero

    kept = zero.zero_config
    zero.zero_config = lambda *args: kept(*args) | {"comms_logger": {"enabled": True, "verbose": False, "prof_all": True, "debug": False}}
    try:
        engine, batches = engine_ranks.build(layout, dist.get_world_size(), precision)
        engine_ranks.train(engine, batches, range(1))  # the first step may do more
        comm.comms_logger.comms_dict.clear()
        engine_ranks.train(engine, batches, range(1, 2))
        return {name: sum(int(size) * calls[0] for size, calls in sizes.items()) for name, sizes in comm.comms_logger.comms_dict.items()}
    finally:
        zero.zero_config = kept
        comm.comms_logger.comms_dict.clear()
        comm.comms_logger.enabled = False


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16-master"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_sends_what_its_log_says(ranks, stage: int, precision: str) -> None:
    """The log counts a sum by its tensor and a gather by the part given: a ring sends 2 (k - 1) / k and (k - 1) times as much. Beside the
    state there are norms and flags, a few numbers."""
    (found, _) = ranks(2, deepspeed_log, {"zero_stage": stage}, precision)
    laid = planned(2, zero_stage=stage, precision=precision)
    told = {one.name: one.bytes for one in data_traffic(laid)}
    few = 64
    if stage < 3:
        assert 0 <= found["all_reduce"] - told["all-reduce of gradients"] < few
    else:
        assert found["reduce_scatter_tensor"] // 2 == pytest.approx(told["reduce-scatter of gradients"], rel=0.01)
    gathered = found["all_gather_into_tensor"]
    if stage < 3:
        assert gathered == pytest.approx(told["all-gather of weights"], rel=0.01)
    else:
        assert gathered <= told["all-gather of weights"]  # small parameters are kept between passes


def test_medium_on_four_tensor_ranks_says_what_it_costs() -> None:
    medium = preset("phi3-medium-4k")
    assert uneven_heads(medium, 2) is None
    text = uneven_heads(medium, 4)
    assert text is not None
    assert "2 key heads computed on two ranks" in text
    assert "10 query heads on the most loaded rank (mean 10)" in text
    assert uneven_heads(preset("phi3-mini-4k"), 8) is None


def test_layouts_that_cannot_be_say_why() -> None:
    h200 = find_device("h200")
    assert isinstance(judge(shape("mini", zero_stage=0), h200, 8), Candidate)
    lacking = judge(shape("medium", zero_stage=0), h200, 8)
    assert isinstance(lacking, Refused)
    assert "GiB where h200 has" in lacking.reason
    across = judge(shape("medium", tensor=16, ranks=64), h200, 8)
    assert isinstance(across, Refused)
    assert "would cross nodes" in across.reason
    odd = judge(shape("mini", ranks=7), h200, 7)
    assert isinstance(odd, Refused)
    assert "cannot be dealt to 7 data ranks evenly" in odd.reason
    good, _ = best_layouts(shape("medium"), h200, 8)
    assert good
    assert all(one.memory.total <= 0.92 * h200.memory_bytes for one in good)
    speeds = [one.tokens_per_s for one in good]
    assert speeds == sorted(speeds, reverse=True)


def test_more_of_anything_is_never_less() -> None:
    """The model is sane: recomputation and ZeRO take no more memory, more tensor ranks no more weights."""
    base = memory_of(shape("mini", zero_stage=1))
    assert memory_of(shape("mini", zero_stage=1, recompute="selective")).activations < base.activations
    assert memory_of(shape("mini", zero_stage=1, recompute="full")).activations < base.activations
    totals = [memory_of(shape("medium", zero_stage=stage)) for stage in (0, 1, 2, 3)]
    states = [one.weights + one.gradients + one.optimizer for one in totals]
    assert states == sorted(states, reverse=True)


def test_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "phi3-mini", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"]["parameters"] == 3_821_079_552
    assert found["model"]["flops_per_token_causal"] / 1e9 == pytest.approx(24.15, abs=0.01)
    assert found["run"]["tokens"] == pytest.approx(3.3e12, rel=1e-5)
    assert found["speeds"] == "modelled"
    assert "refused" not in found["asked"]
    assert run(["plan", "phi3-medium", "--nodes", "8"]) == 0
    assert "uneven: 10 key heads on 4 tensor ranks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "h300"], "--gpu h300: no such accelerator; there is h200"),
        (["--mfu", "fast"], "--mfu fast: two numbers LOW,HIGH"),
        (["--mfu", "0.5,0.4"], "0 < LOW <= HIGH <= 1"),
        (["--price", "-1"], "--price -1: a number above 0"),
        (["--set", "layout.tensor=3"], "tensor = 3 and context = 1 need a multiple of 3 ranks, got 8"),
        (["--set", "pretrain.phases=[]"], "phases is empty"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert run(["plan", "phi3-mini", *arguments]) == 2
    errors = capsys.readouterr().err.strip()
    assert message in errors
    assert "\n" not in errors


def test_an_interval_may_be_in_per_cent() -> None:
    assert read_mfu("35,45") == (0.35, 0.45)
    assert read_mfu("0.35, 0.45") == (0.35, 0.45)


@pytest.mark.parametrize("recipe", ["phi3-mini", "phi3-small", "phi3-medium", "phi3-mini-long", "tiny"])
def test_every_recipe_can_be_planned(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    assert run(["plan", recipe, "--nodes", "8", "--json"] if recipe != "tiny" else ["plan", recipe, "--gpus-per-node", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "refused" not in found["asked"], found["asked"]
    if recipe in ("phi3-mini", "phi3-small", "phi3-medium"):
        assert found["run"]["tokens"] == pytest.approx(TOKENS[recipe.removeprefix("phi3-")], rel=1e-5)


def test_offload_is_counted_only_where_it_happens() -> None:
    """One rank and stage 0 have no ZeRO: everything stays on the device."""
    for settings in ({"ranks": 1, "zero_stage": 1}, {"ranks": 8, "zero_stage": 0}):
        assert memory_of(shape("mini", **{**settings, "offload": True})) == memory_of(shape("mini", **settings))
    divided = memory_of(shape("mini", ranks=8, zero_stage=1, offload=True))
    assert divided.host == divided.optimizer > 0
    assert {one.zero_stage for one in all_layouts(shape("mini", offload=True), 8)} == {1, 2, 3}
    assert {one.zero_stage for one in all_layouts(shape("mini"), 8)} == {0, 1, 2, 3}


def test_a_plan_takes_as_many_rows_at_a_time_as_the_run() -> None:
    """12 rows of a rank and micro_rows = 5: five do not divide them, four do."""
    recipe = PretrainRecipe(rows_per_step=24, micro_rows=5)  # type: ignore[call-arg]
    planned = shape_of(preset("tiny"), recipe, LayoutRecipe(), 2, "float32")
    assert planned.micro_rows == BatchPlan.deal(24, 5, 2).micro == 4
