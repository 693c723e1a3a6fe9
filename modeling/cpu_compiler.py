"""What torch's compiler needs on a CPU: it writes C++, for which a compiler must be installed."""

import os
import shutil

from modeling.errors import ModelError


def check_cpu_compiler(what: str, remedy: str) -> None:
    """Refuses `what` where there is no C++ compiler, and says the `remedy`: torch would say so with a traceback at its first use."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ModelError(f"{what} needs a C++ compiler on a CPU; {compiler!r} is not installed. {remedy}")
