"""One rank of a run of several, started by `training/launch.py` as `python -m training.worker MEETING_FOLDER`."""

import datetime
import os
import sys
import threading
from pathlib import Path


def end_with_parent() -> None:
    """Ends this process when the pipe on its standard input closes, which is when the launcher is gone."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(meeting: Path) -> None:
    """Joins the other ranks and trains."""
    import torch
    import torch.distributed as dist

    from data_pipeline.storage import read_json, write_json
    from training.job import Job, make_plan
    from training.trainer import Run
    from training.zero import remove_stale_locks

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    job = Job.from_json(read_json(meeting / "job.json"))
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{meeting / 'rendezvous'}",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(minutes=30),
    )
    try:
        run = Run(job, make_plan(job), sys.stdout, rank, ranks)
        if rank == 0:
            remove_stale_locks(run.say)
        dist.barrier()
        run.train()
        dist.barrier()
    except Exception as error:
        if getattr(error, "exit_code", None) == 2:
            write_json(meeting / "error.json", {"line": str(error)})
        raise
    dist.destroy_process_group()


if __name__ == "__main__":
    end_with_parent()
    try:
        main(Path(sys.argv[1]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    # Everything is written, and the ranks have met. Left to the interpreter's own way out, a thread of the communication library that still
    # runs has been seen to abort the process ("terminate called without an active exception").
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
