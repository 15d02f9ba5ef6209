"""Runs with each option of their config: real dbt, real DuckDB, one small project per promise."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from dagster_dbt import DbtProject

from dagster_sao import build_state_aware_definitions
from dagster_sao.orchestration.events.event_schema import DECISION_KEY, REASON_KEY, reused_nodes
from dagster_sao.orchestration.state.event_log import EventLogState
from tests.conftest import run_dbt
from tests.orchestration.shops import project_in

PROJECT = {
    "dbt_project.yml": "{name: shop, version: 1.0.0, profile: shop, flags: {send_anonymous_usage_stats: false}}",
    "models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]",
    "models/a.sql": "{{ config(materialized='table') }} select * from {{ source('raw', 'orders') }}",
    "models/b.sql": "{{ config(materialized='table') }} select * from {{ ref('a') }}",
    "models/c.sql": "{{ config(materialized='table') }} select {{ var('c', 1) }} as c",
    "models/d.sql": "{{ config(materialized='table') }} select * from {{ ref('b') }} join {{ ref('c') }} on true",
}


@dataclass
class Said:
    """What a run said of each model."""

    success: bool
    decisions: dict[str, list[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    observed: dict[str, str] = field(default_factory=dict)
    """The reused models with an observation of their own, and its reason."""
    summary: dict[str, object] = field(default_factory=dict)
    checks: dict[str, list[bool]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    """How many events it wrote, by type."""
    failure: str = ""

    def built(self):
        return {name for name, decisions in self.decisions.items() if decisions[-1] == "build"}


class Shop:
    """One project in one instance."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, files: dict[str, str]):
        self.folder, self.instance = folder, instance
        self.database = folder / "shop.duckdb"
        outputs = "".join(
            f"    {target}: {{type: duckdb, path: '{folder}/{target}.duckdb', threads: 1}}\n"
            for target in ("shop", "other")
        )
        profiles = f"shop:\n  target: shop\n  outputs:\n{outputs}"
        for name, text in {**PROJECT, "profiles.yml": profiles, **files}.items():
            self.write(name, text)
        for target in ("shop", "other"):
            self.sql("create schema raw; create table raw.orders as select 1 as id", target)
        run_dbt(folder, "parse")
        self.load()

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def load(self):
        self.defs = build_state_aware_definitions(DbtProject(self.folder))
        (self.models,) = (a for a in self.defs.assets if isinstance(a, dg.AssetsDefinition))

    def sql(self, statement, target="shop"):
        with closing(duckdb.connect(str(self.folder / f"{target}.duckdb"))) as connection:
            return connection.execute(statement).fetchall()

    def run(self, *names, **config) -> Said:
        selection = dg.AssetSelection.assets(*names) if names else dg.AssetSelection.assets(*self.models.keys)
        result = dg.materialize(
            list(self.defs.assets),
            selection=selection,
            resources=self.defs.resources,
            instance=self.instance,
            run_config={"ops": {self.models.op.name: {"config": config}}},
            raise_on_error=False,
        )
        said = Said(result.success)
        for event in result.all_events:
            if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
                self._note(said, event.step_materialization_data.materialization)
            elif event.event_type is dg.DagsterEventType.ASSET_OBSERVATION:
                self._note(said, event.asset_observation_data.asset_observation)
            elif event.is_step_failure:
                said.failure = event.step_failure_data.user_failure_data.description or ""
            elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluation = event.event_specific_data
                said.checks.setdefault(evaluation.check_name, []).append(evaluation.passed)
        for record in self.instance.all_logs(result.run_id):
            said.log.append(record.user_message)
            said.events[record.dagster_event_type.value if record.dagster_event_type else "log"] += 1
            data = record.dagster_event.event_specific_data if record.dagster_event else None
            metadata = getattr(data, "metadata", {})
            for node in reused_nodes(metadata):
                name = node.unique_id.split(".")[-1]
                said.decisions.setdefault(name, []).append("reused")
                said.reasons[name] = node.message
            if "decisions" in metadata:
                said.summary = {name: value.value for name, value in data.metadata.items()}
        return said

    def builds(self):
        project = project_in(self.defs)
        loaded = project.load()
        state = EventLogState(self.instance, project.name).snapshot(loaded.keys, datetime.now(timezone.utc))
        return {uid.split(".")[-1]: build for uid, build in state.builds.items()}

    @staticmethod
    def _note(said, event):
        name = event.asset_key.path[-1]
        metadata = {key: getattr(value, "value", value) for key, value in event.metadata.items()}
        if metadata[DECISION_KEY] == "reused":
            said.observed[name] = metadata[REASON_KEY]
            return
        said.decisions.setdefault(name, []).append(metadata[DECISION_KEY])
        said.reasons[name] = metadata[REASON_KEY]


@pytest.fixture
def shop(tmp_path, request):
    files = getattr(request, "param", {})
    with dg.DagsterInstance.ephemeral() as instance:
        yield Shop(tmp_path / "shop", instance, files)


ALL = {"a", "b", "c", "d"}


def test_a_run_writes_as_many_events_about_four_reused_models_as_about_one(shop):
    assert shop.run(state_aware=True).built() == ALL
    one, all_of_them = shop.run("a", state_aware=True), shop.run(state_aware=True)
    assert (one.summary["reused"], all_of_them.summary["reused"]) == (1, 4)
    # Dagster itself writes one for each model that it plans.
    planned = "ASSET_MATERIALIZATION_PLANNED"
    assert (all_of_them.events[planned], one.events[planned]) == (4, 1)
    assert all_of_them.events - Counter({planned: 4}) == one.events - Counter({planned: 1})


def test_a_state_aware_run_probes_builds_what_changed_and_reports_the_rest(shop):
    first = shop.run(state_aware=True)
    assert first.built() == ALL
    again = shop.run(state_aware=True)
    assert again.built() == set()
    assert again.reasons["b"] == "No new changes on any upstreams"
    assert again.summary["reused"] == 4
    assert again.summary["seconds_saved"] > 0
    assert not any("Running dbt command" in line for line in again.log)
    assert again.observed == {}
    observing = shop.run(state_aware=True, observe_reused=True)
    assert observing.observed == again.reasons
    assert observing.decisions == again.decisions
    shop.sql("insert into raw.orders values (2)")
    third = shop.run(state_aware=True)
    assert third.built() == {"a", "b", "d"}
    assert third.reasons["a"] == "New changes detected: raw.orders"
    assert "| c | reused | No new changes on any upstreams |" in third.summary["decisions"]
    assert shop.sql("select count(*) from d") == [(2,)]


@pytest.mark.slow
def test_a_dropped_table_is_seen_by_a_state_aware_run(shop):
    shop.run(state_aware=True)
    shop.sql("drop table c")
    assert shop.run(state_aware=True).built() == {"c"}


@pytest.mark.slow
def test_a_state_agnostic_run_updates_the_same_state(shop):
    assert shop.run().built() == ALL
    assert shop.run().built() == ALL
    assert shop.run(state_aware=True).built() == set()


@pytest.mark.slow
def test_a_selection_forces_and_full_refresh_are_honoured(shop):
    shop.run(state_aware=True)
    selected = shop.run(state_aware=True, select="a+", exclude="d", force=["b"])
    assert selected.decisions == {"a": ["reused"], "b": ["build"]}
    assert selected.reasons["b"] == "Requested explicitly"
    refreshed = shop.run(state_aware=True, select="c", full_refresh=True)
    assert (refreshed.built(), refreshed.reasons["c"]) == ({"c"}, "Full refresh requested")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"select": "tag:nope"}, "matches no node of shop"),
        ({"select": "a", "selector": "b"}, "selector"),
        ({"defer": True}, "`defer` needs `state`"),
        ({"state": "nowhere", "defer": True, "select": "state:modified"}, "nowhere"),
    ],
)
def test_a_config_without_meaning_is_told_in_one_sentence(shop, config, sentence):
    said = shop.run(state_aware=True, **config)
    assert not said.success
    assert sentence in said.failure


@pytest.mark.slow
def test_without_a_look_at_the_sources_new_rows_wait(shop):
    shop.run(state_aware=True)
    shop.sql("insert into raw.orders values (2)")
    assert shop.run(state_aware=True, refresh_sources=False).built() == set()
    assert shop.run(state_aware=True).built() == {"a", "b", "d"}


@pytest.mark.slow
def test_other_variables_are_other_code(shop):
    shop.run(state_aware=True)
    varied = shop.run(state_aware=True, vars={"c": 2})
    assert varied.built() == {"c", "d"}
    assert varied.reasons["c"].startswith("Code changed")
    assert shop.sql("select c from c") == [(2,)]
    assert shop.run(state_aware=True, vars={"c": 2}).built() == set()
    assert shop.run(state_aware=True).built() == {"c", "d"}


@pytest.mark.slow
def test_another_target_has_a_state_of_its_own(shop):
    shop.run(state_aware=True)
    assert shop.run(state_aware=True, target="other").built() == ALL
    assert shop.sql("select count(*) from d", "other") == [(1,)]
    assert shop.run(state_aware=True).built() == set()
    assert shop.run(state_aware=True, target="other").built() == set()
    assert shop.run(state_aware=True, target="shop").built() == set()


FLAKY = {
    "macros/flaky.sql": """
{% macro flaky(marker) %}{% if execute %}
  {% set seen = run_query("select count(*) from raw.attempts where name = '" ~ marker ~ "'").rows[0][0] %}
  {% do run_query("insert into raw.attempts values ('" ~ marker ~ "')") %}
  {% if seen < 1 %}{{ exceptions.raise_compiler_error("not yet") }}{% endif %}
{% endif %}{% endmacro %}
""",
    "models/a.sql": """
{{ config(materialized='table') }} {{ flaky('a') }} select * from {{ source('raw', 'orders') }}
""",
    "models/checks.yml": "models: [{name: b, columns: [{name: id, data_tests: [not_null]}]}]",
}


@pytest.mark.slow
@pytest.mark.parametrize("shop", [FLAKY], indirect=True)
def test_what_failed_and_what_it_blocked_is_tried_again_in_the_same_run(shop):
    shop.sql("create table raw.attempts (name varchar)")
    first = shop.run(state_aware=True, retries=1, retry_delay_seconds=0)
    assert first.success
    assert first.built() == ALL
    assert first.decisions["a"] == ["failed", "build"]
    assert first.reasons["a"] == "Not built before in this environment"
    assert first.decisions["c"] == ["build"]
    assert first.checks == {"not_null_b_id": [True]}
    assert sum("Running dbt command" in line for line in first.log) == 2
    # The macro asks a table that dbt does not know, which counts as updated in every job.
    again = shop.run(state_aware=True)
    assert (again.built(), again.decisions["c"]) == ({"a", "b", "d"}, ["reused"])
    assert "raw.attempts" in again.reasons["a"]


BROKEN = {"models/a.sql": "{{ config(materialized='table') }} select 1 / 'x' as id"}


@pytest.mark.slow
@pytest.mark.parametrize("shop", [BROKEN], indirect=True)
def test_a_failure_leaves_independent_branches_and_names_itself_below(shop):
    said = shop.run(state_aware=True)
    assert not said.success
    assert said.decisions == {"a": ["failed"], "b": ["skip"], "c": ["build"], "d": ["skip"]}
    assert said.reasons["b"] == "Upstream failed: a"
    held = shop.run(state_aware=True)
    assert held.decisions == {"a": ["hold"], "b": ["skip"], "c": ["reused"], "d": ["skip"]}


MANY_ROOTS = {f"models/z{n}.sql": "{{ config(materialized='table') }} select 1 as id" for n in range(5)}


@pytest.mark.slow
@pytest.mark.parametrize("shop", [{**BROKEN, **MANY_ROOTS}], indirect=True)
def test_fail_fast_starts_nothing_more(shop):
    said = shop.run(state_aware=True, fail_fast=True)
    assert said.decisions["a"] == ["failed"]
    assert said.decisions["b"] == ["skip"]
    assert said.reasons["z4"] == "Not started: the run stops at the first failure (fail_fast)"
    assert shop.run(state_aware=True).built() >= {"z4"}


TESTED = {
    "models/checks.yml": """
models:
  - {name: a, columns: [{name: id, data_tests: [{accepted_values: {arguments: {values: [1]}}}]}]}
  - {name: b, columns: [{name: id, data_tests: [{relationships: {arguments: {to: ref('c'), field: c}}}]}]}
"""
}
ACCEPTED, RELATIONSHIP = "accepted_values_a_id__1", "relationships_b_id__c__ref_c_"


@pytest.mark.slow
@pytest.mark.parametrize("shop", [TESTED], indirect=True)
def test_a_test_runs_if_any_of_its_models_was_built(shop):
    shop.run(state_aware=True)
    said = shop.run(state_aware=True, force=["c"])
    assert said.built() == {"c"}
    assert set(said.checks) == {ACCEPTED, RELATIONSHIP}
    ran = [line for line in said.log if "dbt command" in line]
    assert any("relationships" in line or "--select shop.c`" in line for line in ran)


@pytest.mark.slow
@pytest.mark.parametrize("shop", [TESTED], indirect=True)
@pytest.mark.parametrize(
    ("strategy", "built", "checks"),
    [
        ("IMMEDIATE", {"a", "c"}, {ACCEPTED: [False]}),
        ("DEFERRED", {"a", "b", "c", "d"}, {ACCEPTED: [False], RELATIONSHIP: [False]}),
        ("SKIP", {"a", "b", "c", "d"}, {}),
    ],
)
def test_test_strategies(shop, strategy, built, checks):
    shop.sql("insert into raw.orders values (9)")
    said = shop.run(state_aware=True, test_strategy=strategy)
    assert said.built() == built
    assert said.checks == checks
    assert said.success == (strategy == "SKIP")
    tables = {name for (name,) in shop.sql("select table_name from duckdb_tables() where schema_name = 'main'")}
    assert tables == ({"a", "c"} if strategy == "IMMEDIATE" else ALL)


WITH_A_LEAF = {
    "models/aa.sql": "{{ config(materialized='table') }} select * from {{ source('raw', 'orders') }}",
    "models/checks.yml": "models: [{name: b, columns: [{name: id, data_tests: [not_null, unique]}]}]",
}


@pytest.mark.parametrize("shop", [WITH_A_LEAF], indirect=True)
def test_dbt_begins_with_the_longest_path_once_it_is_known(shop):
    first = shop.run(state_aware=True)
    assert [*first.decisions] == ["a", "aa", "c", "b", "d"]
    seconds = {name: build.seconds for name, build in shop.builds().items()}
    shop.sql("insert into raw.orders values (2)")
    again = shop.run(state_aware=True, force=["c"])
    below = {"a": ["b"], "b": ["d"], "c": ["d"], "d": [], "aa": []}

    def path(name):
        return seconds[name] + max(map(path, below[name]), default=0.0)

    assert again.built() == {*ALL, "aa"}
    assert [*again.decisions] == in_order(below, path)


def in_order(below, path):
    """Return the order in which one thread builds, the longest path first."""
    order = []
    while len(order) < len(below):
        ready = [name for name in below if not any(name in below[other] for other in below.keys() - order)]
        order.append(max((name for name in ready if name not in order), key=path))
    return order
