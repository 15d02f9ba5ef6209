"""One truth per relation: only the record of its last writer describes its rows."""

from __future__ import annotations

import json

import pytest

from dagster_sao import StateAwareProject, build_state_aware_job
from tests.histories.inprocess_dbt import Accident, InProcessDbt
from tests.histories.lab import TABLE, VIEW, lab

pytestmark = pytest.mark.slow

SOURCES = {
    "models/sources.yml": """
sources:
  - name: raw
    schema: raw
    tables: [{name: orders}, {name: items}]
"""
}
SETUP = [
    "create schema raw",
    "create table raw.orders as select * from (values (1, 10), (2, 20)) t(id, amount)",
    "create table raw.items as select 1 as id",
]
ORDERS = "{{ source('raw', 'orders') }}"
ITEMS = "(select count(*) from {{ source('raw', 'items') }}) as items"
TWO_TARGETS = {
    **SOURCES,
    "profiles.yml": """
shop:
  target: warehouse
  outputs:
    warehouse: {type: duckdb, path: "FOLDER/warehouse.duckdb", threads: 1}
    big: {type: duckdb, path: "FOLDER/warehouse.duckdb", threads: 2}
""",
}
NOTHING_NEW = ("reuse", "No new changes on any upstreams")


def alias(name, sql, materialized="table"):
    return f"{{{{ config(materialized='{materialized}', alias='{name}') }}}} {sql}"


def deploy(case, files, *removed):
    """Put files in the place of others, and start the code server anew."""
    for name in removed:
        (case.folder / name).unlink()
    case.edit(files)
    case.restart()


def build_elsewhere(case):
    """Build all that needs it with the target `big`, in the same schema."""
    StateAwareProject.from_definitions(case.definitions, instance=case.instance, target="big").build()


def test_a_model_that_was_renamed_and_is_back_is_built_again(tmp_path):
    first = {"models/orders_a.sql": alias("orders", f"select id, amount from {ORDERS}")}
    second = {"models/orders_b.sql": alias("orders", f"select id, amount * 100 as amount from {ORDERS}")}
    with lab(tmp_path, {**SOURCES, **first}, SETUP) as case:
        case.settle()
        deploy(case, second, *first)
        case.settle()
        run = case.told[-1].run_id
        deploy(case, first, *second)
        why = f'"warehouse"."main"."orders" was overwritten by orders_b in run {run[:8]}'
        assert case.decision("orders_a") == ("build", why)
        case.settle()
        assert case.sql("select sum(amount) from main.orders") == [(30,)]
        assert case.decision("orders_a") == NOTHING_NEW


def test_an_incremental_model_that_is_back_does_not_add_to_the_rows_of_another(tmp_path):
    rows = "{% if is_incremental() %} where id > (select max(id) from {{ this }}) {% endif %}"
    first = {"models/a.sql": alias("orders", f"select id, amount from {ORDERS} {rows}", "incremental")}
    second = {"models/b.sql": alias("orders", f"select id, amount * 100 as amount from {ORDERS}")}
    with lab(tmp_path, {**SOURCES, **first}, SETUP) as case:
        case.settle()
        deploy(case, second, *first)
        case.settle()
        deploy(case, first, *second)
        case.settle()
        assert case.sql("select sum(amount) from main.orders") == [(30,)]


def test_nor_does_it_after_an_attempt_that_failed_on_these_rows(tmp_path):
    amount = "case when amount < 0 then error('no such amount') else amount end as amount"
    rows = "{% if is_incremental() %} where id > (select max(id) from {{ this }}) {% endif %}"
    first = {"models/a.sql": alias("orders", f"select id, {amount} from {ORDERS} {rows}", "incremental")}
    second = {"models/b.sql": alias("orders", f"select id, amount * 100 as amount from {ORDERS}")}
    with lab(tmp_path, {**SOURCES, **first}, SETUP) as case:
        case.settle()
        deploy(case, second, *first)
        case.settle()
        case.sql("insert into raw.orders values (9, -1)")
        deploy(case, first, *second)
        (run,) = case.cycle()
        assert run.nodes["a"][0] == "failed"
        case.sql("delete from raw.orders where id = 9")
        case.settle()
        assert case.sql("select sum(amount) from main.orders") == [(30,)]


def test_swapped_aliases_are_followed_there_and_back(tmp_path):
    def models(one, other):
        return {
            "models/a.sql": alias(one, f"select 'a' as who, count(*) as n from {ORDERS}"),
            "models/b.sql": alias(other, f"select 'b' as who, count(*) as n from {ORDERS}"),
            "models/c.sql": alias(
                "c", "select who from {{ ref('a') }} union all select who || '!' from {{ ref('b') }}"
            ),
        }

    with lab(tmp_path, {**SOURCES, **models("x", "y")}, SETUP) as case:
        case.settle()
        for one, other in (("y", "x"), ("x", "y")):
            deploy(case, models(one, other))
            case.settle()
            found = case.sql(f"select (select who from main.{one}), (select who from main.{other})")
            assert found == [("a", "b")]
            assert set(case.sql("select who from main.c")) == {("a",), ("b!",)}


def test_what_another_target_wrote_is_not_taken_for_the_own_build(tmp_path):
    files = {**TWO_TARGETS, "models/t.sql": TABLE + f"select id, amount from {ORDERS}"}
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (4, -40)")
        build_elsewhere(case)
        assert case.sql("select sum(amount) from main.t") == [(-10,)]
        case.sql("delete from raw.orders where id = 4")
        case.look()
        action, message = case.decision("t")
        assert (action, message.split(" in run ")[0]) == (
            "build",
            '"warehouse"."main"."t" was overwritten by t of shop.big',
        )
        case.settle()
        assert case.sql("select sum(amount) from main.t") == [(30,)]


def test_two_targets_that_write_the_same_rows_leave_them_alone(tmp_path):
    files = {**TWO_TARGETS, "models/t.sql": TABLE + f"select id, amount from {ORDERS}"}
    with lab(tmp_path, files, SETUP) as case:
        case.settle()
        build_elsewhere(case)
        assert case.decision("t") == NOTHING_NEW


HOOK = "select case when id = 9 then error('no') end from {{ this }}"
PARENT_AND_CHILD = {
    **SOURCES,
    "models/m.sql": f"{{{{ config(materialized='table', post_hook={HOOK!r}) }}}} select id, amount from {ORDERS}",
    "models/c.sql": TABLE + "select count(*) as n, " + ITEMS + " from {{ ref('m') }}",
}
"""A model whose hook fails after its rows are there, and one that reads it."""


def test_what_was_built_by_hand_on_a_failed_attempt_is_built_again_after_its_repair(tmp_path):
    with lab(tmp_path, PARENT_AND_CHILD, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (9, 90)")
        (run,) = case.cycle()
        assert run.nodes["m"][0] == "failed"
        case.materialize("c")
        case.sql("delete from raw.orders where id = 9")
        case.settle()
        assert case.sql("select n from main.c") == case.sql("select count(*) from main.m") == [(2,)]


def test_a_failure_outlives_its_run(tmp_path):
    with lab(tmp_path, PARENT_AND_CHILD, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (9, 90)")
        (run,) = case.cycle()
        assert run.nodes["m"][0] == "failed"
        case.delete_last_run()
        case.restart()
        case.sql("insert into raw.items values (2)")
        case.look()
        assert case.decision("m")[0] == "hold"
        assert case.decision("c") == ("skip", "Upstream failed: m")
        case.job("c")
        assert case.told[-1].nodes["c"] == ("skip", "Upstream failed: m")
        case.sql("delete from raw.orders where id = 9")
        case.settle()
        assert case.sql("select n, items from main.c") == [(2, 2)]


def test_an_interruption_outlives_its_run(tmp_path):
    with lab(tmp_path, PARENT_AND_CHILD, SETUP) as case:
        case.settle()
        case.sql("insert into raw.orders values (3, 30)")
        InProcessDbt.stage.accident = Accident(lose_events_from=1)
        case.cycle()
        case.delete_last_run()
        case.sql("delete from raw.orders where id = 3")
        case.restart()
        case.look()
        action, message = case.decision("m")
        assert (action, message.split(" interrupted ")[0]) == ("build", "Its last build was")
        case.settle()
        assert case.sql("select n from main.c") == case.sql("select count(*) from main.m") == [(2,)]


def _manifest_of_prod(case):
    """Return the folder with the manifest of an environment that has `m` in another schema."""
    folder = case.folder / "prod"
    manifest = json.loads((case.folder / "target/manifest.json").read_text())
    manifest["nodes"]["model.shop.m"] |= {"schema": "prod", "relation_name": '"warehouse"."prod"."m"'}
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


PROD = ["create schema prod", "create table prod.m as select 7 as id"]


def test_what_was_read_from_another_environment_is_not_taken_for_the_own(tmp_path):
    with lab(tmp_path, PARENT_AND_CHILD, [*SETUP, *PROD]) as case:
        case.settle()
        project = StateAwareProject.from_definitions(case.definitions, instance=case.instance)
        project.build("c", state=_manifest_of_prod(case), defer=True, favor_state=True)
        assert case.sql("select n from main.c") == [(1,)]
        assert case.decision("c") == ("build", "New changes detected: m")


def test_with_favor_state_a_reused_model_of_the_selection_is_read_from_elsewhere_too(tmp_path):
    files = {
        **SOURCES,
        "models/m.sql": TABLE + f"select count(*) as n from {ORDERS}",
        "models/v.sql": VIEW + "select n from {{ ref('m') }}",
        "models/t.sql": TABLE + "select n from {{ ref('v') }}",
        "models/c.sql": TABLE + "select n from {{ ref('m') }}",
        "tests/few.sql": "{{ config(severity='warn') }} select * from {{ ref('m') }} where n > 5",
    }
    edited = {f"models/{name}.sql": files[f"models/{name}.sql"].replace("n from", "n + 0 as n from") for name in "vc"}
    edited["tests/few.sql"] = files["tests/few.sql"].replace("*", "n")
    read = "select v.n, t.n, c.n from main.v, main.t, main.c"
    with lab(tmp_path, files, [*SETUP, "create schema prod", "create table prod.m as select 7 as n"]) as case:
        case.settle()
        case.edit(edited)
        project = StateAwareProject.from_definitions(case.definitions, instance=case.instance)
        results = project.build(state=_manifest_of_prod(case), defer=True, favor_state=True, raise_on_failure=False)
        assert results["model.shop.m"].status.value == "reused"
        assert case.sql(read) == [(7, 7, 7)]
        assert case.verdicts == {"few": "warn"}
        case.settle()
        assert case.sql(read) == [(2, 2, 2)]
        assert case.verdicts == {"few": "pass"}


def test_nor_is_what_was_read_from_there_because_it_was_dropped_here(tmp_path):
    files = {**PARENT_AND_CHILD, "models/m.sql": TABLE + f"select id, amount from {ORDERS}"}
    with lab(tmp_path, files, [*SETUP, *PROD]) as case:
        case.settle()
        case.sql("drop table main.m")
        project = StateAwareProject.from_definitions(case.definitions, instance=case.instance)
        project.build("c", state=_manifest_of_prod(case), defer=True, force="c", refresh_sources=False)
        assert case.sql("select n from main.c") == [(1,)]
        assert case.decision("m") == ("build", '"warehouse"."main"."m" no longer exists')
        assert case.decision("c") == ("build", "New changes detected: m")


def test_a_version_that_takes_the_alias_of_another_is_not_built_on_its_rows(tmp_path):
    """The alias is the asset key of a version, so the new one finds the record of the other."""
    versions = "models: [{name: m, versions: [{v: 1, config: {alias: ONE}}, {v: 2, config: {alias: TWO}}]}]"
    appended = "{{ config(materialized='incremental') }} select N as n"
    files = {
        "models/m_v1.sql": appended.replace("N", "1"),
        "models/m_v2.sql": appended.replace("N", "2"),
        "models/p.yml": versions.replace("ONE", "m").replace("TWO", "m_v2"),
    }
    with lab(tmp_path, files, [], jobs=[build_state_aware_job("all_of_it")]) as case:
        run_job(case, "all_of_it")
        case.edit({"models/p.yml": versions.replace("ONE", "m_v1").replace("TWO", "m")})
        case.restart()
        run_job(case, "all_of_it")
        assert case.sql("from main.m") == [(2,)]
        assert {case.decision(name)[0] for name in ("v1", "v2")} == {"reuse"}


def test_a_new_model_that_takes_the_alias_of_another_is_not_built_on_its_rows(tmp_path):
    appended = "{{ config(materialized='incremental', alias='NAME') }} select N as n"
    files = {"models/a.sql": appended.replace("NAME", "m").replace("N", "1")}
    with lab(tmp_path, files, [], jobs=[build_state_aware_job("all_of_it")]) as case:
        run_job(case, "all_of_it")
        case.edit(
            {
                "models/a.sql": appended.replace("NAME", "old_m").replace("N", "1"),
                "models/b.sql": appended.replace("NAME", "m").replace("N", "2"),
            }
        )
        case.restart()
        run_job(case, "all_of_it")
        assert case.sql("from main.m") == [(2,)]


def run_job(case, name):
    job = case._repository.get_job(name)
    assert job.execute_in_process(instance=case.instance, raise_on_error=False).success
