"""Ends a dbt process whose run was killed, so that it does not write on when the run's leases have run out.

Runs as a process of its own, beside the run. Its standard input says all: first dbt's process id, and at the end, when
dbt has ended under the eyes of the run, a line `done`. An end without that line means that the run is gone.
"""

import os
import signal
import sys
import time

_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.1


def main() -> None:
    """Wait for the run's end, and end dbt if it is still there: first as ctrl-c does, which cancels its queries."""
    lines = sys.stdin.read().split()
    if not lines or lines[-1] == "done":
        return
    pid = int(lines[0])
    try:
        os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main()
