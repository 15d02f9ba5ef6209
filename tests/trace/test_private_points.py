"""Every private part of dbt that the trace depends on. A failure here names what an upgrade has moved."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from dagster_sao.orchestration.dbt.traces import TraceFile
from dbt_dagster_sao import TRACE_FILE, plugin, stage
from dbt_dagster_sao.database_file import FileOpened, FileRead, database_state
from dbt_dagster_sao.private_points import context, nodes, points
from dbt_dagster_sao.private_points.point import Point
from dbt_dagster_sao.private_points.points import FILE_POINTS, POINTS, QUEUE_POINTS, START_POINTS, TEST_POINTS
from dbt_dagster_sao.proxies import WATCHED
from tests.support.dbt_version import DBT_VERSION
from tests.trace.conftest import FILES, invoke, node_lines, write

# What is wrapped, and the parameters that the wrappers rely on.
WRAPPED = {
    ("dbt.task.base", "BaseRunner", "safe_run"): ["self", "manifest"],
    ("dbt.compilation", "Compiler", "_compile_code"): ["self", "node", "manifest", "extra_context"],
    ("dbt.clients.jinja", "MacroGenerator", "__call__"): ["self", "args", "kwargs"],
    ("dbt.context.base", "BaseContext", "__init__"): ["self", "cli_vars"],
    ("dbt.context.providers", "ProviderContext", "to_dict"): ["self"],
    ("dbt.clients", "jinja", "add_rendered_test_kwargs"): ["context", "node", "capture_macros"],
    ("dbt.context.base", "Var", "__call__"): ["self", "var_name", "default"],
    ("dbt.context.base", "Var", "has_var"): ["self", "var_name"],
    ("dbt.context.providers", "RuntimeConfigObject", "_lookup"): ["self", "name", "default"],
    ("dbt.context.providers", "RuntimeConfigObject", "_lookup_meta"): ["self", "name", "default"],
    ("dbt.context.providers", "RuntimeDatabaseWrapper", "__getattr__"): ["self", "name"],
}
OF_DATA_TESTS = {("dbt.task.test", "TestRunner", "execute_data_test"): ["self", "data_test", "manifest"]}
OF_THE_QUEUE = {
    ("dbt.graph.queue", "GraphQueue", "_get_scores"): ["self", "graph"],
    ("dbt.graph.queue", "GraphQueue", "get"): ["self", "block", "timeout"],
    ("dbt.task.runnable", "GraphRunnableTask", "run_queue"): ["self", "pool"],
}
OF_THE_START = {("dbt.task.run", "RunTask", "get_hook_sql"): ["self", "adapter", "hook"]}
OF_DUCKDB = {
    ("dbt.adapters.duckdb.environments", "Environment", "initialize_db"): ["cls", "creds"],
    ("dbt.adapters.duckdb.environments.local", "LocalEnvironment", "close"): ["self"],
}
# What older versions do not have: without it, what is traced leaves out that kind of reads.
SINCE = {"_lookup_meta": (1, 11)}
# What is imported beside.
IMPORTED = {
    ("dbt.adapters.factory", "get_adapter_package_names"),
    ("dbt.flags", "get_flags"),
    ("dbt.task.test", "TestResultData"),
    ("dbt_common.context", "get_invocation_context"),
    ("dbt.plugins.manager", "dbtPlugin"),
}
# What is said of dbt's objects in the code of these.
TOUCHED = {
    ("dbt.context.base", "BaseContext"): ["self._ctx"],
    ("dbt.context.base", "Var"): ["self._context", "self._node", "self._merged"],
    ("dbt.context.providers", "ProviderContext"): ["self.model", "self.provider"],
    ("dbt.context.providers", "RuntimeConfigObject"): ["self.model"],
    ("dbt.task.base", "BaseRunner"): ["self.node", "self.adapter", "self.config"],
    ("dbt.task.run", "RunTask"): [
        "sql = self.get_hook_sql(",
        "self.compiler.compile_node(hook, self.manifest, extra_context)",
    ],
    ("dbt.task.test", "TestResultData"): [
        "failures: int",
        "should_warn: bool",
        "should_error: bool",
        "adapter_response:",
    ],
    ("dbt.task.test", "TestRunner"): ["self.execute_data_test(test, manifest)", "self.adapter.pre_model_hook("],
    ("dbt.task.compile", "CompileRunner"): ["self.compiler.compile_node(self.node, manifest, {})"],
    ("dbt.compilation", "Compiler"): ["write: bool=True", "node.compiled_code = "],
    ("dbt.task.runnable", "GraphRunnableTask"): [
        "num_threads = self.config.threads",
        "DbtThreadPool(num_threads",
        "self.job_queue.mark_done(result.node.unique_id)",
        "self._flattened_nodes.append(self.manifest.nodes[uid])",
    ],
    ("dbt.graph.queue", "GraphQueue"): [
        "self._scores = self._get_scores(self.graph)",
        "self.inner.put((self._scores[node], node))",
        "PriorityQueue()",
        "self.in_progress.add(node_id)",
        "self.in_progress.remove(node_id)",
        "self.some_task_done = threading.Condition(self.lock)",
        "self.some_task_done.notify_all()",
    ],
    ("dbt.adapters.cache", "RelationsCache"): ["self.relations", "self.schemas"],
    ("dbt.adapters.reference_keys", None): ["_ReferenceKey", "lowercase(relation.database)"],
    ("dbt.adapters.duckdb.environments", "Environment"): ["duckdb.connect(creds.path, read_only=False, config=config)"],
    ("dbt.adapters.duckdb.environments.local", "LocalEnvironment"): [
        "self.conn = self.initialize_db(self.creds",
        "self.conn = None",
    ],
    ("dbt_common.clients.jinja", "BaseMacroGenerator"): ["self.context"],
    ("dbt_common.clients.jinja", "CallableMacroGenerator"): ["self.macro"],
}


def test_each_point_is_where_it_was_and_is_called_as_we_expect():
    assert {(point.module, point.owner, point.name) for point in POINTS} == set(WRAPPED)
    assert {(point.module, point.owner, point.name) for point in FILE_POINTS} == set(OF_DUCKDB)
    assert {(point.module, point.owner, point.name) for point in TEST_POINTS} == set(OF_DATA_TESTS)
    assert {(point.module, point.owner, point.name) for point in QUEUE_POINTS} == set(OF_THE_QUEUE)
    assert {(point.module, point.owner, point.name) for point in START_POINTS} == set(OF_THE_START)
    wrapped = {**WRAPPED, **OF_DUCKDB, **OF_DATA_TESTS, **OF_THE_QUEUE, **OF_THE_START}
    for (module, owner, name), parameters in wrapped.items():
        if SINCE.get(name, ()) > DBT_VERSION:
            continue
        found = inspect.getattr_static(getattr(importlib.import_module(module), owner), name)
        # Another test of this process may have wrapped it already.
        found = list(inspect.signature(inspect.unwrap(getattr(found, "__func__", found))).parameters)
        assert found[: len(parameters)] == parameters, name


@pytest.mark.parametrize(("module", "owner"), TOUCHED, ids=str)
def test_the_objects_of_dbt_have_the_attributes_that_we_touch(module, owner):
    found = importlib.import_module(module)
    # The source of the file: a wrapped method would show our own.
    text = Path(found.__file__).read_text()
    tree = ast.parse(text)
    if owner is not None:
        (tree,) = (each for each in ast.walk(tree) if isinstance(each, ast.ClassDef) and each.name == owner)
    assert [touch for touch in TOUCHED[module, owner] if touch not in ast.unparse(tree)] == []


def test_a_context_has_what_is_watched():
    from dbt.context.providers import ModelContext

    assert set(ModelContext._context_members_) >= WATCHED | stage.MEMBERS


def test_every_import_of_dbt_is_named_here():
    found = set()
    for file in (Path(plugin.__file__), *Path(points.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"dbt", "dbt_common"}:
                found |= {(node.module, alias.name) for alias in node.names}
    assert found == IMPORTED


@pytest.fixture
def small(tmp_path):
    kept = {name: text for name, text in FILES.items() if name.endswith((".sql", "project.yml", "profiles.yml"))}
    kept = {name: text for name, text in kept.items() if not name.startswith(("models", "tests"))}
    model = "select {{ var('a_1') }} as x, {{ wrapped('X') == 'none' }} as y"
    write(tmp_path, {**kept, "models/plain.sql": model})
    return tmp_path.resolve()


@pytest.mark.parametrize(
    "moved", [point for point in POINTS if point.kinds], ids=lambda point: f"{point.owner}.{point.name}"
)
def test_where_a_point_is_missing_the_trace_says_which_kinds_it_covers(monkeypatch, moved):
    other = Point(moved.module, moved.owner, "moved_elsewhere", moved.wrap, moved.kinds)
    monkeypatch.setattr(points, "POINTS", tuple(other if point is moved else point for point in POINTS))
    everything = stage.KINDS.union(*(point.kinds for point in POINTS))
    assert points.install() == everything - moved.kinds


@pytest.mark.parametrize(
    "moved", [point for point in POINTS if not point.kinds], ids=lambda point: f"{point.owner}.{point.name}"
)
def test_without_an_essential_point_nothing_is_traced(monkeypatch, moved):
    other = Point("dbt.moved_elsewhere", moved.owner, moved.name, moved.wrap)
    monkeypatch.setattr(points, "POINTS", tuple(other if point is moved else point for point in POINTS))
    assert points.install() is None


def test_dbt_goes_on_when_recording_fails(small, monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(stage, "env_digest", fail)
    built = invoke(small, "build", "--select", "plain")
    assert "plain" not in built.traces
    assert (small / "target" / "compiled" / "shop" / "models" / "plain.sql").exists()


def test_a_node_whose_context_is_not_understood_has_no_trace(small, monkeypatch):
    for module in (context, nodes):
        monkeypatch.setattr(module, "traced", lambda _context: None)
    assert invoke(small, "build", "--select", "plain").traces == {}


def test_another_invocation_of_the_process_is_not_traced(small):
    from tests.histories.inprocess_dbt import run_dbt

    traced = invoke(small, "build", "--select", "plain")
    assert run_dbt(["build", "--select", "plain"], small, small / "target").success
    assert node_lines(small / "target" / "traces.jsonl") == traced.lines


def test_a_dbt_process_finds_the_package_and_writes_beside_its_artifacts(small):
    environment = {**os.environ, TRACE_FILE: "traces.jsonl", "DBT_TARGET_PATH": str(small / "elsewhere")}
    command = [sys.executable, "-c", "from dbt.cli.main import cli; cli()", "--quiet", "build", "--select", "plain"]
    folders = ["--project-dir", str(small), "--profiles-dir", str(small)]
    subprocess.run([*command, *folders], env=environment, check=True, cwd=small)
    *_, line = node_lines(small / "elsewhere" / "traces.jsonl")
    assert '"node":"model.shop.plain"' in line


@pytest.mark.parametrize("keeps_open", [True, False])
def test_a_dbt_that_others_do_not_disturb_says_from_which_state_of_its_database_it_read(small, keeps_open):
    profile = (small / "profiles.yml").read_text().replace("threads: 4", f"threads: 1, keep_open: {keeps_open}")
    (small / "profiles.yml").write_text(profile)
    duckdb.connect(str(small / "warehouse.duckdb")).execute("create table t as select 1 as x").close()
    before = database_state(small / "warehouse.duckdb")
    invoke(small, "build", "--select", "plain")
    found = TraceFile(small / "target" / "traces.jsonl")
    path = str(small / "warehouse.duckdb")
    assert (found.file_read(), before != "") == (FileRead(path, before), True)
    opened = [event for event in found._file_events if isinstance(event, FileOpened)]
    assert (opened[0], len(opened) > 1) == (FileOpened(path, before, before), not keeps_open)


def test_it_costs_a_dbt_that_is_not_traced_next_to_nothing():
    program = "import sys, dbt_dagster_sao as us; assert us.plugins == []; print(*sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != TRACE_FILE}
    run = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    loaded = set(run.stdout.split())
    assert {name for name in loaded if name.startswith("dbt")} == {"dbt_dagster_sao"}
    assert not {"json", "dataclasses", "hashlib"} & loaded
