"""From where a run goes on: its newest good checkpoint, whether that is this run's, and the data order that its history gives."""

import dataclasses
from collections.abc import Callable
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.tokens.mixture_history import EditedMixture, History, edited, first_history
from data_pipeline.tokens.shards import TokenShards
from modeling.checkpoint import Checkpoint
from training.checkpoint import ALONE, CheckpointStore
from training.events import NAME as EVENTS
from training.events import read_events
from training.job import Job, Plan, identity_of
from training.world import World

PHASES = "[pretrain] phases"


def open_store(job: Job, plan: Plan, say: Callable[[str], None] = lambda line: None) -> CheckpointStore:
    """The run's checkpoints."""
    recipe = job.recipe
    folder = recipe.checkpoints or job.out / "checkpoints"
    start_over = f"start over by deleting {job.out}" + (f" and {recipe.checkpoints}" if recipe.checkpoints else "")
    return CheckpointStore(folder, recipe.keep_last, plan.identity, keep_every=recipe.keep_every, say=say, start_over=start_over)


def find_start(job: Job, plan: Plan, store: CheckpointStore, world: World = ALONE) -> tuple[Checkpoint | None, Plan]:
    """The checkpoint to go on from (None: a new run), and the plan with the data order of the whole run, edits of the mixture included.

    A checkpoint of another recipe or other data is refused in one line. Other phases are an edit of the mixture: refused too, except where
    the job says that they are meant.
    """
    checkpoint = store.latest(store.say, world)
    if checkpoint is None:
        world.agree(lambda: refuse_lost_checkpoints(job, store))
        return None, plan
    history = history_of(checkpoint)
    recipe, counts = job.recipe, checkpoint.metadata.get("row_counts")
    before = EditedMixture(history, open_shards(job, history), recipe.context, recipe.rows_per_step, job.seed, counts)
    made = {PHASES: history[-1]["phases"], "data": before.fingerprint()}
    store.check_identity(checkpoint, plan.identity | made)
    step = checkpoint.metadata["step"]
    if first_history(list(recipe.phases))[0]["phases"] != history[-1]["phases"]:
        if not job.edit_mixture:
            raise InputError(
                f"{checkpoint.folder}: this checkpoint was trained with other {PHASES} than the recipe has now; put them back, give "
                f"--edit-mixture to go on from step {step} with the new ones, or {store.start_over}"
            )
        changed = edited(history, list(recipe.phases), step)
        before = EditedMixture(changed, open_shards(job, changed), recipe.context, recipe.rows_per_step, job.seed, counts)
    plan = dataclasses.replace(plan, mixture=before, identity=identity_of(job, plan.config, before))
    store.identity = plan.identity
    return checkpoint, plan


def refuse_lost_checkpoints(job: Job, store: CheckpointStore) -> None:
    """Refuses to begin at step 0 where the run's events tell of checkpoints: storage that is not mounted looks like an empty folder, and
    a new start would clear the metrics of everything done so far."""
    written = 0
    for event in read_events(job.out):
        if event["kind"] == "checkpoint":
            written = max(written, event["step"])
        elif event["kind"] == "rewound":
            written = min(written, event["to"])
    if written:
        raise InputError(
            f"{store.folder}: no intact checkpoint is here, and {job.out / EVENTS} tells of one of step {written}; mount or put back what "
            f"was there, or {store.start_over}"
        )


def history_of(checkpoint: Checkpoint) -> History:
    """The mixture's history in a checkpoint; before there was one, phases stood in the identity."""
    metadata: dict[str, Any] = checkpoint.metadata
    return metadata.get("mixture") or [{"from_step": 0, "phases": metadata.get("identity", {}).get(PHASES, [])}]


def history_now(job: Job, plan: Plan) -> History:
    """What a checkpoint of this run keeps."""
    mixture = plan.mixture
    return mixture.history if isinstance(mixture, EditedMixture) else first_history(list(job.recipe.phases))


def open_shards(job: Job, history: History) -> dict[str, TokenShards]:
    """The shards of every source that the history names, those of weight 0 by any other's."""
    named = {source: weight for entry in history for phase in entry["phases"] for source, weight in phase["weights"].items()}
    read = {source for entry in history for phase in entry["phases"] for source, weight in phase["weights"].items() if weight > 0}
    found = {source: TokenShards.open(job.tokens / source) for source in sorted(read)}
    return found | {source: next(iter(found.values())) for source in named if source not in found}
