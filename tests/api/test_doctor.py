"""The doctor: each rule finds what it is for, names the file and a remedy, and is silent otherwise."""

from __future__ import annotations

import os
from datetime import timedelta

import dagster as dg
import pytest
import yaml
from dagster_dbt import dbt_assets

from dagster_sao import StateAwareDbtTranslator, state_aware
from dagster_sao.api import Severity
from dagster_sao.api.doctor.examine import examine
from dagster_sao.api.doctor.findings import Findings, Patient
from dagster_sao.api.doctor.model_rules import LONG_UNCHANGED
from dagster_sao.api.sources import Look
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.state.state import LastBuild, SourceState, StateSnapshot
from dagster_sao.warehouse.dbt_private.environment import other_dbt
from dagster_sao.warehouse.probes.base import Observation, ProbeKind
from tests.core.manifests import manifest, model, seed, source
from tests.orchestration.shops import NOW, RAW, definitions, project_in

ALL = {"freshness": {"build_after": {"count": 1, "period": "hour", "updates_on": "all"}}}
HOURLY = {"freshness": {"build_after": {"count": 1, "period": "hour"}}}
VIEW = {"materialized": "view"}


def patient(folder, nodes, sources=(), schedules=(), adapter="duckdb", **known):
    """Return a project of these nodes, as the doctor sees it."""
    defs = definitions(folder, manifest(nodes, sources, adapter=adapter))
    project = project_in(defs)
    if schedules:
        defs = dg.Definitions.merge(defs, dg.Definitions(schedules=list(schedules)))
    return Patient(defs, project, project.load(), NOW, **known)


def found(case):
    return {(finding.rule, finding.node) for finding in examine(case)} - {("old-manifest", "")}


def daily(name, cron):
    job = dg.define_asset_job(f"{name}_job", selection=dg.AssetSelection.assets("orders"))
    return dg.ScheduleDefinition(name=name, job=job, cron_schedule=cron)


def test_a_healthy_project_has_no_findings(tmp_path):
    case = patient(tmp_path, [model("stg", RAW), model("orders", "stg")], [source("raw", "orders")])
    assert found(case) == set()


class Chosen(StateAwareDbtTranslator):
    """Leaves the condition of some models out, and replaces or extends that of others."""

    def get_asset_spec(self, manifest, unique_id, project):
        spec = super().get_asset_spec(manifest, unique_id, project)
        conditions = {
            "silent": None,
            "daily": dg.AutomationCondition.on_cron("@daily"),
            "careful": state_aware() & ~dg.AutomationCondition.in_progress(),
        }
        name = spec.key.path[-1]
        return spec.replace_attributes(automation_condition=conditions[name]) if name in conditions else spec


def test_models_without_the_condition_are_found(tmp_path):
    world = manifest([model(name) for name in ("silent", "daily", "careful", "plain", "orders")])
    defs = definitions(tmp_path, world, translator=Chosen(), exclude="plain")

    @dbt_assets(manifest=world, select="plain")
    def others(): ...

    @dg.asset
    def no_dbt_asset(): ...

    project = project_in(defs)
    merged = dg.Definitions.merge(defs, dg.Definitions(assets=[others, no_dbt_asset]))
    case = Patient(merged, project, project.load(), NOW)
    findings = [finding for finding in examine(case) if finding.rule == "not-state-aware"]
    assert {(finding.node, finding.file, finding.severity.value) for finding in findings} == {
        ("silent", "models/silent.sql", "warning"),
        ("plain", "models/plain.sql", "warning"),
        ("daily", "models/daily.sql", "info"),
    }
    of = {finding.node: finding for finding in findings}
    assert of["plain"].message.startswith("It is loaded by plain `@dbt_assets`")
    assert "build_state_aware_definitions" in of["plain"].remedy
    assert of["silent"].message == "It has no automation condition, so new data and changed code do not build it"
    assert "state_aware()" in of["silent"].remedy


def test_waiting_for_a_seed_or_what_reads_only_seeds_is_found(tmp_path):
    nodes = [
        seed("rates"),
        model("converted", "seed.shop.rates"),
        model("orders", RAW, "seed.shop.rates", config=ALL),
        model("totals", RAW, "converted", config=ALL),
        model("alone", RAW, config=ALL),
        model("any", RAW, "converted"),
    ]
    case = patient(tmp_path, nodes, [source("raw", "orders")])
    assert found(case) == {("waits-for-the-unchanging", "orders"), ("waits-for-the-unchanging", "totals")}
    (first, _) = examine(case)
    assert "rates (a seed)" in first.message
    assert first.file == "models/orders.sql"
    assert "updates_on: any" in first.remedy


@pytest.mark.parametrize(("age", "is_found"), [(LONG_UNCHANGED, True), (LONG_UNCHANGED - timedelta(days=1), False)])
def test_waiting_for_a_source_without_new_data_for_long_is_found(tmp_path, age, is_found):
    state = StateSnapshot(sources={RAW: SourceState("t", NOW - age)})
    nodes = [model("orders", RAW, "source.shop.raw.lines", config=ALL)]
    case = patient(tmp_path, nodes, [source("raw", "orders"), source("raw", "lines")], state=state)
    assert found(case) == ({("waits-for-the-unchanging", "orders")} if is_found else set())


@pytest.mark.parametrize(("times", "is_found"), [(1, False), (2, True)])
def test_a_model_whose_own_runs_change_what_it_reads_is_found(tmp_path, times, is_found):
    build = LastBuild(NOW, NOW, Fingerprint({}), {}, "v", "run", stirred={RAW: times})
    case = patient(
        tmp_path,
        [model("orders", RAW)],
        [source("raw", "orders")],
        state=StateSnapshot(builds={"model.shop.orders": build}),
    )
    assert ("own-effects", "orders") in found(case) or not is_found
    assert any("raw.orders moves in each run" in finding.message for finding in examine(case)) is is_found


def test_sources_that_cannot_be_tracked_or_asked_are_found(tmp_path):
    sources = [source("raw", "orders"), source("raw", "lines"), source("raw", "fine")]
    nodes = [model("orders", *(entry["unique_id"] for entry in sources))]
    look = Look(
        {
            RAW: Observation(None, ProbeKind.UNTRACKED, warning="raw.orders is a view"),
            "source.shop.raw.lines": Observation(None, ProbeKind.FIELD, error="raw.lines does not exist"),
            "source.shop.raw.fine": Observation("t", ProbeKind.FIELD),
        }
    )
    case = patient(tmp_path, nodes, sources, look=look)
    assert found(case) == {("untracked-source", "raw.orders"), ("source-fails", "raw.lines")}
    assert [finding.severity for finding in examine(case)] == [Severity.ERROR, Severity.WARNING]


def test_a_warehouse_that_does_not_answer_is_found(tmp_path):
    case = patient(tmp_path, [model("orders")], look=Look({}, "It is down."))
    assert found(case) == {("no-warehouse", "")}


@pytest.mark.parametrize(("adapter", "is_found"), [("sqlserver", True), ("snowflake", False)])
def test_trusting_metadata_that_misses_changes_is_found(tmp_path, adapter, is_found):
    trusting = source("raw", "orders", meta={"dagster_sao": {"trust_metadata": True}})
    case = patient(tmp_path, [model("orders", RAW)], [trusting], adapter=adapter)
    assert found(case) == ({("unsound-metadata", "raw.orders")} if is_found else set())


@pytest.mark.parametrize(
    ("output", "is_found"),
    [
        ({"type": "duckdb", "path": "a.duckdb"}, True),
        ({"type": "duckdb", "path": "a.duckdb", "retries": {"connect_attempts": 6}}, False),
        ({"type": "duckdb", "path": ":memory:"}, False),
        ({"type": "duckdb", "path": "md:cloud"}, False),
        ({"type": "postgres"}, False),
    ],
)
def test_a_duckdb_file_without_retries_is_found(tmp_path, output, is_found):
    case = patient(tmp_path, [model("orders")])
    profiles = {"shop": {"target": "dev", "outputs": {"dev": output, "other": {"type": "duckdb", "path": "b.duckdb"}}}}
    (tmp_path / "profiles.yml").write_text(yaml.safe_dump(profiles))
    assert found(case) == ({("no-retries", "")} if is_found else set())


def test_long_chains_of_views_are_found_at_their_end(tmp_path):
    chain = [model(f"v{i}", RAW if i == 0 else f"v{i - 1}", config=VIEW) for i in range(5)]
    short = [model(f"s{i}", RAW if i == 0 else f"s{i - 1}", config=VIEW) for i in range(4)]
    case = patient(tmp_path, [*chain, *short, model("orders", "v4")], [source("raw", "orders")])
    assert found(case) == {("view-chain", "v4")}


def test_a_waiting_time_on_a_view_is_found(tmp_path):
    case = patient(tmp_path, [model("stg", config={**VIEW, **HOURLY}), model("orders", "stg", config=HOURLY)])
    assert found(case) == {("build-after-on-view", "stg")}


@pytest.mark.parametrize(("cron", "is_found"), [("5 * * * *", True), ("*/15 * * * *", False), ("0 9 * * 1", False)])
def test_a_schedule_as_often_as_build_after_is_found(tmp_path, cron, is_found):
    case = patient(tmp_path, [model("orders", config=HOURLY)], schedules=[daily("hourly", cron)])
    assert found(case) == ({("cron-equals-build-after", "orders")} if is_found else set())


def test_sensors_that_are_off_and_a_missing_instance_are_found(tmp_path):
    nodes = [model("orders")]
    with dg.DagsterInstance.ephemeral() as instance:
        assert {rule for rule, _ in found(patient(tmp_path, nodes, instance=instance))} == {"sensor-off"}
    case = patient(tmp_path, nodes, instance_problem="DAGSTER_HOME is not set.")
    assert found(case) == {("no-instance", "")}
    assert examine(case).has(Severity.ERROR)


@pytest.mark.parametrize("file", ["models/orders.sql", "models/EU (old): v1/orders.sql"])
def test_settings_without_meaning_are_found_with_their_file(tmp_path, file):
    entry = model("orders", meta={"dagster_sao": {"rebuild_evry": "1d"}}, original_file_path=file)
    case = patient(tmp_path, [entry])
    (finding,) = (finding for finding in examine(case) if finding.rule == "setting")
    assert (finding.node, finding.file) == ("orders", file)
    assert finding.message.startswith("`meta.dagster_sao.rebuild_evry`")


def test_a_manifest_older_than_the_files_is_found(tmp_path):
    case = patient(tmp_path, [model("orders")])
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "orders.sql").write_text("select 2 as id")
    (finding,) = (finding for finding in examine(case) if finding.rule == "old-manifest")
    assert (
        finding.message
        == "models/orders.sql was written after the manifest was parsed, so the plan does not include it"
    )


def test_findings_print_and_are_json(tmp_path):
    findings = examine(patient(tmp_path, [model("stg", config={**VIEW, **HOURLY})]))
    assert "build-after-on-view" in str(findings)
    assert findings.to_dict()["findings"][-1]["rule"] == "build-after-on-view"
    assert "nothing found" in str(Findings("shop", ()))


def test_dbt_state_is_reported_as_off_in_runs(tmp_path, monkeypatch):
    case = patient(tmp_path, [model("stg", RAW)], [source("raw", "orders")])
    assert found(case) == set()
    monkeypatch.setenv("DBT_ENGINE_MANAGE_STATE", "true")
    assert found(case) == {("dbt-state", "")}


def test_a_dbt_of_another_environment_is_found(tmp_path, monkeypatch):
    case = patient(tmp_path, [model("stg", RAW)], [source("raw", "orders")])
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "dbt").write_text("#!/bin/sh\necho 'installed: 1.5.0'\n")
    (scripts / "dbt").chmod(0o755)
    monkeypatch.setenv("PATH", str(scripts), prepend=os.pathsep)
    other_dbt.cache_clear()
    assert found(case) == {("other-dbt", "")}
    other_dbt.cache_clear()
