"""Our training step on two ranks against what others would use: plain DDP, FSDP2, bare DeepSpeed, and Hugging Face's Trainer on DeepSpeed.

    python -m benchmarks.engine [--rounds 5] [--context 512] [--quick] [--out FILE]

One decoder's shape (18.9M parameters by default), the same rows and AdamW, float32, one thread a rank, gloo. Every side is a pair of
processes of its own and takes its turn in every round, the others waiting; a ratio is of two sides' times of the same round, and the median
over rounds is reported. The first losses of all sides must agree. "packed" rows hold documents that must not see one another: ours and the
others' with a dense mask, which is what transformers takes. "deterministic" holds our fixed order of sums against our own step. Writes
benchmarks/results/engine.json.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline.provenance import provenance
from data_pipeline.storage import write_json

RESULTS = Path(__file__).parent / "results"
SIZES: dict[str, Any] = {
    "vocab_size": 8192,
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "num_kv_heads": 6,
    "max_positions": 4096,
    "tied": True,
}
QUICK = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_layers": 2, "num_heads": 2, "num_kv_heads": 2}
RATE = 1e-3
RANKS = 2
# What takes turns with one another: a stage of ours with others' same stage, and DDP and FSDP2 beside each.
GROUPS = (
    ("phial-0", "ddp", "fsdp2"),
    ("phial-1", "deepspeed-1", "trainer-1", "ddp", "fsdp2"),
    ("phial-2", "deepspeed-2", "trainer-2", "ddp", "fsdp2"),
    ("phial-3", "deepspeed-3", "trainer-3", "ddp", "fsdp2"),
)
FIXED = ("fixed-0", "phial-0", "fixed-1", "phial-1")  # what one order of all sums costs
SIDES = tuple(dict.fromkeys(side for group in (*GROUPS, FIXED) for side in group))


CASES = ("unpacked", "packed", "deterministic")


def make_rows(step: int, rank: int, rows: int, context: int, vocabulary: int, packed: bool) -> Any:
    """This rank's rows of a step; packed ones hold four documents each."""
    import numpy as np
    import torch

    from training.batches import MicroBatch

    chance = np.random.default_rng([step, rank])
    ids = torch.from_numpy(chance.integers(1, vocabulary, (rows, context + 1)))
    documents = torch.zeros(rows, context, dtype=torch.long)
    if packed:
        for row in range(rows):
            ends = np.sort(chance.choice(np.arange(8, context - 8), 3, replace=False))
            documents[row] = torch.from_numpy(np.searchsorted(ends, np.arange(context), side="right"))
    starts = torch.stack([(documents == documents[:, [n]]).int().argmax(1) for n in range(context)], 1)
    positions = torch.arange(context)[None] - starts
    targets = ids[:, 1:].clone()
    targets[:, :-1][documents[:, 1:] != documents[:, :-1]] = -100
    return MicroBatch(ids[:, :-1], positions, documents, targets)


def our_side(stage: int, config: Any, batches: Any, deterministic: bool) -> Callable[[Any], float]:
    """Phial's engine at a ZeRO stage."""
    import torch

    from modeling.decoder import Decoder
    from modeling.initialise import initialise
    from training.layout import build_parallel
    from training.recipe import LayoutRecipe, PretrainRecipe
    from training.replicated import ReplicatedEngine
    from training.zero import ZeroEngine

    recipe = PretrainRecipe.model_validate(
        {"learning_rate": RATE, "clip": 1.0, "precision": "float32", "weight_decay": 0.1, "deterministic": deterministic}
        | {"rows_per_step": batches.rows_per_step, "micro_rows": batches.micro}
    )
    layout = LayoutRecipe(zero_stage=stage)  # type: ignore[arg-type]
    decoder = initialise(Decoder(config, parallel=build_parallel(layout, RANKS)), torch.Generator().manual_seed(0))
    device = torch.device("cpu")
    if stage == 0 or deterministic:
        engine: Any = ReplicatedEngine(decoder, recipe, "float32", device, layout)
    else:
        engine = ZeroEngine(decoder, recipe, layout, "float32", device, batches)
    return lambda micro: float(engine.step([micro], RATE).loss)


def their_model(config: Any) -> Any:
    """transformers' Phi3 with our first weights."""
    import torch
    from transformers import Phi3ForCausalLM

    from modeling import save_decoder
    from modeling.decoder import Decoder
    from modeling.initialise import initialise

    with tempfile.TemporaryDirectory() as folder:
        save_decoder(initialise(Decoder(config), torch.Generator().manual_seed(0)), Path(folder) / "start")
        return Phi3ForCausalLM.from_pretrained(Path(folder) / "start", dtype=torch.float32, attn_implementation="sdpa").train()


def their_inputs(micro: Any) -> dict[str, Any]:
    """What transformers takes: a dense mask where rows hold several documents."""
    import torch

    ids_BT, documents_BT = micro.ids_BT, micro.documents_BT
    inputs: dict[str, Any] = {"input_ids": ids_BT, "use_cache": False}
    if int(documents_BT.max()) > 0:
        context = ids_BT.shape[1]
        seen = (documents_BT[:, :, None] == documents_BT[:, None, :]) & torch.ones(context, context, dtype=torch.bool).tril()
        inputs |= {"attention_mask": seen[:, None], "position_ids": micro.positions_BT}
    return inputs


def their_loss(model: Any, micro: Any) -> Any:
    from torch.nn import functional

    logits = model(**their_inputs(micro)).logits
    return functional.cross_entropy(logits.flatten(0, 1), micro.targets_BT.flatten())


def groups_of(model: Any) -> list[dict[str, Any]]:
    """The same weights decay as in ours."""
    decayed = [one for name, one in model.named_parameters() if one.ndim > 1 and "embed" not in name]
    others = [one for name, one in model.named_parameters() if one.ndim < 2 or "embed" in name]
    return [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]


def torch_side(kind: str, config: Any) -> Callable[[Any], float]:
    """DDP or FSDP2 with torch's fused AdamW."""
    import torch

    model = their_model(config)
    if kind == "ddp":
        wrapped = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    else:
        from torch.distributed.fsdp import fully_shard

        for layer in model.model.layers:
            fully_shard(layer)
        wrapped = fully_shard(model)
    optimizer = torch.optim.AdamW(groups_of(wrapped), lr=RATE, betas=(0.9, 0.95), fused=kind == "ddp")

    def step(micro: Any) -> float:
        loss = their_loss(wrapped, micro)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(wrapped.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def deepspeed_config(stage: int, rows: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": rows,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
    }


def deepspeed_side(stage: int, config: Any, rows: int) -> Callable[[Any], float]:
    """deepspeed.initialize as its documentation has it, with torch's AdamW."""
    import torch

    from training.zero import load_deepspeed

    deepspeed = load_deepspeed()
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    model = their_model(config)
    optimizer = torch.optim.AdamW(groups_of(model), lr=RATE, betas=(0.9, 0.95), fused=True)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=deepspeed_config(stage, rows))

    def step(micro: Any) -> float:
        loss = their_loss(engine, micro)
        engine.backward(loss)
        engine.step()
        return float(loss.detach())

    return step


def trainer_side(stage: int, config: Any, rows: int, folder: Path) -> Callable[[Any], float]:
    """Hugging Face's Trainer on DeepSpeed: its own step, `training_step` and the engine's update, called batch by batch."""
    import json

    import torch
    from transformers import Trainer, TrainingArguments

    from training.zero import load_deepspeed

    load_deepspeed()
    path = folder / f"zero-{stage}.json"
    path.write_text(json.dumps(deepspeed_config(stage, rows)))
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=rows,
        max_steps=10_000,
        deepspeed=str(path),
        use_cpu=True,
        report_to=[],
        max_grad_norm=1.0,
        lr_scheduler_type="constant",
        learning_rate=RATE,
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        remove_unused_columns=False,
    )
    pipe: dict[str, Any] = {}

    class Fed(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            while True:  # it is read ahead of the step: the rows themselves come when the loss is asked for
                yield {"input_ids": torch.zeros(rows, dtype=torch.long)}

    class Ours(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            loss = their_loss(model, pipe["next"]())
            pipe["loss"] = loss.detach().clone()
            return loss

    model = their_model(config)
    optimizer = torch.optim.AdamW(groups_of(model), lr=RATE, betas=(0.9, 0.95), fused=True)
    return Loop(Ours, model, arguments, optimizer, pipe, Fed).step


class Loop:
    """A Trainer whose `train` runs in a thread and is fed one batch at a time, so that its whole loop is what is timed."""

    def __init__(self, kind: Any, model: Any, arguments: Any, optimizer: Any, pipe: dict[str, Any], data: Any) -> None:
        import queue
        import threading

        from transformers import TrainerCallback

        self.batches: Any = queue.Queue()
        self.losses: Any = queue.Queue()
        self.pipe = pipe

        pipe["next"] = self.batches.get
        loop = self

        class Told(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
                loop.losses.put(None)

        arguments.per_device_train_batch_size = 1
        self.trainer = kind(model=model, args=arguments, train_dataset=data(), optimizers=(optimizer, None), callbacks=[Told()])
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            self.trainer.train()
        except BaseException:
            self.losses.put(traceback.format_exc())

    def step(self, micro: Any) -> float:
        self.batches.put(micro)
        told = self.losses.get()
        if told is not None:
            raise RuntimeError(told)
        return float(self.pipe["loss"])


def serve(side: str, rank: int, folder: Path, sizes: dict[str, Any], rows: int, context: int, pipe: Any) -> None:
    """One rank of one side: builds it, then a step for every number that comes."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "DS_ACCELERATOR": "cpu",
    }
    os.environ |= {"MASTER_PORT": str(29_600 + SIDES.index(side)), "GLOO_SOCKET_IFNAME": "lo"}
    warnings.simplefilter("ignore")
    try:
        import torch
        import torch.distributed as dist

        from modeling.config import DecoderConfig
        from training.batches import BatchPlan

        torch.set_num_threads(1)
        torch.manual_seed(0)
        config = DecoderConfig(**sizes)
        name, _, stage = side.partition("-")
        if name != "trainer":  # which makes its own, and takes another engine where one is there already
            dist.init_process_group("gloo", init_method=f"file://{folder}/{side}", rank=rank, world_size=RANKS)
        batches = BatchPlan(rows * RANKS, RANKS, rows, rows)
        if name in ("phial", "fixed"):
            step = our_side(int(stage), config, batches, name == "fixed")
        elif name == "deepspeed":
            step = deepspeed_side(int(stage), config, rows)
        elif name == "trainer":
            step = trainer_side(int(stage), config, rows, folder)
        else:
            step = torch_side(name, config)
        pipe.send(("ready", 0.0, 0.0))
        while (asked := pipe.recv()) is not None:
            number, packed = asked
            micro = make_rows(number, rank, rows, context, config.vocab_size, packed)
            began = time.perf_counter()
            loss = step(micro)
            pipe.send(("done", loss, time.perf_counter() - began))
    except BaseException:
        pipe.send(("failed", traceback.format_exc(), 0.0))


class Side:
    """The pair of processes of one side."""

    def __init__(self, name: str, folder: Path, sizes: dict[str, Any], rows: int, context: int) -> None:
        self.name = name
        self.pipes, self.processes = [], []
        maker = multiprocessing.get_context("spawn")
        for rank in range(RANKS):
            ours, theirs = maker.Pipe()
            process = maker.Process(target=serve, args=(name, rank, folder, sizes, rows, context, theirs), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)
        self.hear()

    def hear(self) -> list[tuple[float, float]]:
        told = [pipe.recv() for pipe in self.pipes]
        for kind, words, _ in told:
            if kind == "failed":
                raise SystemExit(f"engine: {self.name}: {words}")
        return [(loss, seconds) for _, loss, seconds in told]

    def step(self, number: int, packed: bool) -> tuple[float, float]:
        """The mean of the ranks' losses, and the seconds of the slower rank."""
        for pipe in self.pipes:
            pipe.send((number, packed))
        told = self.hear()
        # No sum over ranks in the processes: the Trainer's thread has collectives of its own under way at this moment.
        return statistics.mean(loss for loss, _ in told), max(seconds for _, seconds in told)

    def end(self) -> None:
        for process in self.processes:
            process.kill()


def measure(options: argparse.Namespace, packed: bool, names: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """The sides of a group in turn, round after round."""
    sizes = SIZES | QUICK if options.quick else SIZES
    sides = [Side(name, folder, sizes, options.rows, options.context) for name in names]
    try:
        losses: dict[str, list[float]] = {side.name: [] for side in sides}
        seconds: dict[str, list[float]] = {side.name: [] for side in sides}
        for number in range(options.rounds + 1):  # the first is a warm-up
            for side in sides:
                loss, took = side.step(number, packed)
                losses[side.name].append(loss)
                if number:
                    seconds[side.name].append(took)
            print(
                f"engine: round {number}: " + ", ".join(f"{name} {times[-1]:.2f}" for name, times in seconds.items() if times), flush=True
            )
    finally:
        for side in sides:
            side.end()
    return {"losses": losses, "step_s": seconds, "largest_loss_difference": spread(losses), "ratios": ratios(seconds)}


def spread(losses: dict[str, list[float]]) -> float:
    """How far sides are apart, at the step where they are furthest."""
    return max(max(step) - min(step) for step in zip(*losses.values(), strict=True))


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Our time over theirs, the median over rounds; below 1 ours is faster."""
    pairs = [(f"phial-{stage}", f"{other}-{stage}") for stage in (1, 2, 3) for other in ("deepspeed", "trainer")]
    pairs += [(f"phial-{stage}", other) for stage in (0, 1, 2, 3) for other in ("ddp", "fsdp2")]
    pairs += [(f"fixed-{stage}", f"phial-{stage}") for stage in (0, 1)]
    return {
        f"{ours} / {theirs}": round(statistics.median(a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)), 4)
        for ours, theirs in pairs
        if ours in seconds and theirs in seconds
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2, help="of a rank")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--stages", nargs="+", type=int, choices=range(4), default=[0, 1, 2, 3])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--quick", action="store_true", help="a tiny decoder: proves the script")
    parser.add_argument("--out", type=Path, default=RESULTS / "engine.json")
    options = parser.parse_args(arguments)
    setup = {"ranks": RANKS, "threads_per_rank": 1, "rows_per_rank": options.rows, "context": options.context, "dtype": "float32"}
    record: dict[str, Any] = {**provenance("torch", "deepspeed", "transformers", "accelerate"), **setup, "cases": {}}
    worst = 0.0
    for case in options.cases:
        record["cases"][case] = {}
        groups = {f"stage {stage}": GROUPS[stage] for stage in options.stages}
        for group, sides in ({"stages 0 and 1": FIXED} if case == "deterministic" else groups).items():
            with tempfile.TemporaryDirectory(prefix="phial-engine-") as folder:
                found = measure(options, case == "packed", sides, Path(folder))
            record["cases"][case][group] = found
            worst = max(worst, found["largest_loss_difference"])
            for name, value in found["ratios"].items():
                print(f"engine: {case}: {name} = {value:.3f}", flush=True)
    write_json(options.out, record)
    bound = 1e-3  # of losses near 9
    if worst > bound:
        raise SystemExit(f"engine: the sides' losses are {worst:.2e} apart; they do not do the same work")


if __name__ == "__main__":
    main()
