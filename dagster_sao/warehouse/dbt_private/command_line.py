"""dbt's command line, in a process that was forked for it."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from dagster_sao.warehouse.dbt_private.environment import environment_of_file


def be_dbt(args: Sequence[str], environment: Mapping[str, str], folder: Path) -> NoReturn:
    """Do in this process what a new one does that is started with these arguments, in a folder. Raises SystemExit at the end.

    The first of `args` is the path of the script `dbt`.
    """
    os.chdir(folder)
    # dbt reads the `.env` of the current folder when it is imported, which it was elsewhere.
    start_anew({**environment_of_file(folder), **environment})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(OSError):
        Path("/proc/self/comm").write_text("dbt")  # what `ps` and `top` show
    sys.argv[:] = args
    sys.path.insert(0, str(Path(args[0]).parent))
    from dbt.cli.main import cli

    try:
        sys.exit(cli())
    finally:
        # Python's own end, which a process of `multiprocessing` has not: adapters close their databases in it.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


def start_anew(environment: Mapping[str, str]) -> None:
    """Give a forked process what a new Python has: environment variables of its own, and random numbers of its own."""
    os.environ.clear()
    os.environ.update(environment)
    # Python's own generator does it by itself.
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
