"""Each private part of Dagster and dagster-dbt that we use, by name, with what we rely on.

An upgrade that moves one fails here first, and says which.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.context.system import StepExecutionContext
from dagster._daemon.sensor import MIN_INTERVAL_LOOP_TIME
from dagster_dbt import DbtProject

import dagster_sao
from dagster_sao.orchestration.definitions import assembly
from dagster_sao.orchestration.private import automation, dagster_internals, dbt_commands

# Module, name, and the parameters or attributes that we rely on.
RELIED_ON = [
    ("dagster._core.asset_graph_view.serializable_entity_subset", "SerializableEntitySubset", ["key", "value"], []),
    (
        "dagster._core.definitions.automation_tick_evaluation_context",
        "AutomationTickEvaluationContext",
        [
            "evaluation_id",
            "instance",
            "asset_graph",
            "cursor",
            "materialize_run_tags",
            "observe_run_tags",
            "auto_observe_asset_keys",
            "asset_selection",
            "emit_backfills",
            "logger",
        ],
        ["evaluate"],
    ),
    (
        "dagster._core.definitions.declarative_automation.automation_context",
        "AutomationContext",
        [],
        ["key", "asset_graph", "asset_graph_view", "evaluation_time", "candidate_subset", "get_empty_subset"],
    ),
    (
        "dagster._core.definitions.declarative_automation.serialized_objects",
        "AutomationConditionEvaluation",
        [
            "condition_snapshot",
            "start_timestamp",
            "end_timestamp",
            "true_subset",
            "candidate_subset",
            "subsets_with_metadata",
            "child_evaluations",
        ],
        [],
    ),
    (
        "dagster._core.definitions.declarative_automation.serialized_objects",
        "AutomationConditionNodeSnapshot",
        ["class_name", "description", "unique_id", "label", "name", "operator_type"],
        [],
    ),
    ("dagster._core.definitions.sensor_definition", "wrap_sensor_evaluation", ["sensor_name", "fn"], []),
    ("dagster._core.event_api", "EventRecordsFilter", ["event_type", "after_cursor"], []),
    ("dagster._core.events", "BATCH_WRITABLE_EVENTS", [], []),
    (
        "dagster._core.events",
        "DagsterEventType",
        [],
        ["ASSET_MATERIALIZATION", "ASSET_OBSERVATION", "ASSET_WIPED"],
    ),
    ("dagster._core.events", "EngineEventData", ["metadata"], []),
    (
        "dagster._core.execution.context.system",
        "StepExecutionContext",
        [],
        ["step", "run_id", "job_name", "event_tags", "log", "get_output_asset_keys"],
    ),
    ("dagster._core.execution.stats", "StepEventStatus", [], ["IN_PROGRESS"]),
    ("dagster._core.instance.utils", "RUNLESS_RUN_ID", [], []),
    ("dagster._core.storage.asset_check_execution_record", "AssetCheckExecutionRecord", [], ["event"]),
    ("dagster._core.definitions.run_request", "InstigatorType", [], ["SENSOR", "SCHEDULE"]),
    ("dagster._core.storage.dagster_run", "FINISHED_STATUSES", [], []),
    ("dagster._core.storage.dagster_run", "NOT_FINISHED_STATUSES", [], []),
    ("dagster._core.storage.dagster_run", "RunsFilter", ["run_ids", "statuses", "tags", "updated_after"], []),
    ("dagster._core.storage.event_log", "EventLogStorage", [], ["store_event", "store_event_batch"]),
    (
        "dagster._core.storage.event_log",
        "SqliteEventLogStorage",
        [],
        [
            "prepare_insert_event",
            "run_connection",
            "index_connection",
            "store_asset_check_event",
            "path_for_shard",
            "conn_string_for_shard",
            "_connect",
            "has_table",
        ],
    ),
    ("dagster._core.scheduler.instigation", "InstigatorState", [], ["origin", "instigator_name", "selector_id"]),
    ("dagster._core.scheduler.instigation", "TickStatus", [], ["STARTED"]),
    ("dagster._core.storage.runs.sql_run_storage", "SqlRunStorage", [], ["connect"]),
    (
        "dagster._daemon.asset_daemon",
        "asset_daemon_cursor_from_instigator_serialized_cursor",
        ["serialized_cursor", "asset_graph"],
        [],
    ),
    ("dagster._daemon.asset_daemon", "asset_daemon_cursor_to_instigator_serialized_cursor", ["cursor"], []),
    ("dagster._utils.interrupts", "capture_interrupts", [], []),
    ("dagster._utils.interrupts", "pop_captured_interrupt", [], []),
    ("dagster_shared.check", "CheckError", [], []),
    ("dagster_dbt.asset_utils", "DAGSTER_DBT_MANIFEST_METADATA_KEY", [], []),
    ("dagster_dbt.asset_utils", "DAGSTER_DBT_UNIQUE_ID_METADATA_KEY", [], []),
    ("dagster_dbt.asset_utils", "build_dbt_specs", ["translator", "manifest", "select", "exclude", "project"], []),
    (
        "dagster_dbt.asset_utils",
        "get_asset_check_key_for_test",
        ["manifest", "dagster_dbt_translator", "test_unique_id", "project"],
        [],
    ),
    ("dagster_dbt.compat", "DBT_PYTHON_VERSION", [], ["major"]),
    ("dagster_dbt.components.dbt_project.scaffolder", "DbtProjectComponentScaffolder", [], ["scaffold"]),
    ("dagster_dbt.core", "dbt_cli_invocation", [], ["subprocess"]),
    ("dagster_dbt.core", "resource", [], ["pushd"]),
    (
        "dagster_dbt.core.dbt_cli_invocation",
        "DbtCliInvocation",
        ["context", "project"],
        ["stream_raw_events", "get_artifact", "get_error", "is_successful", "target_path"],
    ),
    (
        "dagster_dbt.core.dbt_event_iterator",
        "DbtEventIterator",
        ["events", "dbt_cli_invocation"],
        ["fetch_row_counts", "fetch_column_metadata", "with_insights"],
    ),
    ("dagster_dbt.dbt_manifest", "validate_manifest", ["manifest"], []),
    ("dagster_dbt.dbt_project", "DagsterDbtProjectPreparer", ["prepare_project_cli_args"], []),
    ("dagster_dbt.dbt_project", "DbtProject", ["prepare_project_cli_args"], ["preparer"]),
    ("dagster_dbt.dbt_project", "using_dagster_dev", [], []),
    ("dagster_dbt.dbt_project_manager", "DbtProjectManager", [], ["prepare", "sync", "get_project"]),
    ("dagster_dbt.dbt_project_manager", "RemoteGitDbtProjectManager", [], ["get_project"]),
    ("dagster_dbt.utils", "select_unique_ids", ["select", "exclude", "selector", "project", "manifest_json"], []),
]


def imported(path):
    """Return the (module, name) pairs that a file imports from anywhere."""
    tree = ast.parse(path.read_text())
    return {
        (node.module, alias.name) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }


@pytest.mark.parametrize(
    ("module", "name", "parameters", "attributes"), RELIED_ON, ids=lambda v: v if isinstance(v, str) else ""
)
def test_it_is_where_it_was_and_takes_what_we_give(module, name, parameters, attributes):
    found = getattr(importlib.import_module(module), name)
    if parameters:
        assert set(parameters) <= set(inspect.signature(found).parameters)
    known = {*dir(found), *getattr(found, "__annotations__", {}), *getattr(found, "_fields", ())}
    assert set(attributes) <= known


def test_every_private_import_is_named_here():
    ours = {
        (m, n)
        for module in (automation, dagster_internals, dbt_commands)
        for m, n in imported(Path(module.__file__))
        if m and m.startswith(("dagster.", "dagster_dbt.", "dagster_shared."))
    }
    assert ours == {(module, name) for module, name, *_ in RELIED_ON}


def test_no_other_module_of_the_package_imports_what_is_private():
    root = Path(dagster_sao.__file__).parent
    strays = {
        (path.name, module)
        for path in root.rglob("*.py")
        for module, _ in imported(path)
        if module and module.startswith(("dagster._", "dagster_shared", "dagster_dbt."))
    }
    assert {name for name, _ in strays} == {"automation.py", "dagster_internals.py", "dbt_commands.py"}


def test_the_event_log_is_asked_in_the_way_we_ask():
    storage = dg.DagsterInstance.ephemeral().event_log_storage
    assert {"event_records_filter", "ascending"} <= set(inspect.signature(storage.get_event_records).parameters)
    assert storage.get_maximum_record_id() in {None, 0}


def test_a_run_knows_the_checks_that_it_was_not_asked_for():
    keys = {name: dg.AssetCheckKey(dg.AssetKey(name), "check") for name in "ab"}

    @dg.asset
    def a(context):
        seen.append(dagster_internals.all_check_keys(context))

    @dg.asset
    def b():
        pass

    @dg.asset_check(asset="a", name="check")
    def check_a():
        return dg.AssetCheckResult(passed=True)

    @dg.asset_check(asset="b", name="check")
    def check_b():
        return dg.AssetCheckResult(passed=True)

    seen = []
    dg.materialize([a, b, check_a, check_b], selection=["a"], instance=dg.DagsterInstance.ephemeral())
    assert seen == [set(keys.values())]


@pytest.mark.parametrize("in_order", [True, False])
def test_dagster_lists_the_assets_of_a_step_once_and_still_checks_their_order(monkeypatch, in_order):
    keys, listed = [dg.AssetKey(name) for name in ("parent", "child", "grandchild")], []
    original = StepExecutionContext.get_output_asset_keys
    monkeypatch.setattr(StepExecutionContext, "get_output_asset_keys", lambda self: listed.append(1) or original(self))
    specs = [dg.AssetSpec(key, deps=keys[n - 1 : n] if n else [], skippable=True) for n, key in enumerate(keys)]

    @dg.multi_asset(specs=specs, can_subset=True)
    def models(context):
        before.append(len(listed))
        dagster_internals.remember_outputs(context)
        yield from map(dg.MaterializeResult, keys if in_order else reversed(keys))

    before = []
    instance = dg.DagsterInstance.ephemeral()
    if in_order:
        assert dg.materialize([models], instance=instance).success
        assert len(listed) == before[0] + 1
    else:
        with pytest.raises(dg.DagsterInvariantViolationError, match="topological"):
            dg.materialize([models], instance=instance)


def test_who_listens_to_a_run_is_where_we_tell_them():
    instance, heard = dg.DagsterInstance.ephemeral(), []
    dagster_internals.listen_to_run(instance, "run", heard.append)
    assert len(instance._subscribers["run"]) == 1
    assert callable(dg.OpExecutionContext.get_step_execution_context)


def test_a_sensor_result_takes_evaluations_though_it_does_not_say_so():
    evaluation = automation.evaluation_node(
        dg.AssetKey("a"), "why", unique_id="x", value=True, timestamp=0.0, children=()
    )
    result = automation.sensor_result([], "cursor", [evaluation])
    assert result.automation_condition_evaluations == [evaluation]


def test_a_sensor_evaluates_through_the_functions_that_we_replace():
    sensor = dg.AutomationConditionSensorDefinition("s", target="*", use_user_code_server=True)
    assert {"_raw_fn", "_evaluation_fn"} <= set(vars(sensor))


def test_an_automation_result_has_what_our_reason_is_added_to():
    found = {*dir(dg.AutomationResult)}
    assert {
        "value_hash",
        "serializable_evaluation",
        "condition_unique_id",
        "true_subset",
        "end_timestamp",
        "key",
    } <= found


def test_a_project_tells_how_it_is_parsed(tmp_path):
    (tmp_path / "dbt_project.yml").write_text("name: shop")
    assert dagster_internals.prepare_arguments(DbtProject(tmp_path)) == ["parse", "--quiet"]
    assert dagster_internals.prepare_arguments(DbtProject(tmp_path, prepare_project_cli_args=["compile"])) == [
        "compile"
    ]


def test_a_tick_of_a_schedule_uses_the_instance_that_it_is_lent(tmp_path):
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance, dg.build_schedule_context(instance) as context:
        dagster_internals.lend_instance(context, instance)
        assert context.instance is instance


def test_the_daemon_looks_for_due_sensors_as_often_as_their_intervals_assume():
    assert MIN_INTERVAL_LOOP_TIME == assembly._DAEMON_SECONDS
