"""dbt's command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def run_as_script(args: Sequence[str]) -> NoReturn:
    """Do what the script `dbt` does in a new Python. The first of `args` is its path. Raises SystemExit at the end."""
    script = Path(args[0])
    sys.argv[:] = args
    sys.path.insert(0, str(script.resolve().parent))
    from dbt.cli.main import cli

    # Its messages would name the module that this process was started with.
    sys.exit(cli(prog_name=script.name))
