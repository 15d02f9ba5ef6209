"""Real dbt in this process: what a subprocess would do, without starting one."""

from __future__ import annotations

import contextlib
import gc
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from dagster._core.errors import DagsterExecutionInterruptedError
from dagster_dbt import DbtCliInvocation, DbtCliResource
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.adapters.factory import FACTORY, cleanup_connections, reset_adapters
from dbt.cli.main import dbtRunner, dbtRunnerResult
from dbt_common.events.functions import msg_to_dict
from packaging.version import Version

PARTIAL_PARSE = "partial_parse.msgpack"
_QUIET = ("--quiet", "--no-use-colors", "--log-level-file", "none")
_RESULTS = frozenset({"LogModelResult", "NodeFinished"})
_STARTED, _FINISHED = "node_started_at", "node_finished_at"


class KilledError(Exception):
    """What every statement of a dbt that was killed meets: nothing more reaches the warehouse."""


class RunDiedError(Exception):
    """What ends a run in the midst of its events."""


def close_dbt_connections() -> None:
    """Close dbt-duckdb's database, which stays open in a process that lives on, as if the process had ended."""
    environment = DuckDBConnectionManager._ENV
    for adapter in FACTORY.adapters.values():
        for connection in adapter.connections.thread_connections.values():
            with contextlib.suppress(Exception):
                connection.handle.close()
    with contextlib.suppress(Exception):
        cleanup_connections()
    if environment is not None:
        environment.close()
    DuckDBConnectionManager.close_all_connections()
    reset_adapters()


def run_dbt(
    args: Sequence[str], folder: Path, target_path: Path, callback: Callable[[Any], None] | None = None
) -> dbtRunnerResult:
    """Run dbt with the project in `folder`."""
    command = [
        *_QUIET,
        *args,
        *("--project-dir", str(folder), "--profiles-dir", str(folder)),
        *("--target-path", str(target_path), "--log-path", str(target_path)),
    ]
    try:
        return dbtRunner(callbacks=[callback] if callback else []).invoke(command)
    finally:
        close_dbt_connections()


@dataclass
class Accident:
    """What befalls the next invocation, or the run around it. Zero: nothing."""

    kill_dbt_at: int = 0
    """dbt dies before its n-th statement."""
    run_survives: bool = False
    """Only dbt is killed, not the run."""
    lose_events_from: int = 0
    """The run dies when it is given its n-th event, though dbt ended well."""
    terminate: bool = False
    """Somebody terminates the run, which ends dbt: both before the statement that `kill_dbt_at` counts."""
    before_dbt: Callable[[], None] | None = None
    before_events: Callable[[], None] | None = None
    """What happens elsewhere after dbt ended, and before the run sees its events."""


@dataclass
class _EndedProcess:
    """What is left of a process."""

    args: Sequence[str]
    returncode: int
    stdout: None = None

    def wait(self, timeout: float | None = None) -> int:
        return self.returncode

    def poll(self) -> int:
        return self.returncode


@dataclass
class _Invocation(DbtCliInvocation):
    accident: Accident = field(default_factory=Accident)

    def stream_raw_events(self) -> Iterator[Any]:
        # dbt's success without events would read as an empty output of a process.
        for index, event in enumerate(super().stream_raw_events() if self._stdout else (), start=1):
            if index == self.accident.lose_events_from:
                raise RunDiedError
            yield event
        if self.accident.terminate:
            raise DagsterExecutionInterruptedError
        if self.accident.lose_events_from or (self.accident.kill_dbt_at and not self.accident.run_survives):
            raise RunDiedError


@dataclass
class Stage:
    """Where dbt runs next. One for the process: Dagster copies a resource before it is used."""

    accident: Accident = field(default_factory=Accident)
    offset: Callable[[], timedelta] = timedelta
    parsed: Path | None = None
    """A target folder whose parse can be taken up."""
    count: int = 0
    broken: set[str] = field(default_factory=set)
    """The nodes that dbt could not build."""


class InProcessDbt(DbtCliResource):
    """Runs dbt in this process, and gives its events, their times moved, as if a subprocess had printed them."""

    stage: ClassVar[Stage] = Stage()

    def cli(
        self,
        args: Sequence[str],
        *,
        raise_on_error: bool = True,
        manifest: Any = None,
        dagster_dbt_translator: Any = None,
        context: Any = None,
        target_path: Path | None = None,
    ) -> DbtCliInvocation:
        """Run dbt to its end, and return its invocation with the events still to be streamed."""
        stage = self.stage
        accident, stage.accident = stage.accident, Accident()
        stage.count += 1
        folder = Path(self.project_dir)
        target = folder / "target" / f"run-{stage.count % 2}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        if stage.parsed is not None and (stage.parsed / PARTIAL_PARSE).exists():
            shutil.copy(stage.parsed / PARTIAL_PARSE, target)
        if accident.before_dbt:
            accident.before_dbt()
        events, returncode = self._run(args, folder, target, accident)
        if accident.before_events:
            accident.before_events()
        invocation = _Invocation(
            process=_EndedProcess(["dbt", *args], returncode),  # type: ignore[arg-type]
            manifest=manifest or {},
            dagster_dbt_translator=dagster_dbt_translator,
            project_dir=folder,
            target_path=target,
            raise_on_error=raise_on_error,
            cli_version=Version("1.11"),
            accident=accident,
        )
        invocation._stdout = list(events)
        invocation._error_messages = [event["info"]["msg"] for event in events if event["info"]["level"] == "error"]
        return invocation

    def _run(
        self, args: Sequence[str], folder: Path, target: Path, accident: Accident
    ) -> tuple[list[dict[str, Any]], int]:
        events: list[dict[str, Any]] = []
        life = _Life(accident.kill_dbt_at)

        def collect(event: Any) -> None:
            if not life.is_over and (event.info.level != "debug" or event.info.name in _RESULTS):
                message = _moved(msg_to_dict(event), self.stage.offset())
                node = message["data"].get("node_info") or {}
                if event.info.name == "NodeFinished" and node.get("node_status") == "error":
                    self.stage.broken.add(node["node_name"])
                events.append(message)

        with life.limited():
            result = run_dbt([*args, "--target", self.target or "warehouse"], folder, target, collect)
        if life.is_over:
            # The connection that could not be closed hangs on the traceback.
            gc.collect()
            (target / "run_results.json").unlink(missing_ok=True)
            return events, -9
        return events, 0 if result.success else 1


class _Life:
    """Counts the statements of a dbt invocation, and ends it before the n-th: an open transaction is rolled back."""

    def __init__(self, statements: int) -> None:
        self._left = statements
        self._is_limited = statements > 0
        self.is_over = False

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        if not self._is_limited:
            yield
            return
        execute = DuckDBConnectionManager.add_query

        def add_query(manager: Any, *args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left <= 0:
                self.is_over = True
                raise KilledError
            return execute(manager, *args, **options)

        with patch.object(DuckDBConnectionManager, "add_query", add_query):
            yield


def _moved(event: dict[str, Any], offset: timedelta) -> dict[str, Any]:
    info: Mapping[str, Any] = event["data"].get("node_info") or {}
    times = {name: _later(str(info[name]), offset) for name in (_STARTED, _FINISHED) if info.get(name)}
    if times:
        event["data"]["node_info"] = {**info, **times}
    return event


def _later(text: str, offset: timedelta) -> str:
    return (datetime.fromisoformat(text) + offset).isoformat()
