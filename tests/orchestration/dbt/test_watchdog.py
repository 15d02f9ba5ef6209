"""The process that ends dbt when the run that started it was killed: real processes, a sleep in dbt's place."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from dagster_sao.orchestration.dbt import watchdog as watchdog_module
from dagster_sao.orchestration.dbt.process import _start_watchdog
from dagster_sao.orchestration.dbt.watchdog import ENDED
from tests.support.polling import wait_for

WATCHDOG = [sys.executable, "-I", "-S", watchdog_module.__file__, "60", "10"]
# As a run does: dbt, then the watchdog, which is told of it and whose input stays open as long as the run lives.
RUN = f"""
import subprocess, sys, time
dbt = subprocess.Popen(["sleep", "600"])
watchdog = subprocess.Popen({WATCHDOG!r}, stdin=subprocess.PIPE, start_new_session=True)
watchdog.stdin.write(f"{{dbt.pid}}\\n".encode())
watchdog.stdin.flush()
print(dbt.pid, watchdog.pid, flush=True)
time.sleep(600)
"""


def is_over(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_dbt_whose_run_is_killed_ends_and_so_does_its_watchdog():
    run = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True)
    dbt, watchdog = map(int, run.stdout.readline().split())
    run.kill()
    run.wait()
    run.stdout.close()
    wait_for("the end of dbt and its watchdog", lambda: is_over(dbt) and is_over(watchdog), seconds=30)


@pytest.fixture
def dbt():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_watchdog_whose_run_ended_well_leaves_the_process_alone(dbt):
    watchdog = subprocess.Popen(WATCHDOG, stdin=subprocess.PIPE)
    watchdog.communicate(f"{dbt.pid}\ndone\n".encode())
    assert watchdog.returncode == 0
    assert dbt.poll() is None


def test_a_dbt_whose_run_is_silent_is_ended_before_the_leases_run_out(dbt):
    watchdog = subprocess.Popen([*WATCHDOG[:-2], "0.5", "10"], stdin=subprocess.PIPE)
    watchdog.stdin.write(f"{dbt.pid}\n".encode())
    watchdog.stdin.flush()
    dbt.wait(30)
    # The run finds out why dbt ended, when it goes on.
    watchdog.communicate(b"done\n")
    assert watchdog.returncode == ENDED


def test_a_dbt_whose_run_renews_its_leases_goes_on(dbt):
    watchdog = subprocess.Popen([*WATCHDOG[:-2], "2", "10"], stdin=subprocess.PIPE)
    watchdog.stdin.write(f"{dbt.pid}\n".encode())
    for _ in range(3):
        watchdog.stdin.write(b"renewed\n")
        watchdog.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            dbt.wait(1)
    watchdog.communicate(b"done\n")
    assert (watchdog.returncode, dbt.poll()) == (0, None)


def test_a_process_that_has_ended_needs_no_watchdog(dbt):
    dbt.kill()
    dbt.wait()
    assert _start_watchdog(dbt) is None
