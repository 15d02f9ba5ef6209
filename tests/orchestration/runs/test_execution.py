"""Runs of a small real project with real dbt on DuckDB: four runs, looked at from all sides."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from dagster_dbt import DbtProject

from dagster_sao import build_state_aware_definitions
from dagster_sao.core.state.state import FailureKind
from dagster_sao.orchestration.dbt.sightings import code_read_by_dbt, manifest_of_dbt, read_moment
from dagster_sao.orchestration.events.event_schema import (
    BUILD_KEY,
    DECISION_KEY,
    FAILURE_KEY,
    PROJECT_TAG,
    REASON_CODE_KEY,
    REASON_KEY,
    VERDICT_AT_KEY,
    VERDICT_RUN_KEY,
    ReusedNode,
    reused_nodes,
)
from dagster_sao.orchestration.events.record_json import build_from_json
from dagster_sao.orchestration.private.dagster_internals import events_of_run, metadata_of_engine_event
from dagster_sao.orchestration.state.event_log import EventLogState
from dagster_sao.orchestration.state.relation_notes import read_columns
from tests.conftest import run_dbt
from tests.core.manifests import manifest, model, seed, source
from tests.orchestration.shops import load_project, project_in
from tests.support.dbt_version import DBT_VERSION

PROJECT = Path(__file__).parent / "shop"
PICKY = "accepted_values_picky_id__99"
WARNS = "accepted_values_orders_id__99"
LOADED_AT = "2026-01-01 10:00:00"


@dataclass
class Run:
    """One run, and the state after it."""

    result: dg.ExecuteInProcessResult
    state: object
    started_at: datetime
    reused: dict[str, ReusedNode]
    """What it reported as reused, by name."""

    def events(self, event_type):
        return [e for e in self.result.all_events if e.event_type is event_type]

    def metadata(self, name):
        """Return the metadata of a model's materialization or observation, as plain values."""
        found = self.built.get(name) or self.observed[name]
        return {key: getattr(value, "value", value) for key, value in found.metadata.items()}

    @property
    def built(self):
        events = self.events(dg.DagsterEventType.ASSET_MATERIALIZATION)
        return {e.asset_key.path[-1]: e.step_materialization_data.materialization for e in events}

    @property
    def observed(self):
        events = self.events(dg.DagsterEventType.ASSET_OBSERVATION)
        return {e.asset_key.path[-1]: e.asset_observation_data.asset_observation for e in events}

    @property
    def checks(self):
        events = self.events(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        return {e.event_specific_data.check_name: e.event_specific_data for e in events}


@dataclass
class Story:
    """A first run of all that the sensor asked for, the same again, one model by hand, and one check alone."""

    first: Run
    again: Run
    by_hand: Run
    check_only: Run
    database: Path
    names: dict[str, str]
    """The name of each test, by unique id."""

    def count(self, table):
        with closing(duckdb.connect(str(self.database), read_only=True)) as connection:
            return connection.execute(f"select count(*) from {table}").fetchone()[0]


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    database = folder / "store.duckdb"
    shutil.copytree(PROJECT, folder / "project")
    with closing(duckdb.connect(str(database))) as connection:
        connection.execute("create schema raw")
        connection.execute(f"create table raw.orders as select 1 as id, timestamp '{LOADED_AT}' as loaded_at")
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("STORE_DATABASE", str(database))
        run_dbt(folder / "project", "parse")
        defs = build_state_aware_definitions(DbtProject(folder / "project"))
        project = project_in(defs)
        (models,) = (a for a in defs.assets if isinstance(a, dg.AssetsDefinition))

        def run(selection=None, **tags):
            started_at = datetime.now(timezone.utc)
            result = dg.materialize(
                list(defs.assets),
                selection=selection or dg.AssetSelection.assets(*models.keys),
                resources=defs.resources,
                instance=instance,
                tags=tags,
                raise_on_error=False,
            )
            state = EventLogState(instance, project.name).snapshot(project.load().keys, datetime.now(timezone.utc))
            state = read_columns(instance, project.state_name).added_to(state, project.load().project)
            said = [record.event_log_entry.dagster_event for record in events_of_run(instance, result.run_id)]
            reused = [node for event in said for node in reused_nodes(metadata_of_engine_event(event))]
            return Run(result, state, started_at, {node.unique_id.split(".")[-1]: node for node in reused})

        automated = {PROJECT_TAG: "store"}
        checks = dg.AssetSelection.checks(*(key for key in models.check_keys if key.asset_key.path[-1] == "orders"))
        yield Story(
            run(**automated),
            run(**automated),
            run(dg.AssetSelection.assets("area")),
            run(checks),
            database,
            {uid: test.name for uid, test in project.load().project.graph.tests.items()},
        )


# What is built


def test_a_first_run_builds_what_can_be_built_and_fails_for_the_rest(story):
    assert not story.first.result.success
    assert set(story.first.built) == {"stg", "orders", "picky", "area", "inner"}
    assert story.count("main.orders") == 1


def test_a_build_leaves_its_record_in_the_materialization(story):
    metadata = story.first.metadata("orders")
    assert (metadata[DECISION_KEY], metadata[REASON_CODE_KEY]) == ("build", "never_built")
    assert metadata[REASON_KEY] == "Not built before in this environment"
    build = build_from_json(metadata[BUILD_KEY])
    assert build == story.first.state.builds["model.store.orders"]
    assert build.run_id == story.first.result.run_id
    assert story.first.started_at <= build.started_at <= build.ended_at
    assert metadata[BUILD_KEY]["invocation_id"]


def test_a_builds_data_version_is_the_assets(story):
    orders = story.first.built["orders"]
    assert orders.tags["dagster/data_version"] == story.first.state.builds["model.store.orders"].data_version


def test_what_is_consumed_was_captured_before_dbt_started(story):
    """A source without a recorded token is probed at the run's start, and its token is what the run consumed."""
    source_id = "source.store.raw.orders"
    token = story.first.state.sources[source_id]
    assert token.token.startswith("2026-01-01T10:00:00")
    assert story.first.state.builds["model.store.stg"].consumed == {source_id: token.version}
    assert token.recorded_at <= story.first.state.builds["model.store.stg"].started_at


# What fails


def test_a_failed_build_is_recorded_and_what_is_below_it_is_skipped(story):
    failure = story.first.state.failures["model.store.fragile"]
    assert (failure.kind, failure.attempts) == (FailureKind.BUILD, 1)
    assert story.first.metadata("fragile")[REASON_KEY] == "dbt could not build it"
    skipped = story.first.metadata("below_fragile")
    assert (skipped[DECISION_KEY], skipped[REASON_KEY]) == ("skip", "Upstream failed: fragile")
    assert "model.store.below_fragile" not in story.first.state.failures


def test_a_failed_test_leaves_its_model_built_and_holds_what_is_below(story):
    assert "model.store.picky" in story.first.state.builds
    assert "model.store.picky" not in story.first.state.failures
    held = story.first.metadata("below_picky")
    assert (held[DECISION_KEY], held[REASON_KEY]) == ("hold", f"Upstream test failed: {PICKY}")


def test_a_verdict_is_about_the_versions_that_the_test_read(story):
    verdicts = {story.names[uid]: verdict for uid, verdict in story.first.state.verdicts.items()}
    statuses = {name: verdict.status.value for name, verdict in verdicts.items()}
    assert statuses == {"not_null_orders_id": "pass", WARNS: "warn", PICKY: "fail", "orders_keeps_ids": "pass"}
    builds = story.first.state.builds
    assert verdicts[PICKY].versions == {"model.store.picky": builds["model.store.picky"].data_version}
    assert (verdicts[PICKY].failures, verdicts[PICKY].attempts) == (1, 1)
    assert {verdict.run_id for verdict in verdicts.values()} == {story.first.result.run_id}


def test_a_failed_test_of_warn_severity_holds_nothing(story):
    assert "model.store.orders" in story.first.state.builds
    assert "model.store.orders" not in story.first.state.failures


def test_the_run_says_in_one_sentence_what_failed(story):
    step = story.first.result.all_events
    errors = [e.step_failure_data.error for e in step if e.is_step_failure]
    text = errors[0].message
    assert "fragile" in text
    assert "Traceback" not in text


# What is not built


def test_the_same_again_builds_nothing(story):
    assert story.again.built == {}


def test_a_run_stays_red_while_a_failure_stands(story):
    errors = [e.step_failure_data.error for e in story.again.result.all_events if e.is_step_failure]
    (text,) = (error.message for error in errors)
    assert "Not built because of an earlier failure: " in text
    assert "fragile is held (Failed" in text
    assert f"below_picky is held (Upstream test failed: {PICKY})" in text
    assert f"Still failing: {PICKY} (Failed" in text
    assert "below_fragile is skipped (Upstream failed: fragile)" in text
    assert "Traceback" not in text


def test_a_reused_model_says_why_and_what_it_saved(story):
    reused = story.again.reused["orders"]
    assert (reused.reason_code, reused.message) == ("no_new_data", "No new changes on any upstreams")
    build = story.first.state.builds["model.store.orders"]
    assert reused.seconds_saved == (build.ended_at - build.started_at).total_seconds()
    assert story.again.reused["stg"].reason_code == "view_current"
    assert not story.again.reused.keys() & story.again.observed.keys()


def test_what_failed_is_held_and_what_is_below_it_skipped(story):
    assert story.again.metadata("fragile")[DECISION_KEY] == "hold"
    assert story.again.reused["picky"].reason_code == "no_new_data"
    assert story.again.metadata("below_picky")[REASON_CODE_KEY] == "upstream_test_failed"


def test_a_run_that_builds_nothing_changes_no_state(story):
    assert story.again.state == story.first.state


def test_reused_verdicts_are_reported_as_what_they_were(story):
    assert set(story.again.checks) == set(story.first.checks)
    words = {"not_null_orders_id": "Passed", WARNS: "Warned", PICKY: "Failed"}
    verdicts = {story.names[uid]: verdict for uid, verdict in story.first.state.verdicts.items()}
    for name, check in story.again.checks.items():
        first = story.first.checks[name]
        assert (check.passed, check.severity) == (first.passed, first.severity)
        reason = check.metadata[REASON_KEY].value
        assert reason.startswith(f"{words[name]} ")
        assert reason.endswith(" ago on the same code and data")
        assert (check.description, check.metadata[DECISION_KEY].value) == (reason, "reuse")
        assert check.metadata[VERDICT_RUN_KEY].value == story.first.result.run_id
        assert check.metadata[VERDICT_AT_KEY].value == verdicts[name].at.timestamp()
        assert check.target_materialization_data is None


def test_a_check_that_was_run_says_why(story):
    check = story.first.checks["not_null_orders_id"]
    assert (check.metadata[DECISION_KEY].value, check.metadata[REASON_CODE_KEY].value) == ("run", "never_run")
    assert check.metadata[REASON_KEY].value == "Not run before in this environment"
    assert VERDICT_RUN_KEY not in check.metadata


# What somebody asks for


def test_a_run_by_hand_builds_what_was_selected_though_nothing_changed(story):
    """`area` is also a folder: dbt's selection of its name would build what lies in it, too."""
    assert story.by_hand.result.success
    assert set(story.by_hand.built) == {"area"}
    assert story.by_hand.metadata("area")[REASON_KEY] == "Requested explicitly"


def test_a_run_by_hand_is_the_last_build(story):
    assert story.by_hand.state.builds["model.store.area"].run_id == story.by_hand.result.run_id


def test_a_deterministic_model_that_is_built_again_has_the_same_data_version(story):
    before, after = (run.state.builds["model.store.area"] for run in (story.first, story.by_hand))
    assert before.data_version == after.data_version


def test_checks_alone_are_run_without_building_anything(story):
    assert story.check_only.result.success
    assert story.check_only.built == {}
    assert len(story.check_only.checks) == 2
    reasons = {check.metadata[REASON_KEY].value for check in story.check_only.checks.values()}
    assert reasons == {"Requested explicitly"}
    again = {
        story.names[uid]
        for uid, v in story.check_only.state.verdicts.items()
        if v.run_id == story.check_only.result.run_id
    }
    assert again == set(story.check_only.checks)


# The code that dbt itself read


def built_code(tmp_path, project, world, uid):
    (tmp_path / "manifest.json").write_text(json.dumps(world))
    read = manifest_of_dbt(tmp_path)
    return code_read_by_dbt(read, project, read_moment(project, project.load(), read)).fingerprints([uid])[uid]


def test_the_code_that_was_built_is_what_dbt_read_not_what_the_plan_was_made_from(tmp_path):
    project = load_project(tmp_path / "shop", manifest([model("m", raw_code="select 1 as id")]))
    newer = manifest([model("m", raw_code="select 2 as id")])
    built = built_code(tmp_path, project, newer, "model.shop.m")
    planned = project.load().project.fingerprints["model.shop.m"]
    assert planned.changes_since(built) == ("sql",)


def test_a_large_seed_that_was_built_is_not_changed_code_at_once(tmp_path):
    """dbt records of a seed over 1 MiB only the path; its rows are hashed here, before the run and after."""
    world = manifest([seed("big", checksum={"name": "path", "checksum": "seeds/big.csv"})])
    (tmp_path / "shop" / "seeds").mkdir(parents=True)
    (tmp_path / "shop" / "seeds" / "big.csv").write_text("id\n1\n")
    project = load_project(tmp_path / "shop", world)
    built = built_code(tmp_path, project, world, "seed.shop.big")
    planned = project.load().project.fingerprints["seed.shop.big"]
    assert planned.changes_since(built) == ()


@pytest.mark.skipif(DBT_VERSION < (1, 11), reason="dbt 1.10 selects nothing of a manifest that is made up")
def test_a_model_that_reads_what_others_build_is_not_changed_code_at_once(tmp_path):
    from dagster_sao.orchestration.project.loaded import Selection

    world = manifest([model("a", "source.shop.raw.t"), model("b", "a")], [source("raw", "t")])
    project = load_project(tmp_path / "shop", world)
    project.selection = Selection(select="b")
    planned = project.load().project.fingerprints["model.shop.b"]
    assert planned.changes_since(built_code(tmp_path, project, world, "model.shop.b")) == ()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"nodes": {}}'])
def test_where_dbt_left_no_manifest_the_plans_code_counts(tmp_path, content):
    project = load_project(tmp_path / "shop", manifest([model("m")]))
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    assert manifest_of_dbt(tmp_path) is None
    assert code_read_by_dbt(None, project, read_moment(project, project.load(), {"nodes": {}})) is None


def test_failure_metadata_is_what_the_state_reads(story):
    record = story.first.metadata("fragile")[FAILURE_KEY]
    assert (record["layout"], record["kind"], record["attempts"]) == (1, "build", 1)
