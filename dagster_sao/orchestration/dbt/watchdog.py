"""Ends a dbt process whose run was killed or is frozen, so that it does not write on when the run's leases have run out.

Runs as a process of its own, beside the run, with the seconds of silence and of grace as arguments. Its standard input
says all: first dbt's process id, then a line each time that the run renewed its leases, and at the end, when dbt has
ended under the eyes of the run, a line `done`. An end without that line means that the run is gone, silence that it is
frozen. Exits with `ENDED` when it ended dbt.
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
    """Wait for the run's end, or its silence, and end dbt if it is still there: first as ctrl-c does, which cancels its queries."""
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
    """Return what the run said, dbt's process id first, when it has ended or was silent for too long."""
    said = b""
    while select.select([0], [], [], silence)[0]:
        chunk = os.read(0, _CHUNK)
        if not chunk:
            break
        said += chunk
    return said


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:])))
