"""A local fakesnow server for as long as a test needs it."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support.environments import ROOT, environment_for
from tests.support.polling import wait_for

SERVER = ROOT / "tests" / "warehouse" / "probes" / "snowflake" / "server.py"
START_SECONDS = 60


@contextmanager
def fakesnow_server(python: Path, home: Path) -> Iterator[int]:
    """Run a server with the interpreter `python`; return its port."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([python, SERVER, str(port)], env=environment_for(home))
    try:
        wait_for("fakesnow to answer", lambda: _answers(port, server), seconds=START_SECONDS)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=30)


def _answers(port: int, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, "the server ended"
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
