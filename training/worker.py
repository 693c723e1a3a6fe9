"""One rank of a run of several: `python -m training.worker JOB.json`, with RANK, LOCAL_RANK and WORLD_SIZE in the environment.

Ranks of one machine meet through a file (PHIAL_MEETING, set by `training/launch.py`), ranks of several at MASTER_ADDR:MASTER_PORT, as
torchrun sets them. JOB.json is `training.job.Job`; a line that the user can act on is written beside it as error.json.
"""

import datetime
import os
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

PARENT_SECONDS = 1.0


def end_with_parent() -> None:
    """Ends this process when the pipe on its standard input closes, which is when the launcher is gone."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def end_with_torchrun() -> None:
    """Ends this process when its parent is another one than at its start: torchrun was killed and could not end its ranks."""
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(job_file: Path) -> None:
    """Joins the other ranks and trains."""
    import torch
    import torch.distributed as dist

    from data_pipeline.storage import read_json, write_json
    from training.cluster.watchdog import Watchdog
    from training.hardware import local_rank
    from training.job import Job, make_plan
    from training.run_lock import run_lock
    from training.trainer import Rewound, Run
    from training.zero import remove_stale_locks

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    job = Job.from_json(read_json(job_file))
    hang_seconds = float(os.environ.get("PHIAL_HANG_SECONDS", "0"))
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank())
    meeting = os.environ.get("PHIAL_MEETING")
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{meeting}" if meeting else "env://",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(days=1) if hang_seconds else datetime.timedelta(minutes=30),  # who watches for hangs ends them sooner
    )
    dog = Watchdog(job.out, rank, hang_seconds)
    dog.watch_collectives()
    dog.start()
    try:
        run = Run(job, make_plan(job, ranks), sys.stdout, rank, ranks, on_step=dog.progress)
        if local_rank() == 0:
            remove_stale_locks(run.say)
        with ExitStack() as held:
            if rank == 0 and os.environ.get("PHIAL_HANG_EXIT"):  # a batch job's, which nobody holds the lock for
                held.enter_context(run_lock(job.out, run.say))
            dist.barrier()
            run.train()
            dist.barrier()
    except Rewound:
        if rank == 0:
            write_json(job_file.with_name("error.json"), {"rewound": True})
        dist.barrier()  # the first rank that ends takes the others along: the note must stand by then
        dog.end()
        sys.stdout.flush()
        os._exit(Rewound.exit_code)
    except Exception as error:
        if getattr(error, "exit_code", None) == 2:
            write_json(job_file.with_name("error.json"), {"line": str(error), "rank": rank})
        raise
    dog.end()
    dist.destroy_process_group()


if __name__ == "__main__":
    if os.environ.get("PHIAL_MEETING"):
        end_with_parent()
    else:
        end_with_torchrun()
    try:
        main(Path(sys.argv[1]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    # Everything is written, and the ranks have met. Left to the interpreter's own way out, a thread of the communication library that still
    # runs has been seen to abort the process ("terminate called without an active exception").
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
