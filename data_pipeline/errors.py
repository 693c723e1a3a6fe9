"""The error a user can mend: one line that says what, where, what is allowed and what came."""


class InputError(ValueError):
    """Bad input from outside: a file, a setting, a folder. The front door prints its one line and exits with `exit_code`."""

    exit_code = 2


def missing_extra(package: str, install: str, needed_for: str) -> InputError:
    """The error for an optional package that is not installed; `install` is the exact line that mends it."""
    return InputError(f"{needed_for} needs {package}, which is not installed; install it with: {install}")
