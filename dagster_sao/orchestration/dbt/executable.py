"""Finds dbt in the environment of this Python, also when that environment is not activated."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def find_dbt() -> None:
    """Let dagster-dbt find the dbt that is installed beside this Python, where the PATH has none."""
    folder = Path(sys.executable).parent
    if shutil.which("dbt") is None and shutil.which("dbt", path=str(folder)) is not None:
        os.environ["PATH"] = os.pathsep.join(filter(None, [os.environ.get("PATH"), str(folder)]))
