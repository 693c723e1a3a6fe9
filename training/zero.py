"""One optimizer step over several ranks: DeepSpeed ZeRO, its configuration derived from the recipe. Imported only inside a rank."""

import importlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from data_pipeline.errors import InputError
from data_pipeline.storage import write_json
from modeling.decoder import Decoder
from training.batches import BatchPlan, MicroBatch
from training.engine import LossModule, StepResult, TensorReader, clip_gradients, prepare_decoder
from training.hardware import pick_device
from training.optimizer import MOMENTS, build_optimizer, set_learning_rate
from training.recipe import PretrainRecipe


def zero_config(recipe: PretrainRecipe, batches: BatchPlan) -> dict[str, Any]:
    """DeepSpeed's configuration of this run. Weights, gradients and their reduction stay float32: autocast is inside our module."""
    return {
        "train_batch_size": batches.rows_per_step,
        "train_micro_batch_size_per_gpu": batches.micro,
        "gradient_accumulation_steps": batches.accumulation,
        "gradient_clipping": recipe.clip,
        "zero_optimization": {"stage": recipe.zero_stage, "overlap_comm": False, "contiguous_gradients": True},
        "zero_allow_untested_optimizer": True,  # our torch AdamW, not DeepSpeed's, which would be compiled at first use
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": False,
    }


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

    def __init__(self, decoder: Decoder, recipe: PretrainRecipe, precision: str, batches: BatchPlan, out: Path) -> None:
        if precision == "bfloat16-master":
            raise InputError('[pretrain] precision = "bfloat16-master" is for one rank; over several ranks "bfloat16" is allowed')
        deepspeed = load_deepspeed()
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.device = pick_device(self.rank)
        self.stage, self.accumulation, self.clip = recipe.zero_stage, batches.accumulation, recipe.clip
        config = zero_config(recipe, batches)
        if self.rank == 0:
            write_json(out / "deepspeed.json", config)
        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
        self.decoder = decoder
        self.names = [name for name, _ in decoder.named_parameters()]
        module = LossModule(prepare_decoder(decoder, recipe, self.device), recipe.z_loss, precision)
        optimizer = build_optimizer(decoder, recipe)
        self.client_optimizer = optimizer
        self.engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
        self.start_optimizer()

    def step(self, batch: list[MicroBatch], learning_rate: float) -> StepResult:
        """One update. DeepSpeed takes the mean over ranks and micro-batches; ours is the mean over targets, so each is scaled back."""
        set_learning_rate(self.engine.optimizer, learning_rate)
        counts = torch.tensor(float(sum(micro.num_targets for micro in batch)), dtype=torch.float64, device=self.device)
        dist.all_reduce(counts)
        total = max(1.0, float(counts))
        loss = torch.zeros((), device=self.device)
        norm: Tensor | None = None
        for micro in batch:
            here = micro.to(self.device)
            part = self.engine(here.ids_BT, here.positions_BT, here.documents_BT, here.targets_BT) * (micro.num_targets / total)
            self.engine.backward(part * (self.ranks * self.accumulation))
            loss += part.detach()
            if self.stage == 0 and self.engine.is_gradient_accumulation_boundary():
                norm = clip_gradients(self.decoder.parameters(), 0.0)  # DeepSpeed clips but reports no norm here
            self.engine.step()
        dist.all_reduce(loss)
        if norm is None:
            norm = torch.as_tensor(self.engine.get_global_grad_norm(), dtype=torch.float32, device=self.device)
        return StepResult(loss, norm)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        from deepspeed.utils import safe_get_full_fp32_param

        for name, parameter in zip(self.names, self.decoder.parameters(), strict=True):
            yield name, parameter.detach() if self.stage == 0 else safe_get_full_fp32_param(parameter)  # type: ignore[misc]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        from deepspeed.utils import safe_get_full_optimizer_state

        weights = self.weights()
        for parameter in self.decoder.parameters():
            name, weight = next(weights)
            yield f"weight/{name}", weight
            for moment in MOMENTS:
                whole = self.engine.optimizer.state[parameter][moment] if self.stage == 0 else None
                yield f"{moment}/{name}", safe_get_full_optimizer_state(parameter, moment) if whole is None else whole  # type: ignore[misc]

    def restore(self, read: TensorReader, step: int) -> None:
        """The weights are in place: the partitions were cut from them. Here come both moments and the update count."""
        from deepspeed.utils import safe_set_full_optimizer_state

        state = self.client_optimizer.state
        for owned in self.owned_tensors():
            state[owned]["step"].fill_(step)
        for name, parameter in zip(self.names, self.decoder.parameters(), strict=True):
            for moment in MOMENTS:
                whole = read.read(f"{moment}/{name}").to(self.device)
                if self.stage == 0:
                    state[parameter][moment].copy_(whole)
                else:
                    safe_set_full_optimizer_state(parameter, whole, moment)

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
        """What this rank's AdamW updates: parameters, or this rank's flat partitions of them."""
        if self.stage == 3:
            return list(self.engine.optimizer.fp32_partitioned_groups_flat)
        return [owned for group in self.client_optimizer.param_groups for owned in group["params"]]

    def total(self, value: float) -> float:
        summed = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return float(summed)
