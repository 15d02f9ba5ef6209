"""Ends a dbt process whose run was killed or is frozen, so that dbt stops writing before the leases of the run expire.

Runs as a process of its own, beside the run, with the seconds of silence and of grace as arguments. It reads its
standard input: first dbt's process id, then a line for each heartbeat of the run, and a line `done` once dbt has ended
while the run was there. Without that line at the end of the input the run is gone; without a heartbeat it is frozen.
Exits with `ENDED` when it ended dbt.
"""

import os
import select
import signal
import sys
import time

ENDED = 3
_POLL_SECONDS = 0.1
_CHUNK = 65536


def main(silence: float, grace: float) -> int:
    """Wait until the run ends or is silent, then end dbt if it still runs: first as ctrl-c does, which cancels its queries."""
    said = _listen(silence)
    lines = said.split()
    if not lines or lines[-1] == b"done":
        return 0
    pid = int(lines[0])
    try:
        os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return ENDED


def _listen(silence: float) -> bytes:
    """Return the input of the run, dbt's process id first, when the run has ended or was silent for too long."""
    said = b""
    while select.select([0], [], [], silence)[0]:
        chunk = os.read(0, _CHUNK)
        if not chunk:
            break
        said += chunk
    return said


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:])))
