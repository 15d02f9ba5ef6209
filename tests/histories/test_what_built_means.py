"""dbt's success is not what "built" means: seeds, microbatch models and limited builds, case by case on DuckDB."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from tests.histories.inprocess_dbt import Accident, InProcessDbt
from tests.histories.lab import TABLE, VIEW, lab

pytestmark = pytest.mark.slow

SETUP = ["create schema raw"]
SOURCES = "sources: [{name: raw, schema: raw, tables: [{name: events, config: {event_time: happened_at}}]}]"
SEED = "{version: 2, seeds: [{name: codes, config: {SETTINGS}}]}"


def days_ago(days):
    return (datetime.now(timezone.utc) - timedelta(days=days)).date()


# Seeds


def test_a_seed_gets_the_columns_that_its_settings_and_its_file_have(tmp_path):
    files = {
        "seeds/codes.csv": "code,name\n007,a\n",
        "seeds/p.yml": SEED.replace("SETTINGS", ""),
        "models/named.sql": VIEW + "select *, typeof(code) as kind from {{ ref('codes') }}",
        "models/counted.sql": TABLE + "select * from {{ ref('named') }}",
    }
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        assert case.sql("select code, name from main.counted") == [(7, "a")]
        case.edit({"seeds/p.yml": SEED.replace("SETTINGS", "column_types: {code: varchar}")})
        case.settle()
        assert case.sql("from main.counted") == [("007", "a", "VARCHAR")]
        # Other columns, in another order.
        case.edit({"seeds/codes.csv": "more,name,code\n1,a,007\n"})
        case.settle()
        assert case.sql("select more, name, code from main.counted") == [(1, "a", "007")]
        # Other types of the same columns: 1.5 would become 2.
        case.edit({"seeds/codes.csv": "more,name,code\n1.5,a,007\n"})
        case.settle()
        assert case.sql("select more, name, code from main.counted") == [(1.5, "a", "007")]


def test_a_seed_whose_rows_alone_changed_keeps_its_table(tmp_path):
    files = {"seeds/codes.csv": "code,name\n1,a\n"}
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.sql("comment on table main.codes is 'the same table'")
        case.edit({"seeds/codes.csv": "code,name\n2,b\n"})
        case.settle()
        assert case.sql("from main.codes") == [(2, "b")]
        assert case.sql("select comment from duckdb_tables() where table_name = 'codes'") == [("the same table",)]


def test_a_seed_that_refuses_a_full_refresh_is_held_with_the_remedy(tmp_path):
    files = {"seeds/codes.csv": "code,name\n1,a\n", "seeds/p.yml": SEED.replace("SETTINGS", "full_refresh: false")}
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.edit({"seeds/codes.csv": "code,name\nx,a\n"})
        decision, message = case.decision("codes")
        assert decision == "hold"
        assert message.startswith("dbt gives an existing seed other columns only with --full-refresh")
        case.sql("drop table main.codes")
        case.settle()
        assert case.sql("from main.codes") == [("x", "a")]


# Microbatch models

DAILY = (
    "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='happened_at', batch_size='day',"
    " begin=BEGIN, lookback=1) }} select id, happened_at, cast(amount as integer) as amount"
    " from {{ source('raw', 'events') }}"
)
FIVE_DAYS = (
    "create table raw.events as select i as id, cast(current_date as timestamp) - interval (4 - i) day"
    " + interval 1 hour as happened_at, '10' as amount from range(5) t(i)"
)
EVENTS = [*SETUP, FIVE_DAYS]


def daily():
    return {
        "models/sources.yml": SOURCES,
        "models/daily.sql": DAILY.replace("BEGIN", f"'{days_ago(4)}'"),
        "models/total.sql": TABLE + "select count(*) as n, sum(amount) as amount from {{ ref('daily') }}",
    }


def test_batches_that_failed_are_built_when_the_model_is_tried_again(tmp_path):
    with lab(tmp_path, daily(), [*EVENTS, "update raw.events set amount = 'ten' where id = 1"]) as case:
        (run,) = case.cycle()
        assert (run.success, run.nodes["daily"][0], run.nodes["total"][0]) == (False, "failed", "skip")
        assert case.sql("select count(*) from main.daily") == [(4,)]
        case.sql("update raw.events set amount = '10' where id = 1")
        case.settle()
        assert case.sql("from main.total") == [(5, 50)]
        # A later failure is one more.
        case.sql("update raw.events set amount = 'ten' where id = 4")
        case.cycle()
        case.sql("update raw.events set amount = '11' where id = 4")
        case.settle()
        assert case.sql("from main.total") == [(5, 51)]


def test_a_model_that_was_reused_for_days_builds_their_batches(tmp_path):
    """dbt alone would look at its lookback from today on, whenever it built last."""
    with lab(tmp_path, daily(), EVENTS) as case:
        case.settle()
        assert case.sql("from main.total") == [(5, 50)]
        case.advance(days=3)
        case.sql("insert into raw.events values (9, cast(current_date as timestamp) + interval 25 hour, '5')")
        case.cycle()
        case.settle()
        assert case.sql("from main.total") == [(6, 55)]


def test_a_model_that_is_always_refreshed_keeps_the_batches_before_its_new_data(tmp_path):
    files = daily()
    files["models/daily.sql"] = files["models/daily.sql"].replace("lookback=1", "lookback=0, full_refresh=true")
    with lab(tmp_path, files, EVENTS) as case:
        case.settle()
        case.advance(days=2)
        case.sql("insert into raw.events values (9, cast(current_date as timestamp) + interval 1 hour, '5')")
        case.settle()
        assert case.sql("from main.total") == [(6, 55)]


# Builds of a part

PLAIN = {
    "models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: events}]}]",
    "models/t.sql": TABLE + "select * from {{ source('raw', 'events') }}",
    "models/inc.sql": (
        "{{ config(materialized='incremental') }} select * from {{ ref('t') }}"
        "{% if is_incremental() %} where id > (select max(id) from {{ this }}){% endif %}"
    ),
    "models/v.sql": VIEW + "select count(*) as n from {{ ref('inc') }}",
}


def test_what_a_command_limits_is_not_a_build(tmp_path):
    setup = [*SETUP, "create table raw.events as select range as id from range(3)"]
    with lab(tmp_path, PLAIN, setup, dbt_args=("build", "--empty")) as case:
        run = case.materialize("t", "inc", "v")
        assert (run.success, case.sql("from main.v")) == (True, [(0,)])
        assert run.nodes["t"][1].startswith("Built with --empty, so with a part of its rows. Not its last build")
        case.cycle()
        # Each of its builds is limited: it waits.
        assert case.cycle() == []
        assert case.decision("t")[0] == "hold"
        case.start_anew(dbt_args=("build",))
        case.advance(minutes=6)
        case.settle()
        assert case.sql("from main.v") == [(3,)]
        assert case.cycle() == []


def test_a_limited_build_of_what_was_whole_is_made_good_at_once(tmp_path):
    with lab(tmp_path, PLAIN, [*SETUP, "create table raw.events as select range as id from range(3)"]) as case:
        case.settle()
        case.start_anew(dbt_args=("build", "--empty"))
        case.materialize("t", "inc", "v")
        case.start_anew(dbt_args=("build",))
        assert case.decision("t")[1].startswith("Its last build was limited by --empty")
        case.settle()
        assert case.sql("select (select count(*) from main.t), n from main.v") == [(3, 3)]


def test_no_rows_are_added_to_those_of_a_limited_build_after_a_later_attempt_failed(tmp_path):
    setup = [*SETUP, "create table raw.events as select range as id from range(3)"]
    files = {**PLAIN, "models/inc.sql": PLAIN["models/inc.sql"].replace("max(id)", "coalesce(max(id), 1)")}
    broken = {"models/inc.sql": files["models/inc.sql"].replace("select *", "select cast('no' || id as integer) as id")}
    with lab(tmp_path, files, setup, dbt_args=("build", "--empty")) as case:
        case.materialize("t", "inc", "v")
        case.start_anew(dbt_args=("build",))
        case.edit(broken)
        assert case.job("t", "inc").nodes["inc"][0] == "failed"
        case.edit(files)
        case.settle()
        assert case.sql("from main.v") == [(3,)]


@pytest.mark.parametrize("befalls", ["its hook failed", "interrupted", "the run is deleted"])
def test_nor_to_those_of_a_limited_build_that_failed_itself(tmp_path, befalls):
    setup = [*SETUP, "create table raw.events as select range as id from range(3)"]
    rows = PLAIN["models/inc.sql"].replace("max(id)", "coalesce(max(id), 1)")
    hook = "{'sql': \"select case when count(*) = 0 then error('no rows') end from {{ this }}\", 'transaction': false}"
    if befalls == "its hook failed":
        rows = rows.replace("'incremental'", f"'incremental', post_hook={hook}")
    with lab(tmp_path, {**PLAIN, "models/inc.sql": rows}, setup, dbt_args=("build", "--empty")) as case:
        if befalls != "its hook failed":
            InProcessDbt.stage.accident = Accident(lose_events_from=1)
        assert not case.materialize("t", "inc").success
        assert case.sql("select count(*) from main.inc") == [(0,)]
        if befalls == "the run is deleted":
            case.delete_last_run()
        case.start_anew(dbt_args=("build",))
        case.advance(minutes=6)
        case.settle()
        assert case.sql("from main.v") == [(3,)]


MOVED = {
    "macros/places.sql": "{% macro generate_schema_name(name, node) %}{{ var('place') }}{% endmacro %}",
    "models/sources.yml": SOURCES,
}


def at(place):
    return {
        "dbt_project.yml": f"{{name: shop, version: 1.0.0, profile: shop, vars: {{place: {place}}},"
        " flags: {send_anonymous_usage_stats: false}}"
    }


def test_a_model_that_moves_back_after_a_failure_builds_the_batches_that_it_built_elsewhere(tmp_path):
    model = daily()["models/daily.sql"]
    broken = {"models/daily.sql": model.replace("cast(amount", "cast('no' || amount")}
    with lab(tmp_path, {**MOVED, **at("one"), "models/daily.sql": model}, EVENTS) as case:
        case.settle()
        case.sql("insert into raw.events select 9, min(happened_at), '10' from raw.events")
        case.edit(at("two"))
        assert case.decision("daily") == ("build", "Code changed: config: relation_name")
        case.settle()
        assert case.sql("select count(*) from two.daily") == [(6,)]
        case.edit(broken)
        assert case.cycle()[0].nodes["daily"][0] == "failed"
        case.edit({**at("one"), "models/daily.sql": model})
        case.settle()
        assert case.sql("select count(*) from one.daily") == [(6,)]


def test_no_rows_are_added_to_a_limited_build_in_the_place_that_a_model_moves_back_to(tmp_path):
    rows = PLAIN["models/inc.sql"].replace("max(id)", "coalesce(max(id), 1)")
    files = {**PLAIN, **MOVED, **at("one"), "models/inc.sql": rows}
    files["models/sources.yml"] = PLAIN["models/sources.yml"]
    setup = [*SETUP, "create table raw.events as select range as id from range(3)"]
    with lab(tmp_path, files, setup, dbt_args=("build", "--empty")) as case:
        case.materialize("t", "inc", "v")
        case.start_anew(dbt_args=("build",))
        case.edit(at("two"))
        case.settle()
        case.sql("insert into raw.events values (3)")
        case.edit({"models/inc.sql": rows.replace("select *", "select cast('no' || id as integer) as id")})
        assert case.job("t", "inc").nodes["inc"][0] == "failed"
        case.edit({**at("one"), "models/inc.sql": rows})
        case.settle()
        assert case.sql("from one.v") == [(4,)]


def test_what_a_test_answers_over_a_part_of_the_rows_is_no_verdict(tmp_path):
    unique = "columns: [{name: id, data_tests: [unique: {name: IDS}]}]"
    files = {
        **PLAIN,
        "models/sources.yml": (
            "sources: [{name: raw, schema: raw, tables: [{name: events, TESTS}]}]".replace("TESTS", unique)
        ).replace("IDS", "of_source"),
        "models/stg.sql": VIEW + "select * from {{ source('raw', 'events') }}",
        "models/p.yml": f"models: [{{name: stg, {unique}}}]".replace("IDS", "of_view"),
    }
    setup = [*SETUP, "create table raw.events as select range as id from range(3)"]
    with lab(tmp_path, files, setup) as case:
        case.settle()
        case.sql("insert into raw.events values (2)")
        case.start_anew(dbt_args=("build", "--empty"))
        run = case.job()
        assert run.tests == {"of_source": "pass", "of_view": "pass"}
        case.cycle()
        # Each of its answers is limited: it waits.
        assert case.cycle() == []
        case.start_anew(dbt_args=("build",))
        assert case.job().tests == {"of_source": "fail", "of_view": "fail"}
        assert case.decision("t") == ("hold", "Upstream test failed: of_source")
