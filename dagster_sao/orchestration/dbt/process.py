"""One dbt process of a run: started, watched, and its log turned into events."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.core.state.state import VerdictStatus
from dagster_sao.orchestration.dbt.invocation_folders import mark_folder
from dagster_sao.orchestration.dbt.statuses import failed_start
from dagster_sao.orchestration.dbt.traces import TraceFile
from dagster_sao.orchestration.dbt.watchdog import ENDED
from dagster_sao.orchestration.environment import temporary_environment
from dagster_sao.orchestration.events.door import masked_lines
from dagster_sao.orchestration.leases import leases
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.private.dbt_commands import DbtCliInvocation, interrupts_afterwards, mask_stdout
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.read_files import read_manifest
from dagster_sao.warehouse.dbt_private.environment import (
    environment_of_commands,
    environment_of_dbt,
    other_dbt,
    settings_of_one_run,
)
from dbt_dagster_sao import BUILD_SECONDS, TEST_REQUEST, TRACE_FILE
from dbt_dagster_sao.data_tests.handover import AnsweredTest, DataTestRequest
from dbt_dagster_sao.database_file import FileRead
from dbt_dagster_sao.trace import Trace

_TRACES = "dagster_sao_traces.jsonl"
"""In the target folder of the invocation."""
_WATCHDOG = Path(__file__).with_name("watchdog.py")
_STOP_SECONDS = 15.0
_SHELL_SIGNALS = 128
_KILLS = frozenset({signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)})
"""The signals that a shell reports as the exit codes 137 and 143."""


_TEST_EVENTS = frozenset({"LogTestResult", "NodeFinished"})
"""The log events of a test that ended: dbt-core has the first, Fusion the second."""
_FUNCTION_EVENTS = frozenset({"LogFunctionResult", "NodeFinished"})
"""The log events of a function that was created, in the same order."""


_RESULTS = frozenset({"LogModelResult", "LogSeedResult", "LogSnapshotResult", *_TEST_EVENTS})


@dataclass(frozen=True, slots=True)
class DbtEvent:
    """One event of dbt's log, about a node or test."""

    raw: Mapping[str, Any]
    asset_events: Callable[[], list[Any]]
    """Returns the events that dagster-dbt makes of it."""

    @property
    def is_result(self) -> bool:
        """Whether it is the result of a node or test."""
        return self.raw["info"]["name"] in _RESULTS and bool(self.raw["data"].get("node_info"))

    @property
    def unique_id(self) -> str:
        """The node or test of the event; empty where it is about none."""
        return str(self._node.get("unique_id") or "")

    @property
    def resource_type(self) -> str:
        """The kind of resource of a result."""
        return str(self._node.get("resource_type"))

    @property
    def relation_name(self) -> str:
        """The relation that dbt has for the node of the event; empty where there is none."""
        return str((self._node.get("node_relation") or {}).get("relation_name") or "")

    @property
    def _node(self) -> Mapping[str, Any]:
        return self.raw["data"].get("node_info") or {}


@dataclass(frozen=True, slots=True)
class TestAnswer:
    """dbt's answer about one test."""

    __test__ = False  # pytest takes it for a test otherwise

    unique_id: str
    status: VerdictStatus
    failures: int | None
    answered: AnsweredTest | None = None
    """How it was answered, None where dbt just ran the test."""


def answer_in(event: Mapping[str, Any]) -> TestAnswer | None:
    """Return the answer about a test in an event of dbt's log; None where there is none, or the test was skipped."""
    data = event["data"]
    node = data.get("node_info") or {}
    if event["info"]["name"] not in _TEST_EVENTS or node.get("resource_type") not in {"test", "unit_test"}:
        return None
    # dbt-core logs the status of a unit test in only one of the two places.
    word = str(data.get("status") or node.get("node_status"))
    try:
        status = VerdictStatus({"success": "pass"}.get(word, word))
    except ValueError:
        return None
    failures = data.get("num_failures")
    return TestAnswer(node["unique_id"], status, int(failures) if failures is not None else None)


def function_created_in(event: Mapping[str, Any]) -> str | None:
    """Return the unique id of the function that dbt created, from an event of its log; None for any other event."""
    data = event["data"]
    node = data.get("node_info") or {}
    if event["info"]["name"] not in _FUNCTION_EVENTS or node.get("resource_type") != "function":
        return None
    return str(node["unique_id"]) if str(data.get("status") or node.get("node_status")) == "success" else None


class DbtStartError(DagsterSaoError):
    """The system did not let dbt start: a full disk, a folder that cannot be written, no more processes."""


class DbtProcess:
    """A dbt command that runs. It ends with its run, also when the run is killed."""

    def __init__(  # noqa: PLR0913, PLR0917 (what dbt is given)
        self,
        context: dg.AssetExecutionContext,
        dbt: DbtCliResource,
        project: OrchestratedProject,
        loaded: LoadedProject,
        arguments: Sequence[str],
        request: DataTestRequest | None = None,
        seconds: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Start dbt. The arguments name the tests to run: dbt adds no other test of the selected nodes.

        `request` tells how to answer data tests; without it dbt runs each. With `seconds`, how long each node is predicted to
        take, dbt begins with the longest path; without it by depth. Raises DbtStartError.
        """
        self._context = context
        self._project = project
        self._loaded = loaded
        environ = environment_of_dbt(project.dbt_project.project_dir)
        left_out = settings_of_one_run(environ)
        if other := other_dbt(dbt.dbt_executable):
            context.log.warning(other)
        if left_out:
            context.log.warning(
                f"{', '.join(left_out)} in the environment would make dbt deviate from the plan, so this is not passed on to"
                " dbt. Set it in the run's config or with an option instead."
            )
        self._requests: dict[str, str] = {}
        changes = environment_of_commands(environ, dbt.dbt_executable)
        with _system_errors_as_ours(), ExitStack() as undo:
            undo.callback(self._remove_requests)
            self._requests[TEST_REQUEST] = _write_request(request.to_json() if request is not None else "")
            self._requests[BUILD_SECONDS] = _write_request(json.dumps(dict(seconds)) if seconds else "")
            with interrupts_afterwards(), temporary_environment({**changes, TRACE_FILE: _TRACES, **self._requests}):
                self.invocation: DbtCliInvocation = dbt.cli(
                    arguments, manifest=loaded.manifest, dagster_dbt_translator=loaded.translator, raise_on_error=False
                )
                # Without its watchdog, dbt would go on after the leases of its run have ended.
                undo.callback(self.stop)
            mask_stdout(self.invocation, masked_lines)
            mark_folder(self.invocation.target_path, context.run.run_id)
            self._traces = TraceFile(self.invocation.target_path / _TRACES)
            self._watchdog = _start_watchdog(self.invocation.process)
            undo.pop_all()
        self.failed_start = ""
        """The hook of `on-run-start` that failed, known before any node ends: dbt builds them all the same."""
        self._logged: dict[str, str] = {}
        """The status of each node and test whose end dbt logged."""
        # dagster-dbt would select by itself if it had the context, so it gets the context afterwards.
        self.invocation.context = context
        self.invocation.project = project.dbt_project

    def events(self) -> Iterator[DbtEvent]:
        """Yield the events of dbt's log, until dbt has ended."""
        try:
            for event in self.invocation.stream_raw_events():
                dbt_event = DbtEvent(event.raw_event, partial(self._asset_events, event))
                self.failed_start = self.failed_start or failed_start(event.raw_event)
                if dbt_event.is_result:
                    data = event.raw_event["data"]
                    status = data.get("status") or data["node_info"].get("node_status")
                    self._logged[data["node_info"]["unique_id"]] = str(status).lower()
                yield dbt_event
        finally:
            self._dismiss_watchdog()
            self._remove_requests()
            self._traces.take()

    def _remove_requests(self) -> None:
        for file in filter(None, self._requests.values()):
            Path(file).unlink(missing_ok=True)

    def _asset_events(self, event: Any) -> list[Any]:  # noqa: ANN401 (dagster-dbt's class is private)
        return list(
            event.to_default_asset_events(
                manifest=self._loaded.manifest,
                dagster_dbt_translator=self._loaded.translator,
                context=self._context,
                target_path=self.invocation.target_path,
                project=self._project.dbt_project,
            )
        )

    def leases_renewed(self) -> None:
        """Send the watchdog a heartbeat, in any thread. Without one it ends dbt before the leases expire."""
        if self._watchdog is not None and self._watchdog.stdin is not None:
            # dbt has ended, or is about to.
            with suppress(OSError, ValueError):
                os.write(self._watchdog.stdin.fileno(), b"renewed\n")

    def stop(self) -> None:
        """End dbt from another thread: as ctrl-c does, and with force when that does not help."""
        process = self.invocation.process
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()

    def error(self) -> str:
        """Return why dbt did not end well, in one sentence; empty when it did."""
        error = self.invocation.get_error()
        if error is None:
            return ""
        if killed := self.killed_by():
            return f"{killed} What it had not finished was interrupted."
        return sentence(error)

    def killed_by(self) -> str:
        """Return in one sentence what killed dbt, which then reports nothing about its open builds; empty for any other end."""
        if self._watchdog is not None and self._watchdog.returncode == ENDED:
            return "dbt was ended because this run had no heartbeat: its process or its machine was frozen."
        code = self.invocation.process.returncode or 0
        # As the process itself ended, or as a shell around it reports it.
        number = -code if code < 0 else code - _SHELL_SIGNALS
        if number not in _KILLS and code >= 0:
            return ""
        hint = " The kernel does that when memory runs out." if number == signal.SIGKILL else ""
        return f"dbt was killed by {_signal_name(number)}.{hint}"

    def statuses(self) -> Mapping[str, str]:
        """Return the status of each node and test that dbt reached, by unique id. A killed dbt has only its log."""
        return {unique_id: result["status"] for unique_id, result in self.results().items()} or self._logged

    def results(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the result of each node and test that dbt reached, by unique id; empty when it wrote none."""
        try:
            results = self.invocation.get_artifact("run_results.json")["results"]
            return {result["unique_id"]: result for result in results if "status" in result}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def known(self) -> AbstractSet[str] | None:
        """Return the unique ids in dbt's own manifest, None where it wrote none."""
        try:
            manifest = read_manifest(self.invocation.target_path / "manifest.json")
        except (OSError, ValueError, DagsterSaoError):
            return None
        return {uid for kind in ("nodes", "unit_tests", "functions") for uid in manifest.get(kind) or ()}

    def compiled_sql(self, unique_id: str) -> str | None:
        """Return the compiled SQL of a node or test that has ended, None where dbt wrote none."""
        return compiled_sql(self.invocation.target_path, self._loaded.manifest, unique_id)

    def is_traced(self) -> bool:
        """Return whether dbt records the reads of nodes. Known once it logs a node: an unexpected dbt does not."""
        return self._traces.exists()

    def trace(self, unique_id: str) -> Trace | None:
        """Return the recorded reads of a node or test that has ended, None where dbt recorded none."""
        return self._traces.get(unique_id)

    def answered(self, test: str) -> AnsweredTest | None:
        """Return how a test that has ended was answered, None where dbt just ran it."""
        return self._traces.answered(test)

    def file_read(self) -> FileRead | None:
        """Return the DuckDB file that dbt read and its state, None where dbt does not record its reads."""
        return self._traces.file_read() if self._traces.exists() else None

    def _dismiss_watchdog(self) -> None:
        if self._watchdog is None or self._watchdog.stdin is None or self._watchdog.stdin.closed:
            return
        # Only when dbt has ended: a dbt that goes on without its run must be ended.
        message = b"done\n" if self.invocation.process.poll() is not None else b""
        self._watchdog.communicate(message)


def compiled_sql(target_path: Path, manifest: Mapping[str, Any], unique_id: str) -> str | None:
    """Return the compiled SQL of a node or test in one invocation, None where dbt wrote none.

    The places follow `ParsedNode.get_target_write_path` in dbt-core. For a microbatch model it is the SQL of one batch.
    """
    props: Mapping[str, Any] | None = manifest["nodes"].get(unique_id)
    if props is None or props.get("language") == "python":
        return None
    file = target_path / "compiled" / str(props["package_name"]) / str(props["original_file_path"])
    if file.name != Path(str(props["path"])).name:
        file /= str(props["path"])  # one of several in a file
    for path in (file, *sorted(file.with_suffix("").glob(f"{file.stem}_*"))):
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
    return None


@contextmanager
def _system_errors_as_ours() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"dbt cannot be started: {sentence(error)}"
        raise DbtStartError(msg) from error


def _write_request(text: str) -> str:
    """Return the path of a file with a request, which dbt reads; empty for no request."""
    if not text:
        return ""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json", delete=False) as file:
        file.write(text)
    return file.name


def _start_watchdog(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes] | None:
    if os.name != "posix" or process.poll() is not None:
        return None
    watchdog = subprocess.Popen(
        # Without the environment's packages it starts in an instant.
        [sys.executable, "-I", "-S", str(_WATCHDOG), *map(str, _patience())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # In a session of its own: whatever ends the process group of the run does not end it.
        start_new_session=True,
    )
    if watchdog.stdin is not None:
        watchdog.stdin.write(f"{process.pid}\n".encode())
        watchdog.stdin.flush()
    return watchdog


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _patience() -> tuple[float, float]:
    """Return how long a watchdog waits for a heartbeat, and for dbt to end: together less than a lease lasts."""
    return leases.LEASE_SECONDS * 2 / 3, leases.LEASE_SECONDS / 6
