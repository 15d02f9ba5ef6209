"""What a new Python has and does, for a process of `multiprocessing` that is forked instead."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def as_new_python(environment: Mapping[str, str]) -> Iterator[None]:
    """Give this process environment variables, the time zone among them, and random numbers of its own, and end it as Python ends itself.

    `multiprocessing` does not do that in a forked process: libraries send there what they have gathered, and close databases.
    """
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()  # Python reads the time zone at its start
    # Python's own generator does it by itself.
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    try:
        yield
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


def path_of_new_python() -> list[str]:
    """Return the folders in which a new Python with the environment of this process looks for modules, except the current one.

    Raises subprocess.CalledProcessError and OSError.
    """
    code = "import sys; print(*filter(None, sys.path), sep='\\n')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
