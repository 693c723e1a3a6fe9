"""An exported package in onnxruntime as a model to score."""

# B rows of a batch, T tokens, S tokens held, V vocabulary, R rows that continue a batch, W wanted positions.

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval.models import Identity, Model
from eval.text import TextSide
from export import load_package
from export.runner import Runner

# A continuation this many times shorter than its context is fed token by token; else both are read as one row.
STEP_FACTOR = 4


@dataclass
class State:
    """What a batch has read: its ids and the graph's keys and values by input name."""

    ids_BS: np.ndarray
    past: dict[str, np.ndarray]


class PackageModel(Model):
    """The package's own graph, quantized weights included. onnxruntime's GroupQueryAttention takes several new tokens behind a cache for a
    single row only, so batches continue one token at a time."""

    def __init__(self, identity: Identity, text: TextSide, runner: Runner, batch_tokens: int = 4096) -> None:
        super().__init__(identity, text, runner.context, batch_tokens)
        self.runner = runner
        outputs = {one.name for one in runner.session.get_outputs()}
        self.present_names = [name.replace("past_key_values", "present") for name in runner.past_names]
        assert outputs >= {"logits", *self.present_names}

    @classmethod
    def open(cls, identity: Identity, text: TextSide, folder: Path) -> "PackageModel":
        """Checks the package's files against its manifest and opens it."""
        return cls(identity, text, load_package(folder).runner)

    def feed(self, state: State, ids_BT: np.ndarray) -> np.ndarray:
        """Adds tokens to the state; logits (B, T, V)."""
        batch, held = state.ids_BS.shape
        mask_BS = np.ones((batch, held + ids_BT.shape[1]), np.int64)
        feeds = {"input_ids": ids_BT.astype(np.int64), "attention_mask": mask_BS, **state.past}
        logits_BTV, *present = self.runner.session.run(["logits", *self.present_names], feeds)
        state.ids_BS = np.concatenate([state.ids_BS, ids_BT], 1)
        state.past = dict(zip(self.runner.past_names, present, strict=True))  # type: ignore[arg-type]
        return logits_BTV  # type: ignore[return-value]

    def prefill(self, ids_BT: Tensor, room: int) -> tuple[State, Tensor]:
        batch = ids_BT.shape[0]
        empty = np.zeros((batch, self.runner.num_kv_heads, 0, self.runner.head_dim), np.float32)
        state = State(np.zeros((batch, 0), np.int64), dict.fromkeys(self.runner.past_names, empty))
        logits_BTV = self.feed(state, ids_BT.numpy())
        return state, torch.from_numpy(logits_BTV[:, -1].copy())

    def extend(self, state: State, rows_R: Tensor, ids_RT: Tensor, wanted_RT: Tensor) -> Tensor:
        rows, ids, wanted = rows_R.numpy(), ids_RT.numpy(), wanted_RT.numpy()
        held, width = state.ids_BS.shape[1], ids.shape[1]
        if width * STEP_FACTOR > held:
            whole_RTV = self.runner.score(np.concatenate([state.ids_BS[rows], ids], 1))
            return torch.from_numpy(whole_RTV[:, held:][wanted])
        logits_RTV = np.zeros((len(rows), width, self.runner.vocab_size), np.float32)
        live = State(state.ids_BS[rows], {name: value[rows] for name, value in state.past.items()})
        order = np.arange(len(rows))
        for column in range(width):
            still = wanted[order, column]  # rows that have ended are fed no further
            if not still.all():
                order = order[still]
                live = State(live.ids_BS[still], {name: value[still] for name, value in live.past.items()})
            logits_RTV[order, column] = self.feed(live, ids[order, column : column + 1])[:, 0]
        return torch.from_numpy(logits_RTV[wanted])

    def step(self, state: State, ids_B: Tensor) -> Tensor:
        return torch.from_numpy(self.feed(state, ids_B.numpy()[:, None])[:, -1])

    def whole(self, ids_BT: Tensor) -> Tensor:
        return torch.from_numpy(self.runner.score(ids_BT.numpy()))
