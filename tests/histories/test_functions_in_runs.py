"""User-defined functions, case by case: created before what calls them, in the run that builds or tests it."""

from __future__ import annotations

import pytest

from dagster_sao.orchestration.leases.leases import Leases
from dagster_sao.orchestration.leases.relation_keys import lease_keys
from tests.histories.inprocess_dbt import Accident, InProcessDbt
from tests.histories.lab import TABLE, VIEW, built, lab

pytestmark = pytest.mark.slow

SETUP = ["create schema raw", "create table raw.orders as select * from (values (1, 10), (2, 20)) t(id, amount)"]
SOURCES = "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]"
# dbt-duckdb has none of its own.
CREATE = """
{% macro duckdb__scalar_function_sql(target_relation) %}
create or replace macro {{ target_relation }}({{ model.arguments | map(attribute='name') | join(', ') }}) as (
  {{ model.compiled_code }}
)
{% endmacro %}
"""


def functions(**bodies):
    """Return the files of functions of one number, with their bodies."""
    properties = "".join(
        f"  - {{name: {name}, arguments: [{{name: x, data_type: integer}}], returns: {{data_type: integer}}}}\n"
        for name in bodies
    )
    files = {f"functions/{name}.sql": body for name, body in bodies.items()}
    return {**files, "functions/functions.yml": f"functions:\n{properties}", "macros/create.sql": CREATE}


ORDERS = "{{ source('raw', 'orders') }}"
FILES = {
    "models/sources.yml": SOURCES,
    **functions(taxed="x * {{ rate() }}", with_fee="{{ function('taxed') }}(x) + 1"),
    "macros/rate.sql": "{% macro rate() %}{{ var('rate', 2) }}{% endmacro %}",
    "models/v.sql": VIEW + f"select id, {{{{ function('with_fee') }}}}(amount) as amount from {ORDERS}",
    "models/below.sql": TABLE + "select sum(amount) as amount from {{ ref('v') }}",
    "models/inlined.sql": "{{ config(materialized='ephemeral') }} "
    f"select {{{{ function('taxed') }}}}(amount) as amount from {ORDERS}",
    "models/t.sql": TABLE + "select sum(amount) as amount from {{ ref('inlined') }}",
    "models/plain.sql": TABLE + f"select count(*) as n from {ORDERS}",
    "tests/dear.sql": f"select * from {ORDERS} where {{{{ function('taxed') }}}}(amount) > 100",
}


def amounts(case):
    return case.sql("select b.amount, t.amount from main.below b, main.t t")


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.mark.parametrize(
    "edit",
    [
        {"functions/taxed.sql": "x * 3"},
        {"macros/rate.sql": "{% macro rate() %}3{% endmacro %}"},
        {
            "dbt_project.yml": "{name: shop, version: 1.0.0, profile: shop, vars: {rate: 3},"
            " flags: {send_anonymous_usage_stats: false}}"
        },
    ],
    ids=["body", "macro", "variable"],
)
def test_an_edited_function_is_created_before_all_that_calls_it(folder, edit):
    with lab(folder, FILES, SETUP) as case:
        case.settle()
        assert amounts(case) == [(62, 60)]
        assert case.verdicts == {"dear": "pass"}
        case.edit(edit)
        (run,) = case.cycle()
        assert run.success
        assert built(run) == {"v", "below", "t"}
        assert run.nodes["t"] == ("build", "Code changed: function: taxed")
        assert run.tests == {"dear": "pass"}
        assert amounts(case) == [(92, 90)]
        assert case.cycle() == []


def test_a_job_creates_the_functions_of_what_it_builds(folder):
    with lab(folder, FILES, SETUP) as case:
        case.settle()
        case.edit({"functions/taxed.sql": "x * 3"})
        run = case.job("t")
        assert run.success
        assert case.sql("select amount from main.t") == [(90,)]


def test_a_function_that_somebody_dropped_is_created_with_its_next_caller(folder):
    with lab(folder, FILES, SETUP) as case:
        case.settle()
        case.sql("drop macro main.taxed")
        case.sql("insert into raw.orders values (3, 1)")
        case.settle()
        assert amounts(case) == [(65, 62)]


def test_a_test_that_calls_a_function_is_run_on_the_new_one(folder):
    files = {name: text for name, text in FILES.items() if "models" not in name} | {
        "models/sources.yml": SOURCES,
        "models/plain.sql": FILES["models/plain.sql"],
    }
    with lab(folder, files, SETUP) as case:
        case.settle()
        case.edit({"functions/taxed.sql": "x * 10"})
        before = case.invocations
        (run,) = case.cycle()
        # `dbt test` creates no functions, and `dbt build` leaves out the tests of what is below one that fails.
        assert case.invocations - before == 2
        assert not run.success
        assert run.tests == {"dear": "fail"}
        assert case.cycle() == []


def test_a_function_that_cannot_be_created_fails_its_callers_and_waits(folder):
    with lab(folder, FILES, SETUP) as case:
        case.settle()
        case.edit({"functions/taxed.sql": "x *"})
        (run,) = case.cycle()
        assert not run.success
        assert run.nodes["v"] == run.nodes["t"] == ("failed", "Upstream failed: taxed")
        assert run.nodes["below"] == ("skip", "Upstream failed: v")
        assert run.tests == {"dear": "error"}
        assert "plain" not in run.nodes
        assert case.cycle() == []
        assert case.decision("v")[0] == case.decision("t")[0] == "hold"
        case.edit({"functions/taxed.sql": "x * 3"})
        case.settle()
        assert amounts(case) == [(92, 90)]
        assert case.verdicts == {"dear": "pass"}


def test_what_calls_a_function_that_another_run_is_creating_waits_for_it(folder):
    with lab(folder, FILES, SETUP) as case:
        case.settle()
        case.edit({"functions/taxed.sql": "x * 3"})
        graph = case.project.load().project.graph
        other = Leases(case.instance, "other")
        other.claim([lease_keys("shop", graph)["function.shop.taxed"]])
        case.sql("insert into raw.orders values (3, 0)")
        before = []

        def when_dbt_starts():
            before.extend(case.sql("select amount from main.t"))
            other.release()

        InProcessDbt.stage.accident = Accident(before_dbt=when_dbt_starts)
        run = case.job("plain", "t")
        assert run.success
        assert before == [(60,)]
        assert case.sql("select t.amount, p.n from main.t t, main.plain p") == [(90, 3)]
        said = [entry.user_message for entry in case.instance.all_logs(run.run_id)]
        assert "t: Waits for run other, which is building a function that it calls" in said


# Functions that nothing calls, and functions that views call


def test_a_function_that_nothing_calls_is_created_once_and_again_when_it_changes(folder):
    alone = {**functions(lonely="x"), "models/sources.yml": SOURCES, "models/plain.sql": FILES["models/plain.sql"]}
    with lab(folder, alone, SETUP) as case:
        case.settle()
        assert case.sql("select main.lonely(7)") == [(7,)]
        case.edit({"functions/lonely.sql": "x + 1"})
        assert case.cycle() == []
        assert case.job("plain").success
        assert case.sql("select main.lonely(7)") == [(8,)]
        invocations = case.invocations
        assert case.job("plain").success
        assert case.invocations == invocations  # nothing is due, so dbt is not started


def test_a_function_that_nothing_calls_fails_its_run_and_holds_nothing(folder):
    alone = {**functions(lonely="x +"), "models/sources.yml": SOURCES, "models/plain.sql": FILES["models/plain.sql"]}
    with lab(folder, alone, SETUP) as case:
        (run,) = case.cycle()
        assert not run.success
        assert run.nodes["plain"][0] == "build"
        assert case.cycle() == []


def test_a_function_that_changed_back_changes_what_reads_a_view_that_calls_it(folder):
    """A run of one caller creates the function for all: the view shows other rows without being built."""
    files = {
        **FILES,
        "models/once.sql": TABLE + f"select {{{{ function('taxed') }}}}(amount) as amount from {ORDERS}",
    }
    with lab(folder, files, SETUP) as case:
        case.settle()
        case.edit({"functions/taxed.sql": "x * 3"})
        case.job("once")
        assert case.sql("select sum(amount) from main.v") == [(92,)]
        case.sql("insert into raw.orders values (3, 0)")
        case.job("below")
        # The old code comes back, and with it nothing that would be built for its own sake.
        (case.folder / "models/once.sql").unlink()
        case.edit({"functions/taxed.sql": files["functions/taxed.sql"]})
        case.settle()
        assert case.sql("select sum(amount) from main.v") == [(63,)]
        assert amounts(case) == [(63, 60)]


RATED = {
    "models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: orders}, {name: rates}]}]",
    **functions(taxed="x * (select max(rate) from {{ source('raw', 'rates') }})"),
    **{name: FILES[name] for name in ("models/inlined.sql", "models/t.sql", "models/below.sql")},
    "models/v.sql": VIEW + f"select {{{{ function('taxed') }}}}(amount) as amount from {ORDERS}",
}
WITH_RATES = [*SETUP, "create table raw.rates as select 2 as rate"]


def test_a_source_that_only_a_function_reads_is_an_input_of_its_callers(folder):
    with lab(folder, RATED, WITH_RATES) as case:
        case.settle()
        assert amounts(case) == [(60, 60)]
        case.sql("insert into raw.rates values (5)")
        case.settle()
        assert amounts(case) == [(150, 150)]
        assert case.cycle() == []


def test_a_function_that_a_limited_run_created_is_not_taken_for_whole(folder):
    """With `--empty`, what the warehouse keeps of its body reads no rows."""
    with lab(folder, RATED, WITH_RATES) as case:
        case.settle()
        case.start_anew(dbt_args=("build", "--empty"))
        case.materialize("t")
        case.start_anew(dbt_args=("build",))
        case.materialize("below")
        assert case.sql("from main.below") == [(None,)]
        assert case.decision("below")[0] == "build"
        case.advance(minutes=1)
        case.settle()
        assert amounts(case) == [(60, 60)]
        assert case.cycle() == []
