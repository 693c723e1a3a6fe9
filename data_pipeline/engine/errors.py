"""What `Future.result()` raises for a dead task whose own exception cannot be raised again as it was."""


class TaskError(RuntimeError):
    """The task's function raised something that could not be carried over from its process; the text says what."""


class LimitExceeded(TaskError):
    """The task went over its wall time or its memory, and its process was killed."""


class WorkerLost(TaskError):
    """Workers died under this task as often as its limits allow."""
