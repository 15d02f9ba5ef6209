"""Files that another process may read while this one writes them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path


def write_json(path: Path, document: object) -> None:
    """Write a JSON file in one step: a reader finds the whole old file or the whole new one. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(document))
        temporary.replace(path)
    except BaseException:
        # On a full disk, a part of a file would be left for each process that tries.
        with suppress(OSError):
            temporary.unlink()
        raise
