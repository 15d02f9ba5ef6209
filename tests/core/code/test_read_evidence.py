"""The evidence of a build, made from the reads that dbt recorded and the SQL that it compiled."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dagster_sao.core.code.context_values import Surroundings
from dagster_sao.core.code.evidence import Evidence
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.read_evidence import EvidenceReader
from dagster_sao.core.code.variables import Variables
from dbt_dagster_sao.trace import Query, Trace
from tests.core.manifests import data_test, macro, manifest, model, source

KINDS = frozenset(
    [
        "config",
        "dbt_version",
        "env_var",
        "flags",
        "graph",
        "macros",
        "meta",
        "model",
        "queries",
        "state",
        "target",
        "var",
    ]
)
ORDERS = '"db"."raw"."orders"'


def world(raw="{{ var(x) }}", **config):
    macros = {
        f"macro.shop.{name}": macro(name, f"{{% macro {name}() %}}1{{% endmacro %}}") for name in ("cents", "other")
    }
    node = model("m", "source.shop.raw.orders", raw_code=raw, config=config)
    test = data_test("t", "m")
    return Fingerprinter(
        manifest([node, test], [source("raw", "orders"), source("raw", "items")], macros=macros),
        Surroundings(Variables(project={"a": 1}), {"B": "2"}),
    )


def trace(**seen):
    return Trace(**{"node": "model.shop.m", "kinds": KINDS, "existed": True, **seen})


def evidence(seen, compiled=f"select * from {ORDERS}", code=None) -> Evidence:
    code = code or world()
    node = code.graph.nodes["model.shop.m"]
    return EvidenceReader(code).of_node(node, code.fingerprint(node), seen, compiled)


def test_without_a_trace_all_that_may_be_read_counts():
    found = evidence(None)
    assert found.reads is None
    assert found.is_deterministic


@pytest.mark.parametrize("seen", [None, trace()])
def test_the_sql_of_a_view_is_kept_by_its_normal_form(seen):
    view, sql = world(materialized="view"), f"select a from {ORDERS}"
    kept = evidence(seen, sql, view).definition
    assert kept
    assert evidence(seen, f"{sql} -- edited", view).definition == kept
    assert evidence(seen, sql.replace("a", "'now' as a", 1), view).definition != kept
    assert evidence(seen, sql, world(materialized="table")).definition == ""


def test_what_was_read_is_kept_with_what_it_is_now():
    reads = {"var: a": "?", "env_var: B": "?", "config: meta": "?", "has_var: c": "?", "this: *": "?", "clock": "?"}
    code = world()
    found = evidence(trace(reads=reads, macros=("macro.shop.cents",)), code=code).reads
    names = {"var: a", "env_var: B", "config: meta", "var: c", "macro: macro.shop.cents"}
    assert found.values == {name: code.value_now("model.shop.m", name) for name in names}


def test_what_the_fingerprint_names_anyway_is_not_kept_twice():
    found = evidence(
        trace(reads={"var: a": "?"}, macros=("macro.shop.cents",)), code=world("{{ var('a') }}{{ cents() }}")
    )
    assert found.reads.values == {}


def test_kinds_that_were_not_watched_are_unseen():
    assert evidence(trace(kinds=KINDS - {"target", "macros"})).reads.unseen == {"target", "macro"}
    assert evidence(trace(reads={"context: *": "?"})).reads.unseen >= {"var", "env_var", "macro"}


@pytest.mark.parametrize(
    ("config", "seen", "follows_state"),
    [
        ({}, {}, False),
        ({}, {"existed": False}, False),
        ({}, {"existed": False, "state": ("is_incremental() = false",)}, True),
        ({}, {"existed": False, "state": ("get_relation(db.main.m) = -",)}, True),
        ({}, {"existed": True, "state": ("get_relation(db.main.m) = table",)}, False),
        ({"materialized": "incremental"}, {"existed": True, "state": ("is_incremental() = true",)}, False),
        ({"materialized": "incremental"}, {"existed": False}, True),
        ({"materialized": "incremental"}, {"full_refresh": True}, True),
        ({"materialized": "incremental"}, {"existed": None}, True),
        ({"pre-hook": [{"sql": "select 1"}]}, {"existed": False}, True),
        ({}, {"kinds": KINDS - {"state"}}, True),
        ({}, {"kinds": KINDS - {"queries"}}, True),
    ],
)
def test_the_next_build_takes_another_way_after_one_that_found_nothing_there(config, seen, follows_state):
    assert evidence(trace(**seen), code=world(**config)).reads.follows_state is follows_state


@pytest.mark.parametrize(
    ("seen", "asks", "untracked"),
    [
        ({"queries": (Query("sql", (f"select max(id) from {ORDERS}",), "?"),)}, "rows", ()),
        ({"queries": (Query("get_columns_in_relation", (("db", "raw", "orders"),), "?"),)}, "columns", ()),
        ({"queries": (Query("get_columns", (("db", "raw", "orders"),), "?"),)}, "rows", ()),
        ({"queries": (Query("sql", ("select * from raw.items",), "?"),)}, "others", ("raw.items",)),
        ({"queries": (Query("sql", ("select 1 as id",), "?"),)}, "", ()),
        ({"queries": (Query("sql", ("select version()",), "?"),)}, "others", ("a query: select version()",)),
        ({"queries": (Query("sql", ("b5ab5c",), "?", is_shortened=True),)}, "others", ("a query",)),
        ({"queries": (Query("list_relations", ("db", "raw"), "?"),)}, "others", ("list_relations(db)",)),
        ({"state": ("get_relation(db.raw.orders) = table",)}, "columns", ()),
        ({"state": ("get_relation(db.raw.items) = -",)}, "others", ("get_relation(db.raw.items)",)),
        ({"state": ("check_schema_exists(db, raw) = true",)}, "", ()),
        ({"state": ("check_schema_exists(db, raw) = false",)}, "others", ("check_schema_exists(db, raw)",)),
        ({"reads": {"shared: graph.limit": "?"}}, "others", ("graph.limit, which templates share",)),
    ],
)
def test_questions_to_the_warehouse_are_about_parents_or_about_what_dbt_does_not_know(seen, asks, untracked):
    found = evidence(trace(**seen))
    asked = [name for name in ("rows", "columns", "others") if getattr(found.reads, f"asks_{name}")]
    assert (" ".join(asked), found.untracked) == (asks, untracked)
    assert found.is_deterministic is not bool(untracked)


HOOK = {"post-hook": [{"sql": "insert into {{ this }} select id from raw.items"}]}
RUN = (
    f'create table "db"."main"."m" as select * from {ORDERS}',
    'insert into "db"."main"."m" select id from raw.items',
)


@pytest.mark.parametrize(
    ("config", "seen", "untracked", "is_deterministic"),
    [
        ({}, {"statements": RUN}, (), True),
        (HOOK, {"statements": RUN}, ("raw.items",), False),
        (HOOK, {"statements": RUN[:1]}, (), True),
        (HOOK, {"statements": (*RUN[:1], 'grant select on "db"."main"."m" to reporter')}, (), True),
        (HOOK, {"statements": (*RUN[:1], 'update "db"."main"."m" set id = my_function(id)')}, (), False),
        (HOOK, {"statements": (*RUN[:1], "")}, ("a statement that was not recorded",), False),
        (
            {"sql_header": "set variable x = (select 1 from raw.items)"},
            {"statements": (RUN[1],)},
            ("raw.items",),
            False,
        ),
        (HOOK, None, ("raw.items",), False),
        (HOOK, {"kinds": KINDS - {"queries"}}, ("raw.items",), False),
    ],
)
def test_hooks_and_other_statements_tell_what_dbt_does_not_know(config, seen, untracked, is_deterministic):
    found = evidence(None if seen is None else trace(**seen), code=world("select 1", **config))
    assert (found.untracked, found.is_deterministic) == (untracked, is_deterministic)


@pytest.mark.parametrize(
    ("seen", "follows_state", "asks_rows"),
    [
        ({"state": ("get_relation(db.main.m) = -",), "statements": ("create table db.main.m as select 1 as a",)}, True, False),
        ({"queries": (Query("sql", ("select 1 from db.main.m",), "?"),), "statements": ("create table db.main.m as select 1 as a",)}, True, False),
        ({"queries": (Query("sql", (f"select 1 from {ORDERS}",), "?"),), "statements": (f"create or replace table {ORDERS} as select 1 as a",)}, False, True),
    ],
)  # fmt: skip
def test_what_is_asked_of_a_relation_counts_though_a_statement_makes_it_anew(seen, follows_state, asks_rows):
    code = world(materialized="table", **{"post-hook": ["analyze"]})
    found = evidence(trace(existed=not follows_state, **seen), code=code).reads
    assert (found.follows_state, found.asks_rows) == (follows_state, asks_rows)


def _python(code, imported=None, trusted=()):
    node = world(code, materialized="table", meta={"dagster_sao": {"trusted_imports": [*trusted]}})
    node._manifest["nodes"]["model.shop.m"]["language"] = "python"
    return Fingerprinter(node._manifest, imported=lambda _code: imported or {})


def test_a_python_model_tells_what_dbt_does_not_know():
    code = _python("def model(dbt, session): return session.sql('select * from raw.items')")
    assert evidence(trace(), "", code=code).untracked == ("raw.items",)


IMPORTS = "import acme.rates, pandas, rates\n\ndef model(dbt, session): return rates.of(dbt.ref('orders'))"


@pytest.mark.parametrize(
    ("imported", "trusted", "untracked"),
    [
        ({}, (), ("import acme.rates", "import rates")),
        ({"rates": "import fees"}, (), ("import acme.rates", "import fees")),
        ({"rates/__init__.py": "import acme", "rates/of.py": "import rates.tables"}, (), ("import acme", "import acme.rates")),
        ({"rates": ""}, ("acme",), ()),
        ({"rates": "open('x')"}, ("acme.rates",), ("open('x')",)),
    ],
)  # fmt: skip
def test_a_library_that_is_not_known_to_compute_only_may_read_anything(imported, trusted, untracked):
    assert evidence(trace(), "", code=_python(IMPORTS, imported, trusted)).untracked == untracked


SNAPSHOT = (
    f'create temporary table "m__dbt_tmp" as with snapshot_query as (select * from {ORDERS}) select * from snapshot_query',
    'update "db"."main"."m" set dbt_valid_to = t.dbt_valid_to from "m__dbt_tmp" as t where t.id = "m".id',
)


@pytest.mark.parametrize(
    ("seen", "untracked"),
    [
        ({"statements": SNAPSHOT}, ()),
        ({"statements": (SNAPSHOT[0].replace(ORDERS, "raw.items"), SNAPSHOT[1])}, ("raw.items",)),
        ({}, ("SQL that dbt did not write",)),
        ({"statements": SNAPSHOT, "kinds": KINDS - {"queries"}}, ("SQL that dbt did not write",)),
    ],
)
def test_a_snapshot_whose_sql_dbt_does_not_write_is_known_by_its_statements(seen, untracked):
    code = world(f"select * from {ORDERS}", materialized="snapshot")
    code._manifest["nodes"]["model.shop.m"]["resource_type"] = "snapshot"
    assert evidence(trace(**seen), None, code=Fingerprinter(code._manifest)).untracked == untracked


def test_what_is_made_from_a_query_that_may_answer_otherwise_is_not_proven():
    asked = Query("sql", (f"select id from {ORDERS} limit 1",), "?")
    assert not evidence(trace(queries=(asked,))).is_deterministic


@pytest.mark.parametrize(
    ("compiled", "untracked", "is_deterministic"),
    [
        (f"select * from {ORDERS}", (), True),
        (f"select * from {ORDERS} join raw.items using (id)", ("raw.items",), False),
        ("select * from raw.orders", (), True),
        (f"select * from {ORDERS} where id not in (select id from orders)", ("orders",), False),
        (f"with Orders as (select * from {ORDERS}) select * from orders", (), True),
        ('select * from "db"."main"."m"', (), False),
        ("select now()", (), False),
        (None, ("SQL that dbt did not write",), False),
        ("", (), False),
    ],
)
def test_the_compiled_sql_tells_what_dbt_does_not_know(compiled, untracked, is_deterministic):
    found = evidence(trace(), compiled)
    assert (found.untracked, found.is_deterministic) == (untracked, is_deterministic)


def test_what_reads_the_clock_is_not_proven():
    assert not evidence(trace(reads={"clock": "?"})).is_deterministic


def test_a_test_reads_what_it_is_about():
    code = world()
    test = code.graph.tests["test.shop.t.1"]
    compiled = 'select * from "db"."main"."m" where id in (select id from raw.items)'
    found = EvidenceReader(code).of_test(test, code.test_fingerprint(test), trace(node=test.unique_id), compiled)
    assert found.untracked == ("raw.items",)
    assert isinstance(found.reads.values, Mapping)
