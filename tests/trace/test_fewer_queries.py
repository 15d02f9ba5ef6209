"""dbt with fewer queries under difficulties: errors, threads, flags, macros of the project, an interruption."""

from __future__ import annotations

import json
import signal
import threading

import pytest
from dbt.task.runnable import GraphRunnableTask

from dbt_dagster_sao.data_tests.handover import DataTestRequest, How
from dbt_dagster_sao.private_points import data_tests
from tests.trace.answers import DuckDB, dbt, everything, write

COLUMNS = [f"c{n}" for n in range(12)]
TESTS = {
    "models": [
        {
            "name": "wide",
            "columns": [{"name": column, "data_tests": ["unique", "not_null"]} for column in COLUMNS],
        },
        {
            "name": "narrow",
            "columns": [
                {
                    "name": "a",
                    "data_tests": ["unique", "not_null", {"not_null": {"name": "some", "config": {"where": "a > 1"}}}],
                },
                {
                    "name": "b",
                    "data_tests": [
                        {"not_null": {"config": {"severity": "warn"}}},
                        {"accepted_values": {"arguments": {"values": ["x", "y"]}}},
                    ],
                },
            ],
        },
    ]
}
FILES = {
    "dbt_project.yml": "{name: shop, profile: shop, flags: {send_anonymous_usage_stats: false}}",
    "models/wide.sql": "{{ config(materialized='table') }} select "
    + ", ".join(f"i + {n} as c{n}" for n in range(len(COLUMNS)))
    + " from range(9) t (i)",
    "models/narrow.sql": "select * from (values (1, 'x'), (2, 'z'), (3, null)) as t (a, b)",
    "models/tests.yml": json.dumps(TESTS),
}
OTHER_TEST_SQL = """
{% macro MACRO(main_sql, fail_calc, warn_if, error_if, limit) %}
select 7 as failures, true as should_warn, false as should_error from ({{ main_sql }}) as x having count(*) >= 0
{% endmacro %}
"""
OTHER_MATERIALIZATION = """
{% materialization test, KIND %}
  {% call statement('main', fetch_result=True) %}
    select 3 as failures, true as should_warn, false as should_error
  {% endcall %}
  {{ return({'relations': []}) }}
{% endmaterialization %}
"""
OTHER_UNIQUE = (
    "{% test unique(model, column_name) %} select {{ column_name }} from {{ model }} where 1 = 1 {% endtest %}"
)


class Shop:
    """A project that dbt has built."""

    def __init__(self, folder, others=None):
        self.folder, self.database = folder, DuckDB(folder)
        write(folder, {**FILES, **(others or {}), "profiles.yml": self.database.profile})
        self.built = self.dbt("build")
        self.request = everything(folder, builds=frozenset()).to_json()
        self._plain = {}

    def dbt(self, *arguments, **options):
        return dbt(self.folder, self.database, *arguments, **options)

    def plain(self, *arguments):
        """Return what dbt by itself answers to a command: the relations stay as they are, so once for all."""
        if arguments not in self._plain:
            self._plain[arguments] = self.dbt(*arguments)
        return self._plain[arguments]

    def differences(self, *arguments):
        """Return what differs when dbt runs with fewer queries, and how tests were answered then."""
        fewer = self.dbt(*arguments, request=self.request)
        return self.plain(*arguments).differences(fewer), {
            name.split(".")[2]: answer for name, answer in fewer.how.items()
        }


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Shop(tmp_path_factory.mktemp("shop").resolve())


def test_four_threads_share_a_query_for_many_tests(shop):
    sent = []

    def collect(event):
        if event.info.name == "SQLQuery" and event.data.node_info.resource_type == "test":
            sent.append(event.data.sql)

    selected = "test", "--select", "wide", "--threads", "4"
    fewer = shop.dbt(*selected, request=shop.request, callback=collect)
    queries = len([sql for sql in sent if "select" in sql])
    plain = shop.dbt(*selected, callback=collect)
    assert plain.differences(fewer) == []
    assert {answer.how for answer in fewer.how.values()} == {How.MERGED}
    assert len(fewer.how) == len(plain.results) == 2 * len(COLUMNS)
    assert queries == round(sum(1 / answer.merged for answer in fewer.how.values()))
    assert queries <= len([sql for sql in sent if "select" in sql][queries:]) / 5


@pytest.mark.parametrize("flag", ["--store-failures", "--warn-error", "--empty"])
def test_a_flag_of_dbt_means_the_same(shop, flag):
    differences, how = shop.differences("build", flag, "--threads", "1")
    assert differences == []
    assert bool(how) is (flag == "--warn-error")  # else each test stores its failures, or reads a query


def test_dbt_stops_at_the_first_failure(shop):
    command = "build", "--fail-fast", "--threads", "1"
    plain, fewer = shop.plain(*command), shop.dbt(*command, request=shop.request)
    assert plain.statuses()["fail"] == fewer.statuses()["fail"] == 1
    # Whether dbt skips the node after the failure, or has begun it already, depends on the turns of its threads.
    skipped = plain.skipped | fewer.skipped
    assert plain.without(skipped).differences(fewer.without(skipped)) == []
    assert skipped
    assert fewer.how


def test_after_a_merged_query_that_errors_each_test_runs_alone(shop, monkeypatch):
    asked = []
    original = data_tests._Warehouse.ask

    def ask(warehouse, sql):
        asked.append(sql)
        return original(warehouse, f"{sql}, no_such_relation")

    monkeypatch.setattr(data_tests._Warehouse, "ask", ask)
    differences, how = shop.differences("test", "--threads", "4")
    assert (differences, how) == ([], {})
    assert len(asked) == len(set(asked)) > 1


@pytest.mark.parametrize("content", [None, "", "no request", '{"layout": 2}', '{"layout": 1, "builds": 3}'])
def test_without_a_readable_request_dbt_runs_each_test(shop, monkeypatch, content):
    if content is None:
        monkeypatch.setattr(data_tests, "_read_request", lambda *_: open(shop.folder / "missing"))  # noqa: PTH123, SIM115
    fewer = shop.dbt("test", "--select", "narrow", request=content or "")
    assert (shop.plain("test", "--select", "narrow").differences(fewer), fewer.how) == ([], {})


def test_a_request_about_tests_that_do_not_exist_is_no_obstacle(shop):
    request = DataTestRequest(mergeable=frozenset({"test.shop.gone", "test.shop.lost"})).to_json()
    fewer = shop.dbt("test", "--select", "narrow", request=request)
    assert (shop.plain("test", "--select", "narrow").differences(fewer), fewer.how) == ([], {})


@pytest.mark.parametrize(
    "macro",
    [
        pytest.param(OTHER_TEST_SQL.replace("MACRO", "duckdb__get_test_sql"), id="duckdb__get_test_sql"),
        pytest.param(OTHER_MATERIALIZATION.replace("KIND", "default"), id="materialization, default"),
        pytest.param(OTHER_MATERIALIZATION.replace("KIND", "adapter='duckdb'"), id="materialization, duckdb"),
    ],
)
def test_where_the_project_replaces_how_a_test_is_answered_nothing_is_merged(tmp_path, macro):
    shop = Shop(tmp_path.resolve(), {"macros/own.sql": macro})
    assert set(shop.built.statuses()) == {"success", "warn"}
    assert shop.differences("test") == ([], {})


def test_a_generic_test_that_the_project_replaces_is_merged_by_its_own_query(tmp_path):
    shop = Shop(tmp_path.resolve(), {"tests/generic/unique.sql": OTHER_UNIQUE})
    differences, how = shop.differences("test", "--select", "narrow")
    assert differences == []
    assert "unique_narrow_a" not in how  # its own finds failures
    assert how["not_null_narrow_a"].how is How.MERGED


def test_an_interruption_within_a_merged_query_ends_dbt(shop, monkeypatch):
    original, cancel, sent = data_tests._Warehouse.ask, GraphRunnableTask._cancel_connections, []
    ends = threading.Event()

    def ask(warehouse, sql):
        sent.append(sql)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        assert ends.wait(20)
        return original(warehouse, sql)

    def cancel_connections(task, pool):
        pool.close()
        pool.terminate()
        ends.set()
        cancel(task, pool)

    monkeypatch.setattr(data_tests._Warehouse, "ask", ask)
    monkeypatch.setattr(GraphRunnableTask, "_cancel_connections", cancel_connections)
    # A shell lets what it starts in the background ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ended = shop.dbt("test", "--select", "wide", "--threads", "1", request=shop.request)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ends.is_set()
    assert len(sent) == 1
    assert len(ended.how) <= 1
