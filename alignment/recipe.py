"""[sft] and [dpo]: what a recipe may say about fine-tuning on answers and on preferences."""

from typing import Literal

from pydantic import Field

from data_pipeline.recipe import Section


class TuningRecipe(Section):
    """What both kinds of fine-tuning share. Work is fixed in optimizer steps, never in seconds."""

    steps: int = Field(default=0, ge=0, description="optimizer steps; 0 means as many as `epochs` passes over the rows need")
    epochs: float = Field(default=1.0, gt=0, description="passes over the rows, where steps is 0")
    batch_rows: int = Field(default=16, ge=1, description="rows in one forward pass")
    gradient_accumulation: int = Field(default=1, ge=1, description="forward passes per optimizer step")
    learning_rate: float = Field(default=5e-4, gt=0, description="the peak")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps over which the learning rate rises to its peak")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="what follows the warmup; the first two end at 0"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay")
    gradient_clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    max_length: int = Field(default=512, ge=8, description="tokens in one row (one packed row when packing)")
    over_long: Literal["drop", "refuse"] = Field(
        default="drop", description="rows above max_length: dropped and counted, or an error; never cut"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of the matrix products; weights and optimizer stay float32. auto: bfloat16 where the processor has it"
    )
    gradient_checkpointing: bool = Field(default=False, description="recompute activations in the backward pass: less memory, more time")
    log_every: int = Field(default=10, ge=1, description="steps between rows of metrics.jsonl")
    save_every: int = Field(
        default=0, ge=0, description="steps between checkpoints to resume from; 0 means none: a killed run starts again"
    )
    threads: int = Field(default=0, ge=0, description="processor threads; 0 leaves torch's own choice")


class SftRecipe(TuningRecipe):
    """[sft]"""

    packing: bool = Field(
        default=False, description="best-fit packing of whole rows into rows of max_length; for GPUs, on a CPU padded rows are faster"
    )


class DpoRecipe(TuningRecipe):
    """[dpo]"""

    learning_rate: float = Field(default=5e-5, gt=0, description="the peak")
    beta: float = Field(default=0.1, gt=0, description="weight of staying near the reference model")
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust", "sppo_hard", "apo_zero", "apo_down", "sigmoid_norm"] = Field(
        default="sigmoid", description="trl's name of the preference loss"
    )
    precompute_reference: bool = Field(
        default=True, description="reference log-probabilities once before training, over the rows used; else a copy runs beside the model"
    )
