"""Loss on rows that are held out, while a run goes on."""

from collections.abc import Callable

from data_pipeline.tokens.shards import TokenShards
from data_pipeline.tokens.validation import validation_rows
from training.batches import BatchPlan, stack
from training.engine import Engine
from training.job import Job
from training.world import World


def validation_losses(job: Job, engine: Engine, batches: BatchPlan, world: World, beat: Callable[[], None]) -> dict[str, float]:
    """Mean loss in nats per target of every held-out source, dropout off and without z-loss; all ranks take part, and call `beat` after
    every round.

    Data ranks share the rows. A rank without rows of its own in a round reads the round's first ones again and counts nothing: under ZeRO-3
    every forward pass needs all ranks.
    """
    data = engine.mesh.group("data")
    found: dict[str, float] = {}
    for source, count in job.recipe.validation.items():
        rows = validation_rows(TokenShards.open(job.tokens / source), job.recipe.context, count)
        total = targets = 0.0
        step = batches.micro * data.size
        for begin in range(0, len(rows), step):
            mine = rows[begin + data.index * batches.micro : begin + (data.index + 1) * batches.micro]
            micro = stack(mine or rows[begin : begin + 1])
            loss = float(engine.loss(micro))
            beat()
            if mine:
                total += loss * micro.num_targets
                targets += micro.num_targets
        # Ranks that work on the same rows have the same sums, so that they cancel in the mean.
        found[source] = world.total(total) / max(1.0, world.total(targets))
    return found
