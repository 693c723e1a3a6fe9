"""The error a user can mend: one line that says what, where, what is allowed and what came."""


class ModelError(ValueError):
    """A model folder, configuration or checkpoint that cannot be used. The front door prints its one line and exits with `exit_code`."""

    exit_code = 2
