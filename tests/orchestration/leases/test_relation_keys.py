"""A lease covers a relation however its name is written; a writer's record belongs to just one relation of one warehouse."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dagster_sao.core.manifest.build_settings import BuildSettings
from dagster_sao.orchestration.leases.relation_keys import lease_keys, writer_keys


def keys(adapter, name, place="host 5432", file=""):
    nodes = {"a": SimpleNamespace(relation_name=name, settings=BuildSettings(file=file))}
    graph = SimpleNamespace(adapter_type=adapter, nodes=nodes, functions={})
    dbt_project = SimpleNamespace(project_dir="/shop")
    loaded = SimpleNamespace(warehouse=place, project=SimpleNamespace(graph=graph), dbt_project=dbt_project)
    return lease_keys("shop", graph)["a"], writer_keys(loaded).get("a")


PAIRS = {
    "other quotes": ("postgres", '"db"."main"."orders"', "db.main.orders", True, True),
    "other case of quoted names": ("postgres", '"db"."main"."Orders"', '"db"."main"."orders"', True, False),
    "folded to upper case": ("snowflake", '"DB"."MAIN"."ORDERS"', "db.main.orders", True, True),
    "an adapter of which nothing is known": ("rock", "`db`.`main`.`orders`", "db.main.ORDERS", True, True),
    "another relation": ("postgres", "db.main.orders", "db.main.customers", False, False),
    "another schema": ("postgres", "db.main.orders", "db.other.orders", False, False),
    "not a plain name": ("duckdb", "read_csv('A.csv')", "read_csv('a.csv')", True, False),
}


@pytest.mark.parametrize(("adapter", "one", "other", "share_lease", "share_writer"), PAIRS.values(), ids=PAIRS.keys())
def test_spellings_of_one_relation_share_its_keys(adapter, one, other, share_lease, share_writer):
    (lease, writer), (other_lease, other_writer) = keys(adapter, one), keys(adapter, other)
    assert (lease == other_lease, writer == other_writer) == (share_lease, share_writer)


def test_a_lease_is_one_for_all_warehouses_and_a_writer_is_not():
    name = "db.main.orders"
    assert keys("postgres", name)[0] == keys("postgres", name, "elsewhere")[0] == keys("postgres", name, "")[0]
    assert keys("postgres", name)[1] != keys("postgres", name, "elsewhere")[1]
    assert keys("postgres", name, "")[1] is None


def test_what_has_no_relation_has_a_lease_of_its_project():
    lease, writer = keys("postgres", None)
    assert writer is None
    assert lease != keys("postgres", '"shop.b"')[0]


def test_the_writer_of_an_external_model_is_the_writer_of_its_file():
    (_, writer), (_, other) = (
        keys("duckdb", name, file=file) for name, file in (("a", "x/o.csv"), ("b", "/shop/x/o.csv"))
    )
    assert writer == other != keys("duckdb", "a")[1]
