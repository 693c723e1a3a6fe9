"""One update over several ranks through DeepSpeed ZeRO, stages 1 to 3; its configuration is derived. Imported only inside a rank."""

import importlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data_pipeline.storage import write_json
from modeling.decoder import Decoder
from training.batches import BatchPlan, MicroBatch
from training.engine import Accept, LossModule, StepResult, count_targets, evaluate, prepare_decoder
from training.layout import SAME_WEIGHTS, ModelParallelUnit, mark_split_parameters
from training.optimizer import build_optimizer, set_learning_rate
from training.recipe import LayoutRecipe, PretrainRecipe
from training.reducer import sum_over
from training.state import MOMENTS, WEIGHT, Fragment

MASTER = "bfloat16-master"
BUCKET_ELEMENTS = 50_000_000  # what is on the way in one collective; DeepSpeed's 500 million would take 2 GB of float32


def zero_config(recipe: PretrainRecipe, layout: LayoutRecipe, precision: str, batches: BatchPlan, same_ranks: int) -> dict[str, Any]:
    """DeepSpeed's configuration of this run.

    Gradients are summed and reduced in float32 whatever the weights are. Where these are float32, autocast is inside our own module.
    DeepSpeed counts rows by ranks that hold the same weights; ranks along "context" work on the same ones, so its count is a multiple of
    ours, and only used for a check of its own.
    """
    zero: dict[str, Any] = {
        "stage": layout.zero_stage,
        "overlap_comm": layout.overlap and torch.cuda.is_available(),
        "contiguous_gradients": True,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
    }
    if layout.offload == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    config: dict[str, Any] = {
        "train_batch_size": batches.micro * batches.accumulation * same_ranks,
        "train_micro_batch_size_per_gpu": batches.micro,
        "gradient_accumulation_steps": batches.accumulation,
        "gradient_clipping": recipe.clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # our torch AdamW, not DeepSpeed's, which would be compiled at first use
        "zero_force_ds_cpu_optimizer": False,
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": False,
    }
    if precision == MASTER:
        # Stage 1 adds a gradient to its float32 sum as soon as it is there, and drops it: no whole set of bfloat16 gradients.
        config["bf16"] = {"enabled": True, "immediate_grad_update": True}
    return config


def load_deepspeed() -> Any:
    """DeepSpeed with its log at warnings, and without the shared-memory collectives that it would compile at first use on a CPU."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    # `import deepspeed.comm.torch as x` would give the real torch: the package has an attribute of that name.
    backend: Any = importlib.import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None
    return deepspeed


def remove_stale_locks(say: Callable[[str], None]) -> None:
    """Removes lock files that a process killed in the middle of a build has left: the next build would wait for them for ever."""
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in root.glob("**/lock"):
        if lock.is_file() and not build_is_running():
            lock.unlink(missing_ok=True)
            say(f"pretrain: removed {lock}, left by a build that was killed")


def build_is_running() -> bool:
    """Whether some process compiles an extension at this moment."""
    import psutil

    return any(process.info["name"] in ("ninja", "cc1plus", "nvcc") for process in psutil.process_iter(["name"]))


class ZeroEngine:
    """The decoder inside `deepspeed.initialize`; the process group must exist."""

    def __init__(
        self,
        decoder: Decoder,
        recipe: PretrainRecipe,
        layout: LayoutRecipe,
        precision: str,
        device: torch.device,
        batches: BatchPlan,
        out: Path | None = None,
    ) -> None:
        deepspeed = load_deepspeed()
        self.mesh, self.device = decoder.parallel.mesh, device
        self.data, self.same, self.tensor = self.mesh.group("data"), self.mesh.group(*SAME_WEIGHTS), self.mesh.group("tensor")
        self.stage, self.accumulation, self.clip = layout.zero_stage, batches.accumulation, recipe.clip
        config = zero_config(recipe, layout, precision, batches, self.same.size)
        if self.mesh.rank == 0 and out is not None:
            write_json(out / "deepspeed.json", config)
        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
        self.decoder = decoder
        first = dict(decoder.named_parameters()) if precision == MASTER else {}
        exact = {name: parameter.detach().clone() for name, parameter in first.items()}
        if precision == MASTER:
            decoder.to(torch.bfloat16)
        prepare_decoder(decoder, recipe, device).train()
        self.pieces = mark_split_parameters(decoder)
        self.named = dict(decoder.named_parameters())
        module = LossModule(decoder, recipe.z_loss, precision)
        self.client_optimizer = build_optimizer(decoder, recipe)
        unit = ModelParallelUnit(self.mesh) if self.tensor.size > 1 else None
        self.engine, *_ = deepspeed.initialize(model=module, optimizer=self.client_optimizer, config=config, mpu=unit)
        self.start_optimizer()
        for fragment in self.fragments():  # masters begin as the exact weights, not as their rounding
            if fragment.kind == WEIGHT and fragment.name in exact:
                fragment.put(exact[fragment.name].view(-1)[fragment.begin : fragment.end])

    def step(self, batch: list[MicroBatch], learning_rate: float, accept: Accept | None = None) -> StepResult:
        """DeepSpeed takes the mean over ranks and micro-batches; ours is the mean over targets, so each is scaled back."""
        set_learning_rate(self.engine.optimizer, learning_rate)
        total = count_targets(batch, self.data, self.device)
        loss = torch.zeros((), device=self.device)
        # The engine's own `get_global_grad_norm` is the step's before, until the optimizer has returned.
        gate = Gate(accept, lambda: (float(loss), float(self.engine.optimizer._global_grad_norm)))
        for number, micro in enumerate(batch, 1):
            part = self.forward(micro) * (micro.num_targets / total)
            self.engine.backward(part * (self.same.size * self.accumulation))
            loss += part.detach()
            if number == len(batch):
                sum_over(self.data, loss)
            self.client_optimizer.gate = gate
            self.engine.step()
        norm = torch.as_tensor(self.engine.get_global_grad_norm(), dtype=torch.float32, device=self.device)
        return StepResult(loss, norm, applied=gate())  # not asked yet where DeepSpeed has left out an infinite norm by itself

    def forward(self, micro: MicroBatch) -> Tensor:
        here = micro.to(self.device)
        return self.engine(here.ids_BT, here.positions_BT, here.documents_BT, here.targets_BT)

    def loss(self, micro: MicroBatch) -> Tensor:
        return evaluate(self.engine, self.forward, micro)

    def fragments(self) -> Iterator[Fragment]:
        """What ZeRO has given this rank: flat intervals of parameters, cut without regard to rows."""
        for name, parameter in self.named.items():
            mine = not self.pieces[name].shared or self.tensor.index == 0
            yield from self.cut_by_stage_3(name, parameter, mine) if self.stage == 3 else self.cut_by_stage_1(name, parameter, mine)

    def cut_by_stage_1(self, name: str, parameter: nn.Parameter, mine: bool) -> Iterator[Fragment]:
        """Stages 1 and 2: one flat tensor of all parameters of a group, in equal parts."""
        mapping: Any = parameter._hp_mapping  # type: ignore[attr-defined]
        if mapping is None:
            return
        begin = mapping.lp_fragment_address.start
        end = begin + mapping.lp_fragment_address.numel
        for kind in (WEIGHT, *MOMENTS):
            yield Fragment(kind, name, begin, end, mapping.get_hp_fragment(None if kind == WEIGHT else kind).detach(), mine)

    def cut_by_stage_3(self, name: str, parameter: nn.Parameter, mine: bool) -> Iterator[Fragment]:
        """Stage 3: every parameter in equal parts, the last ones filled up with zeros."""
        from deepspeed.utils import (
            safe_get_local_fp32_param,
            safe_get_local_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        numel, size = parameter.ds_numel, parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        begin = min(numel, self.same.index * size)
        end = min(numel, begin + size)
        for kind in (WEIGHT, *MOMENTS):
            if kind == WEIGHT:
                held = safe_get_local_fp32_param(parameter).detach()  # type: ignore[union-attr]
            else:
                held = safe_get_local_optimizer_state(parameter, kind)
            assert held is not None

            def store(values: Tensor, kind: str = kind, held: Tensor = held) -> None:
                filled = held.clone()
                filled[: end - begin] = values
                if kind == WEIGHT:
                    safe_set_local_fp32_param(parameter, filled)
                else:
                    safe_set_local_optimizer_state(parameter, filled, kind)

            yield Fragment(kind, name, begin, end, held[: end - begin], mine, store)

    def resume(self, updates: int) -> None:
        """The weights that are computed with are in place: the partitions were cut from them."""
        for owned in self.owned_tensors():
            self.client_optimizer.state[owned]["step"].fill_(updates)

    def start_optimizer(self) -> None:
        """Moments of zero for every tensor this rank updates, linked to the parameters they belong to.

        DeepSpeed would link them in its first step, but after its first parameter group only: the moments of later groups stay unlinked.
        """
        for owned in self.owned_tensors():
            state = self.client_optimizer.state[owned]
            state["step"] = torch.zeros((), dtype=torch.float32, device=owned.device)
            for moment in MOMENTS:
                state[moment] = torch.zeros_like(owned, dtype=torch.float32)
        if self.stage in (1, 2):
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()  # private, hence the bound on DeepSpeed's version

    def owned_tensors(self) -> list[Tensor]:
        """What this rank's AdamW updates: this rank's flat partitions of the parameters."""
        if self.stage == 3:
            return list(self.engine.optimizer.fp32_partitioned_groups_flat)
        return [owned for group in self.client_optimizer.param_groups for owned in group["params"]]


class Gate:
    """Asks once per update, at the first of the optimizer's calls, by when DeepSpeed knows the norm."""

    def __init__(self, accept: Accept | None, facts: Callable[[], tuple[float, float]]) -> None:
        self.accept, self.facts = accept, facts
        self.answer: bool | None = None

    def __call__(self) -> bool:
        if self.answer is None:
            self.answer = self.accept is None or self.accept(*self.facts())
        return self.answer
