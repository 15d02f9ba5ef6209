"""A local fakesnow server for as long as a test needs it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.environments import ROOT, environment_for

SERVER = ROOT / "tests" / "warehouse" / "snowflake" / "server.py"
START_SECONDS = 60


@contextmanager
def fakesnow_server(python: Path, home: Path) -> Iterator[int]:
    """Run a server with the interpreter `python`; return its port."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([python, SERVER, str(port)], env=environment_for(home))
    try:
        _wait_for(port, server)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(START_SECONDS * 10):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert server.poll() is None, "the server ended"
        time.sleep(0.1)
    pytest.fail("the server does not answer")
