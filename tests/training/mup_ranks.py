"""Trains a small muP decoder for some steps: `python mup_ranks.py RANKS STAGE OUT` saves weights and losses; one rank is plain torch."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from modeling.config import BlockSparse, DecoderConfig
from modeling.decoder import Decoder
from modeling.initialise import initialise
from training.batches import BatchPlan, MicroBatch
from training.engine import Engine
from training.layout import build_parallel
from training.recipe import LayoutRecipe, PretrainRecipe
from training.replicated import ReplicatedEngine
from training.state import WEIGHT

SMALL = DecoderConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    max_positions=64,
    rope_theta=1e6,
    tied=True,
    norm="layer",
    biased=True,
    feed_forward="geglu",
    grouped_qkv=True,
    mup=True,
    embedding_multiplier=10.0,
    logits_divisor=4.0,
    blocksparse=BlockSparse(block=4, local_blocks=2, vertical_stride=3),
    dummy_ids=(61, 63),
)
RECIPE = PretrainRecipe(learning_rate=1e-2, precision="float32", weight_decay=0.1, rows_per_step=4, context=24)


def batch(step: int, rank: int, ranks: int) -> MicroBatch:
    """The rank's rows of a text that counts up by 1 or 2 at random: something to learn."""
    steps_BT = torch.randint(1, 3, (4, 25), generator=torch.Generator().manual_seed(step))
    ids_BT = (steps_BT.cumsum(-1) % 60).chunk(ranks)[rank]
    positions_BT = torch.arange(24).expand(len(ids_BT), 24)
    return MicroBatch(ids_BT[:, :-1], positions_BT, torch.zeros_like(positions_BT), ids_BT[:, 1:])


def train(engine: Engine, steps: int) -> dict[str, torch.Tensor]:
    """Every weight after `steps` steps, and the losses."""
    rates = [RECIPE.learning_rate * min(1.0, (step + 1) / 3) for step in range(steps)]
    data = engine.mesh.group("data")
    losses = [engine.step([batch(step, data.index, data.size)], rate).loss.detach() for step, rate in enumerate(rates)]
    return {"losses": torch.stack(losses)} | whole_weights(engine)


def whole_weights(engine: Engine) -> dict[str, torch.Tensor]:
    """Every weight by name, put together from what each rank holds."""
    found = {name: torch.zeros(pieces.shape) for name, pieces in engine.pieces.items()}
    for one in engine.fragments():
        if one.kind == WEIGHT and (one.mine or engine.mesh.group("data").size == 1):
            found[one.name].view(-1)[one.begin : one.end] = one.values
    if dist.is_initialized():
        for weight in found.values():
            dist.all_reduce(weight)
    return found


def start(ranks: int = 1) -> Decoder:
    decoder = Decoder(SMALL, parallel=build_parallel(LayoutRecipe(), ranks))
    return initialise(decoder, torch.Generator().manual_seed(0))


def run_rank(rank: int, ranks: int, stage: int, out: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": str(ranks)}  # DeepSpeed asks for them
    from training.zero import ZeroEngine

    dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=ranks)
    layout, device = LayoutRecipe(zero_stage=stage), torch.device("cpu")
    if stage:
        engine: Engine = ZeroEngine(start(ranks), RECIPE, layout, "float32", device, BatchPlan.deal(4, 0, ranks), out)
    else:
        engine = ReplicatedEngine(start(ranks), RECIPE, "float32", device, layout)
    found = train(engine, 6)
    if rank == 0:
        torch.save(found, out / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


def run_plain(steps: int) -> dict[str, torch.Tensor]:
    return train(ReplicatedEngine(start(), RECIPE, "float32", torch.device("cpu")), steps)


if __name__ == "__main__":
    spawn(run_rank, (int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])), nprocs=int(sys.argv[1]))
