"""A run worker: a process that executes one run of a project, to be killed at any moment."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import Enum
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import sqlalchemy as sa
from dagster._core.execution.api import execute_run
from dagster_dbt import DbtProject

from dagster_sao import build_state_aware_definitions, build_state_aware_job
from dagster_sao.orchestration.leases import leases
from dagster_sao.orchestration.leases.leases import _LEASES, Claim, Leases
from dagster_sao.orchestration.leases.tables import find_table
from dagster_sao.orchestration.private.forked_dbt import forked_dbt_commands
from dagster_sao.orchestration.private.new_python import path_of_new_python
from tests.support.polling import wait_for
from tests.support.processes import PROCESSES


def job_of(folder: str, in_process: bool) -> dg.JobDefinition:
    """Return the job over a whole project, in whichever process rebuilds it."""
    job = build_state_aware_job("all", in_process=in_process)
    return build_state_aware_definitions(DbtProject(folder), jobs=[job]).resolve_job_def("all")


def execute(folder: Path, home: Path, run_id: str, config: dict[str, Any], how: How, forks_dbt: bool) -> None:
    """Execute a run; the body of a worker, which ends with 0 when the run succeeded."""
    # A group of its own, with all that it starts.
    os.setsid()
    log = os.open(folder.parent / f"{run_id}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ["SHOP_WORKER"] = run_id
    if how is How.SHORT_LEASES:
        leases.LEASE_SECONDS, leases.HEARTBEAT_SECONDS = 18.0, 2.0
    if how is How.WITHOUT_LEASES:
        Leases.claim = lambda _leases, relations: Claim(frozenset(relations), {})
        Leases.write = _write_anyway
    forking = forked_dbt_commands(path_of_new_python()) if forks_dbt else nullcontext()
    job = dg.build_reconstructable_job(
        __name__, job_of.__name__, reconstructable_args=(str(folder), how is not How.STEP_IN_ITS_OWN_PROCESS)
    )
    definition = job.get_definition()
    (op,) = definition.graph.node_dict
    with forking, dg.DagsterInstance.from_config(str(home)) as instance:
        run_config = {"ops": {op: {"config": config}}}
        run = instance.create_run_for_job(definition, run_id=run_id, run_config=run_config)
        # What `dagster api execute_run` calls, which a run launcher starts.
        result = execute_run(job, run, instance)
    sys.exit(0 if result.success else 1)


def _write_anyway(self: Leases, relations: Collection[str], action: Callable[[sa.Connection], None]) -> None:
    del relations
    with self._engine.begin() as connection:
        action(connection)


class How(Enum):
    """How a worker executes its run."""

    ONE_PROCESS = "one process"
    STEP_IN_ITS_OWN_PROCESS = "step in its own process"
    WITHOUT_LEASES = "without leases"
    SHORT_LEASES = "short leases"


@dataclass
class Worker:
    """A worker that runs, seen from outside."""

    folder: Path
    home: Path
    config: dict[str, Any] = field(default_factory=dict)
    how: How = How.ONE_PROCESS
    forks_dbt: bool = False
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    was_killed: bool = False

    def __post_init__(self) -> None:
        self.process: BaseProcess = PROCESSES.Process(
            target=execute, args=(self.folder, self.home, self.run_id, self.config, self.how, self.forks_dbt)
        )
        self.process.start()

    @property
    def is_running(self) -> bool:
        return self.process.exitcode is None

    def kill(self, *, group: bool) -> None:
        """End the worker as the kernel does, with its dbt or without."""
        self.was_killed = True
        pid = self.process.pid
        try:
            (os.killpg if group else os.kill)(pid, signal.SIGKILL)
        except ProcessLookupError:
            # It has not made its group yet.
            os.kill(pid, signal.SIGKILL)
        self.process.join(30)

    def left_behind(self) -> list[psutil.Process]:
        """Return the processes of the worker's group that still run."""
        return [process for process in psutil.process_iter() if _group(process) == self.process.pid]

    @property
    def has_dbt(self) -> bool:
        """Whether a dbt of the worker's group runs."""
        return any(process.name() == "dbt" for process in self.left_behind())

    def bury(self, instance: dg.DagsterInstance) -> None:
        """Let the leases run out, once nothing writes any more: what a minute does.

        A step in a process of its own goes on without its run's worker, until it has built all that it is to build. Dagster
        may then leave it waiting for ever for the worker to take what it says.
        """
        wait_for(
            "dbt to end with its run", lambda: not self.left_behind() or self._step_has_ended(instance), seconds=240
        )
        for process in self.left_behind():
            process.kill()
        # The first worker may have been killed before it made the table.
        if engine := find_table(instance, _LEASES):
            with engine.begin() as connection:
                connection.execute(_LEASES.update().where(_LEASES.c.run_id == self.run_id).values(expires_at=0.0))

    def _step_has_ended(self, instance: dg.DagsterInstance) -> bool:
        steps = instance.get_run_step_stats(self.run_id)
        return bool(steps) and all(step.end_time is not None for step in steps)

    def finish(self, seconds: float) -> None:
        """Wait for its end; raise AssertionError when it fails or takes longer."""
        self.process.join(seconds)
        self.end()
        assert self.process.exitcode == 0, self.log()

    def end(self) -> None:
        """End it if it still runs, stopped or not."""
        if self.is_running:
            self.kill(group=True)

    def log(self) -> str:
        return f"{self.config}\n" + (self.folder.parent / f"{self.run_id}.log").read_text()[-6000:]


def _group(process: psutil.Process) -> int:
    try:
        return 0 if process.status() == psutil.STATUS_ZOMBIE else os.getpgid(process.pid)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return 0
