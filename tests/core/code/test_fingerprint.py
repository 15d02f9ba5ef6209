"""What counts as a change of code, and what does not: one edit per model of a real project, and its message."""

from __future__ import annotations

import copy
from datetime import date

import pytest

from dagster_sao.core.code.context_values import ContextValues, Surroundings
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.variables import Variables
from dagster_sao.core.manifest.graph import NodeKind
from tests.conftest import CORE_PROJECT, copy_core_project, run_dbt
from tests.core.manifests import macro, manifest, model, seed, source

QUERY = "select id, name from {{ source('raw', 'orders') }}"

# File -> (before, after). All edits are made at once, and dbt parses once.
EDITS = {
    "models/code/comment_edit.sql": (QUERY, f"-- why\n{{# and why not #}}{QUERY} /* because */"),
    "models/code/white_space_edit.sql": (QUERY, "select\n    id,\n\tname\n  from {{source( 'raw','orders' )}}\n\n"),
    "models/code/keyword_case_edit.sql": (QUERY, "SELECT id, name FROM {{ source('raw', 'orders') }}"),
    "models/code/parentheses_edit.sql": (QUERY, "select (id), ((name)) from {{ source('raw', 'orders') }}"),
    "models/code/semicolon_edit.sql": (QUERY, f"{QUERY};"),
    "models/code/sql_edit.sql": (QUERY, "select id, name as nom from {{ source('raw', 'orders') }}"),
    "models/code/literal_edit.sql": ("'Red'", "'red'"),
    "macros/code.sql": [
        ("* 100", "* 1000"),
        ("'inner'", "'outer'"),
        ("{# before #}", "{# after, and longer #}"),
        ("select 'grant'", "select 'revoke'"),
        ("unreached() %}1", "unreached() %}2"),
        ("create or replace table", "create  or replace table"),
    ],
    "models/code/ephemeral_edit.sql": ("select 1 as id", "select 2 as id"),
    "models/code/var_default_edit.sql": ("'unset', 1", "'unset', 2"),
    "models/code/hook_edit.sql": ("select 1'", "select 2'"),
    "models/code/hook_comment_edit.sql": ("select  1 -- why", "select 1 -- because"),
    "models/code/grants_edit.sql": ("['ann']", "['ann', 'bob']"),
    "models/code/alias_edit.sql": ("old_alias", "new_alias"),
    "models/code/materialized_edit.sql": ("'table'", "'view'"),
    "models/code/incremental_edit.sql": (
        "unique_key='id', incremental_strategy='append', on_schema_change='ignore'",
        "unique_key=['id'], incremental_strategy='delete+insert', on_schema_change='fail'",
    ),
    "models/code/parent_edit.sql": ("sql_edit", "literal_edit"),
    "models/code/python_comment_edit.py": ("# a comment", "# another comment\n"),
    "models/code/python_edit.py": ("select 1", "select 2"),
    "models/code/code.yml": [
        ("description: before\n", "description: after\n"),
        ("description: before}", "description: after}"),
        ("tags: [before]", "tags: [after]"),
        ("owner: before", "owner: after"),
        ("docs: {show: true}", "docs: {show: false}"),
        ("count: 1", "count: 2"),
        ("data_type: integer", "data_type: bigint"),
    ],
    "models/sources.yml": [("      - name: moved\n", "      - name: moved\n        identifier: elsewhere\n")],
    "seeds/countries.csv": ("Norway", "Sweden"),
    "dbt_project.yml": [
        ("everywhere: 1", "everywhere: 2"),
        ("unread: 1", "unread: 2"),
        ("  shared: 1\n", "  shared: 2\n"),
        ("    scoped: 1", "    scoped: 2"),
        ("    of_ephemeral: 10", "    of_ephemeral: 11"),
        ("+check_cols: all", "+check_cols: [id]"),
    ],
}

# What the message names; what is not listed has the same code as before.
CHANGED = {
    "sql_edit": {"sql"},
    "parentheses_edit": {"sql"},
    "literal_edit": {"sql"},
    "macro_edit": {"macro: cents"},
    "nested_macro_edit": {"macro: nested_inner"},
    "macro_through_ephemeral_edit": {"macro: cents"},
    "reads_ephemeral_edit": {"ephemeral: ephemeral_edit"},
    "var_value_edit": {"var: everywhere"},
    "var_default_edit": {"sql"},
    "var_in_macro_edit": {"var: everywhere"},
    "var_of_own_package_edit": {"var: scoped"},
    "var_in_macro_of_package_edit": {"var: shared"},
    "var_in_ephemeral_of_package_edit": {"var: of_ephemeral"},
    "env_var_edit": {"env_var: SHOP_REGION"},
    "hook_macro_edit": {"macro: after_build"},
    "hook_edit": {"config: pre-hook"},
    "contract_edit": {"config: contract"},
    "grants_edit": {"config: grants"},
    "alias_edit": {"config: relation_name"},
    "materialized_edit": {"config: materialized"},
    "materialization_edit": {"macro: materialization_special_duckdb"},
    "incremental_edit": {"config: unique_key", "config: incremental_strategy", "config: on_schema_change"},
    "source_moved_edit": {"source: raw.moved"},
    "parent_edit": {"sql", "parents"},
    "python_edit": {"sql"},
    "countries": {"file"},
    "kept": {"config: check_cols"},
}


def variables(folder):
    import yaml

    project = yaml.safe_load((folder / "dbt_project.yml").read_text())
    package = yaml.safe_load((folder / "packages/pack/dbt_project.yml").read_text())
    return Variables(project=project["vars"], packages={"pack": package["vars"]})


def fingerprints(fingerprinter):
    return {node.name: fingerprinter.fingerprint(node) for node in fingerprinter.graph.nodes.values()}


@pytest.fixture(scope="module")
def before(core_manifest):
    return fingerprints(Fingerprinter(core_manifest, Surroundings(variables(CORE_PROJECT), {"SHOP_REGION": "north"})))


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edited") / "shop"
    copy_core_project(folder)
    for path, edits in EDITS.items():
        text = (folder / path).read_text()
        for old, new in edits if isinstance(edits, list) else [edits]:
            assert old in text, (path, old)
            text = text.replace(old, new)
        (folder / path).write_text(text)
    return fingerprints(
        Fingerprinter(run_dbt(folder, "parse"), Surroundings(variables(folder), {"SHOP_REGION": "south"}))
    )


@pytest.mark.parametrize("name", CHANGED)
def test_an_edit_that_counts_is_named(before, after, name):
    assert set(after[name].changes_since(before[name])) == CHANGED[name]


def test_nothing_else_counts(before, after):
    """Comments, white space, case of keywords, docs, tags, owners, freshness, unread macros and variables."""
    changed = {name for name in after if after[name].changes_since(before[name])}
    assert changed == set(CHANGED)


def test_a_macro_of_the_materialization_counts_also_where_the_compiled_sql_is_the_same():
    """The compiled SQL is only what the materialization is given."""

    def world(body):
        special = {**macro("materialization_special_duckdb", body), "macro_sql": body}
        node = model("m", config={"materialized": "special"}, compiled_code="select 1 as id")
        return manifest([node], macros={special["unique_id"]: special})

    old, new = (of(world(f"create table {{{{ sql }}}} {suffix}")) for suffix in ("", "limit 1"))
    assert new["m"].changes_since(old["m"]) == ("macro: materialization_special_duckdb",)


def of(world, *, seed_checksums=None, cache=None, **surroundings):
    return fingerprints(Fingerprinter(world, Surroundings(**surroundings), seed_checksums=seed_checksums, cache=cache))


def changes(old, new, name="m"):
    return of(new)[name].changes_since(of(old)[name])


# Parsed, compiled and back


def compiled(world, **code):
    world = copy.deepcopy(world)
    for node in world["nodes"].values():
        if node["name"] in code:
            node["compiled_code"] = code[node["name"]]
    return world


@pytest.fixture
def plain():
    cents = macro("cents", "{% macro cents(c) %}{{ c }} * 100{% endmacro %}")
    node = model("m", raw_code="select {{ cents('a') }} as a", depends_on={"nodes": [], "macros": [cents["unique_id"]]})
    return manifest([node], macros={cents["unique_id"]: cents})


def test_compiling_a_parsed_project_changes_nothing_nor_does_parsing_a_compiled_one(plain):
    built = compiled(plain, m="select a * 100 as a")
    assert changes(plain, built) == changes(built, plain) == changes(built, built) == ()


def test_compiled_sql_is_no_template(plain):
    """Braces in it are text, and its line breaks reach the database as they are."""
    one, other = (compiled(plain, m=f"select '{{{{ a }}}}{end}b'") for end in ("\r\n", "\n"))
    assert (
        Fingerprinter(one).fingerprints()["model.shop.m"].compiled
        != Fingerprinter(other).fingerprints()["model.shop.m"].compiled
    )


def test_a_macro_edit_without_effect_passes_where_both_are_compiled(plain):
    edited = copy.deepcopy(plain)
    edited["macros"]["macro.shop.cents"]["macro_sql"] = "{% macro cents(d) %}{{ d }} * 100{% endmacro %}"
    old, new = (compiled(world, m="select a * 100 as a") for world in (plain, edited))
    assert changes(old, new) == ()
    assert changes(plain, edited) == ("macro: cents",)


def test_a_project_that_overrides_ref_may_print_anything_by_it():
    own = macro("ref", "{% macro ref(name) %}{{ builtins.ref(name) }} -- {{ name }}{% endmacro %}")

    def world(line_break, macros):
        query = f"select a from {{{{ ref('t') }}}}{line_break}where b"
        return manifest([model("m", raw_code=query)], macros={m["unique_id"]: m for m in macros})

    assert changes(world(" ", []), world("\n", [])) == ()
    assert changes(world(" ", [own]), world("\n", [own])) == ("sql",)


def test_compiled_sql_hides_no_change_of_config(plain):
    edited = copy.deepcopy(plain)
    edited["nodes"]["model.shop.m"]["config"]["cluster_by"] = ["a"]
    old, new = (compiled(world, m="select a * 100 as a") for world in (plain, edited))
    assert changes(old, new) == ("config: cluster_by",)


def test_is_incremental_switching_on_after_the_first_build_does_not_count():
    raw = "select id from t {% if is_incremental() %}where id > 1{% endif %}"
    world = manifest([model("m", raw_code=raw, config={"materialized": "incremental"})])
    assert changes(compiled(world, m="select id from t"), compiled(world, m="select id from t where id > 1")) == ()


def test_hooks_count_though_they_do_not_show_in_the_compiled_sql():
    grant = macro("grant_all", "{% macro grant_all() %}grant a{% endmacro %}")
    node = model(
        "m",
        config={"post-hook": [{"sql": "{{ grant_all() }}"}]},
        depends_on={"nodes": [], "macros": [grant["unique_id"]]},
        compiled_code="select 1",
    )
    old = manifest([node], macros={grant["unique_id"]: grant})
    new = copy.deepcopy(old)
    new["macros"][grant["unique_id"]]["macro_sql"] = "{% macro grant_all() %}grant b{% endmacro %}"
    assert changes(old, new) == ("macro: grant_all",)


def test_macros_of_two_packages_with_one_name_both_count():
    def world(ours, theirs):
        macros = [macro("cents", ours), macro("cents", theirs, package="pack")]
        node = model("m", depends_on={"nodes": [], "macros": [m["unique_id"] for m in macros]})
        return manifest([node], macros={m["unique_id"]: m for m in macros})

    assert changes(world("1", "2"), world("3", "2")) == ("macro: cents",)
    assert changes(world("1", "2"), world("1", "3")) == ("macro: cents",)


# Values


@pytest.mark.parametrize(
    ("variables", "value"),
    [
        (Variables(), None),
        (Variables(packages={"pack": {"v": 1}}), 1),
        (Variables(packages={"pack": {"v": 1, "pack": {"v": 2}}}), 2),
        (Variables(project={"v": 3}, packages={"pack": {"v": 1}}), 3),
        (Variables(project={"v": 3, "pack": {"v": 4}}), 4),
        (Variables(command_line={"v": 5}, project={"v": 3, "pack": {"v": 4}}), 5),
        (Variables(project={"other": {"v": 4}}), None),
        (Variables(project={"pack": "no mapping"}), None),
        (Variables(project={"v": False}), False),
    ],
)
def test_a_variable_has_the_value_that_dbt_gives_it(variables, value):
    assert variables.lookup("v", "pack") == (None if value is None else [value])


def reading(call):
    return manifest([model("m", raw_code=f"select {call}")])


def with_values(world, **values):
    return of(world, variables=Variables(**values))["m"]


def test_keys_and_values_of_yaml_that_json_lacks_are_told_apart():
    day = date(2026, 1, 1)
    values = [{1: "a", "x": "b"}, {"1": "a", "x": "b"}, {day: 1}, {"2026-01-01": 1}, [day], ["2026-01-01"], {"a", "b"}]
    digests = {
        ContextValues({}, Surroundings(Variables({"v": value}))).digest(("var", "v"), {"package_name": "shop"})
        for value in values
    }
    assert len(digests) == len(values)


def test_a_variable_whose_name_is_computed_depends_on_all_variables():
    world = reading("{{ var(some_name) }}")
    changed = with_values(world, project={"a": 2}).changes_since(with_values(world, project={"a": 1}))
    assert changed == ("var: *",)


def test_a_variable_of_the_command_line_counts():
    world = reading("{{ var('a') }}")
    changed = with_values(world, command_line={"a": 2}).changes_since(with_values(world, project={"a": 1}))
    assert changed == ("var: a",)


def test_secrets_are_never_read():
    class Watched(dict):
        asked: list[str] = []  # noqa: RUF012

        def get(self, name, default=None):
            self.asked.append(name)
            return super().get(name, default)

        __getitem__ = None

    environ = Watched(DBT_ENV_SECRET_TOKEN="hidden", SHOP_REGION="north")
    of(reading("{{ env_var('DBT_ENV_SECRET_TOKEN') }}, {{ env_var('SHOP_REGION') }}"), environ=environ)
    assert environ.asked == ["SHOP_REGION"]


def test_another_secret_is_no_other_code():
    world = reading("{{ env_var('DBT_ENV_SECRET_TOKEN') }}")
    old, new = (of(world, environ={"DBT_ENV_SECRET_TOKEN": value})["m"] for value in ("a", "b"))
    assert new.changes_since(old) == ()


def test_an_environment_variable_that_appears_counts():
    world = reading("{{ env_var('REGION', 'none') }}")
    assert of(world, environ={"REGION": "north"})["m"].changes_since(of(world)["m"]) == ("env_var: REGION",)


def test_config_that_dbt_keeps_apart_is_not_counted_twice():
    old = manifest([model("m", raw_code="{{ config(tags=['a']) }} select 1")])
    new = manifest([model("m", raw_code="{{ config(tags=['b'], meta={'x': 1}) }} select 1")])
    assert changes(old, new) == ()


def test_a_jinja_argument_counts():
    assert changes(reading("{{ f('a') }}"), reading("{{ f('b') }}")) == ("sql",)


@pytest.mark.parametrize(
    ("setting", "old", "new"),
    [
        ("partition_by", {"field": "a"}, {"field": "b"}),
        ("cluster_by", ["a"], ["b"]),
        ("unique_key", "a", "b"),
        ("transient", True, False),
        ("an_adapters_own_setting", 1, 2),
        ("full_refresh", None, False),
    ],
)
def test_settings_of_adapters_count_though_they_are_not_known_here(setting, old, new):
    old, new = (manifest([model("m", config={setting: value})]) for value in (old, new))
    assert changes(old, new) == (f"config: {setting}",)


@pytest.mark.parametrize(
    ("setting", "old", "new"),
    [
        ("tags", ["a"], ["b"]),
        ("meta", {"a": 1}, {}),
        ("docs", {"show": True}, {"show": False}),
        ("group", "a", "b"),
        ("access", "public", "private"),
        ("freshness", None, {"build_after": {"count": 1, "period": "day"}}),
        ("state", None, {"lag_tolerance": "1h"}),
        ("persist_docs", {}, {"relation": True}),
        ("contract", {"enforced": False}, {}),
        ("on_error", None, "continue"),
        ("latest_version_pointer", None, {"enabled": None, "alias": None}),
        ("latest_version_pointer", {"enabled": None}, {"enabled": True}),
    ],
)
def test_settings_without_effect_on_rows_do_not_count(setting, old, new):
    old, new = (manifest([model("m", config={setting: value})]) for value in (old, new))
    assert changes(old, new) == ()


def test_the_view_that_dbt_points_to_the_latest_version_counts_for_that_version():
    def world(latest, enabled=True, alias=None, **more):
        config = {"latest_version_pointer": {"enabled": enabled, "alias": alias}}
        return manifest([model("m", version=2, latest_version=latest, config=config, **more)])

    pointed = ("config: latest_version_pointer",)
    assert changes(world(1), world(2), "m.v2") == pointed
    assert changes(world(2), world(2, alias="newest"), "m.v2") == pointed
    assert changes(world(2, enabled=False), world(2), "m.v2") == pointed
    assert changes(world(1, enabled=False), world(2, enabled=False), "m.v2") == ()
    by_default = {"flags": {"latest_version_pointer_enabled_by_default": True}}
    old, new = of(world(1, enabled=None), **by_default), of(world(2, enabled=None), **by_default)
    assert new["m.v2"].changes_since(old["m.v2"]) == pointed


def test_columns_count_only_under_an_enforced_contract():
    def world(data_type, *, enforced):
        columns = {"id": {"name": "id", "data_type": data_type}}
        return manifest([model("m", columns=columns, config={"contract": {"enforced": enforced}})])

    assert changes(world("int", enforced=True), world("text", enforced=True)) == ("config: contract",)
    assert changes(world("int", enforced=False), world("text", enforced=False)) == ()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"policy_tags": ["open"]}, {"policy_tags": ["secret"]}, ("config: columns",)),
        ({}, {"column_mask": {"function": "hide"}}, ("config: columns",)),
        ({"databricks_tags": {"pii": "yes"}}, {}, ("config: columns",)),
        ({"description": "a", "tags": ["a"], "meta": {"a": 1}}, {"description": "b", "quote": True}, ()),
    ],
)
def test_settings_of_adapters_at_columns_count_without_a_contract(old, new, expected):
    old, new = (manifest([model("m", columns={"id": {"name": "id", **settings}})]) for settings in (old, new))
    assert changes(old, new) == expected


def test_a_large_seed_is_known_by_its_file_not_by_its_path():
    """Of a seed over 1 MiB dbt records the path only."""
    world = manifest([seed("big", checksum={"name": "path", "checksum": "seeds/big.csv"})])
    uid = "seed.shop.big"
    old, new = (of(world, seed_checksums={uid: value})["big"] for value in ("a", "b"))
    assert new.changes_since(old) == ("file",)


def test_a_python_model_with_a_syntax_error_is_compared_as_text():
    old, new = (manifest([model("m", language="python", raw_code=code)]) for code in ("def model(", "def model( :"))
    assert changes(old, new) == ("sql",)


def test_the_body_of_a_function_counts():
    def world(body):
        function = {"unique_id": "function.shop.f", "raw_code": body, "depends_on": {"nodes": [], "macros": []}}
        return manifest([model("m", "function.shop.f", raw_code="select f()")], functions={"function.shop.f": function})

    assert changes(world("1"), world("2")) == ("function: f",)


def test_several_changes_are_named_in_order_with_the_sql_first():
    old = Fingerprint({"sql": "1", "config: materialized": "1", "macro: x": "1"})
    new = Fingerprint({"sql": "2", "config: materialized": "2", "macro: x": "2"})
    assert new.changes_since(old) == ("sql", "config: materialized", "macro: x")


def test_a_fingerprint_is_the_same_in_another_process():
    """Stored fingerprints are compared with new ones: the digest may not depend on hashing seeds or order."""
    assert Fingerprint({"a": "1", "b": "2"}).digest == Fingerprint({"b": "2", "a": "1"}).digest
    world = manifest([model("m", "source.shop.raw.t")], [source("raw", "t")])
    assert of(world)["m"].digest == of(copy.deepcopy(world))["m"].digest


def test_the_cache_changes_no_fingerprint(plain):
    cache = {}
    first = of(plain, cache=cache)["m"]
    assert cache
    assert of(plain, cache=cache)["m"] == first == of(plain)["m"]


@pytest.mark.parametrize(
    ("raw", "star"),
    [("select * from {{ ref('a') }}", True), ("select id from {{ ref('a') }}", False)],
)
def test_a_node_knows_whether_its_columns_follow_its_parents(raw, star):
    fingerprinter = Fingerprinter(manifest([model("a", raw_code="select 1 as id"), model("m", "a", raw_code=raw)]))
    assert fingerprinter.selects_star(fingerprinter.graph.nodes["model.shop.m"]) is star


def test_a_star_in_an_ephemeral_model_counts_for_who_inlines_it(core_manifest):
    fingerprinter = Fingerprinter(core_manifest)
    node = fingerprinter.graph.nodes["model.shop.reads_ephemeral_edit"]
    assert not fingerprinter.selects_star(node)
    assert fingerprinter.selects_star(fingerprinter.graph.nodes["model.shop.var_in_ephemeral_of_package_edit"])
    assert not fingerprinter.selects_star(fingerprinter.graph.nodes["seed.shop.countries"])
    assert fingerprinter.selects_star(fingerprinter.graph.nodes["model.shop.a_python"])


# What dbt's own code calls, and what nothing spells out


def built_in(name, *calls, path="macros/materializations/some.sql"):
    entry = macro(name, f"{{% macro {name}() %}}{{% endmacro %}}", *calls, package="dbt")
    return {**entry, "original_file_path": path}


def with_macros(*macros, config=None, **changes):
    dbts = [
        built_in("materialization_table_default", "macro.dbt.create_table_as"),
        built_in("materialization_view_default", "macro.dbt.create_view_as"),
        built_in("create_table_as", "macro.dbt.default__create_table_as", "macro.dbt.cast"),
        built_in("default__create_table_as"),
        built_in("create_view_as"),
        built_in("get_columns_in_query"),
        built_in("generate_schema_name"),
        built_in("test_unique"),
        built_in("length", path="macros/utils/length.sql"),
        built_in("cast", path="macros/utils/cast.sql"),
    ]
    node = model("m", config=config or {}, **changes)
    return manifest([node], macros={entry["unique_id"]: entry for entry in (*dbts, *macros)})


def own(name, body="1", *calls, package="shop"):
    return macro(name, f"{{% macro {name}() %}}{body}{{% endmacro %}}", *calls, package=package)


@pytest.mark.parametrize(
    ("name", "config", "counts"),
    [
        ("create_table_as", {}, True),
        ("duckdb__create_table_as", {}, True),
        ("default__create_table_as", {}, True),
        ("create_view_as", {}, False),
        ("create_view_as", {"materialized": "view"}, True),
        ("create_table_as", {"materialized": "view"}, False),
        ("create_table_as", {"materialized": "incremental"}, True),
        ("create_view_as", {"materialized": "incremental"}, True),
        ("get_columns_in_query", {}, True),
        ("length", {}, False),
        ("length", {"materialized": "incremental"}, False),
        ("cast", {}, True),
        ("cast", {"materialized": "view"}, False),
        ("generate_schema_name", {}, False),
        ("test_unique", {}, False),
        ("unrelated", {}, False),
        ("get_incremental_mine_sql", {"materialized": "incremental", "incremental_strategy": "mine"}, True),
        ("get_incremental_mine_sql", {"materialized": "incremental", "incremental_strategy": "append"}, False),
        ("snapshot_mine_strategy", {"materialized": "snapshot", "strategy": "mine"}, True),
    ],
)
def test_a_macro_that_dbt_itself_calls_counts_for_what_it_builds(name, config, counts):
    old, new = (with_macros(own(name, body), config=config) for body in "12")
    assert changes(old, new) == ((f"macro: {name}",) if counts else ())


def test_a_package_overrides_dbts_macros_for_its_own_models_only():
    old, new = (with_macros(own("create_table_as", body, package="pack")) for body in "12")
    assert changes(old, new) == ()
    old, new = (with_macros(own("create_table_as", body, package="pack"), package_name="pack") for body in "12")
    assert changes(old, new) == ("macro: create_table_as",)


@pytest.mark.parametrize(
    ("namespace", "counts"), [("dbt", True), ("dbt_duckdb", True), ("dbt_utils", False), (None, False)]
)
def test_a_package_in_which_dbt_looks_for_its_own_macros_overrides_them_for_all_models(namespace, counts):
    dispatch = [{"macro_namespace": namespace, "search_order": ["pack", "dbt"]}]
    old, new = (of(with_macros(own("create_table_as", body, package="pack")), dispatch=dispatch)["m"] for body in "12")
    assert new.changes_since(old) == (("macro: create_table_as",) if counts else ())


@pytest.mark.parametrize(
    "raw",
    [
        "{% set how = rounding %}{{ rounded(how) }}",
        "{{ shop.rounding() }}",
        "{{ adapter.dispatch('rounding', 'shop')() }}",
        "{{ context['rounding']() }}",
    ],
)
def test_a_macro_counts_however_it_is_named(raw):
    old, new = (with_macros(own("rounding", body), raw_code=raw) for body in "12")
    assert "macro: rounding" in changes(old, new)


def test_any_macro_counts_where_its_name_is_computed():
    old, new = (with_macros(own("rounding", body), raw_code="{{ context['round' ~ x]() }}") for body in "12")
    assert changes(old, new) == ("macro: *",)


@pytest.mark.parametrize("materialized", ["table", "seed"])
def test_all_that_hooks_reach_counts(materialized):
    def world(body):
        config = {"materialized": materialized, "post-hook": [{"sql": "{{ fill(this) }}"}]}
        return with_macros(
            own("fill", body), config=config, resource_type="seed" if materialized == "seed" else "model"
        )

    old, new = (of(world("{{ var('v') }}"), variables=Variables(project={"v": v}))["m"] for v in (1, 2))
    assert new.changes_since(old) == ("var: v",)
    assert changes(world("1"), world("2")) == ("macro: fill",)


def test_what_a_run_does_at_its_start_counts_for_all():
    def world(body):
        operation = model(
            "start", resource_type="operation", unique_id="operation.shop.shop-on-run-start-0", tags=["on-run-start"],
            raw_code="{{ functions() }}",
        )  # fmt: skip
        found = with_macros(own("functions", body))
        found["nodes"][operation["unique_id"]] = operation
        return found

    assert changes(world("1"), world("2")) == ("macro: functions",)
    old, new = (of(world("{{ var(x) }}"), variables=Variables(project={"v": v}))["m"] for v in (1, 2))
    assert new.changes_since(old) == ("shop-on-run-start-0 (var: *)",)  # what a trace of a node says nothing about


@pytest.mark.parametrize(
    ("raw", "edit", "changed"),
    [
        ("{{ config.get('meta') }}", {"config": {"meta": {"a": 2}}}, ("config: meta",)),
        ("{{ config.meta_get('a') }}", {"config": {"meta": {"a": 2}}}, ("meta: a",)),
        ("{{ config.meta_get('b') }}", {"config": {"meta": {"a": 2}}}, ()),
        ("{{ config.get('tags') }}", {"config": {"tags": ["x"]}}, ("config: tags",)),
        ("{{ tojson(config) }}", {"config": {"tags": ["x"]}}, ("config: *",)),
        ("{{ model.description }}", {"description": "x"}, ("model: description",)),
        ("{{ model.name }}", {"description": "x"}, ()),
        ("{{ tojson(model) }}", {"description": "x"}, ("model: *",)),
        ("{{ graph.nodes }}", {"description": "x"}, ("graph: *",)),
        ("{{ graph.nodes }}", {"created_at": 3.0, "build_path": "x"}, ()),
    ],
)
def test_what_the_sql_reads_of_configs_and_descriptions_counts(raw, edit, changed):
    config = {"meta": {"a": 1}}
    old = with_macros(config=config, raw_code=raw, description="")
    new = with_macros(**{"config": config, "raw_code": raw, "description": "", **edit})
    assert changes(old, new) == changed


@pytest.mark.parametrize(
    ("raw", "what", "changed"),
    [
        ("{{ target.name }}", {"target": {"name": "b", "schema": "x"}}, ("target: name",)),
        ("{{ target.schema }}", {"target": {"name": "b", "schema": "x"}}, ()),
        ("{{ tojson(target) }}", {"target": {"name": "b", "schema": "x"}}, ("target: *",)),
        ("{{ flags.STORE_FAILURES }}", {"flags": {"store_failures": True}}, ("flags: STORE_FAILURES",)),
        ("{{ flags.STORE_FAILURES }}", {"environ": {"DBT_STORE_FAILURES": "1"}}, ("flags: STORE_FAILURES",)),
        ("{{ flags.WHICH }}", {"flags": {"store_failures": True}}, ()),
        ("{{ env_var('A_' ~ x) }}", {"environ": {"A_B": "1"}}, ("env_var: A_*",)),
        ("{{ env_var('A_' ~ x) }}", {"environ": {"B": "1"}}, ()),
        ("{{ env_var(x) }}", {"environ": {"B": "1"}}, ()),
        ("{{ invocation_args_dict }}", {"variables": Variables(project={"v": 1})}, ("var: *",)),
        ("{{ var('v_' ~ x) }}", {"variables": Variables(project={"v_a": 1})}, ("var: v_*",)),
        ("{{ var('v') }}", {"variables": Variables(project={"v": None})}, ("var: v",)),
    ],
)
def test_what_the_sql_reads_of_its_surroundings_counts(raw, what, changed):
    world = with_macros(raw_code=raw)
    surroundings = {"target": {"name": "a", "schema": "x"}}
    old, new = (
        of(world, **{**given, "target": lambda given=given: given["target"]})["m"]
        for given in (surroundings, {**surroundings, **what})
    )
    assert new.changes_since(old) == changed


def test_a_materialization_of_the_project_counts_as_history_whatever_its_name():
    view = {"materialized": "view"}
    special = {
        **own("materialization_view_duckdb"),
        "macro_sql": "{% materialization view, adapter='duckdb' %}{% endmaterialization %}",
    }
    for macros, kind in (((), NodeKind.VIEW), ((special,), NodeKind.HISTORY_DEPENDENT)):
        graph = Fingerprinter(with_macros(*macros, config=view)).graph
        assert graph.nodes["model.shop.m"].kind is kind


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("dbt.config.get('meta')", ("config: meta",)),
        ("dbt.config.meta_get('a')", ("meta: a",)),
        ("dbt.config.get(name)", ("config: *",)),
        ("config = dbt.config", ("config: *",)),
        ("dbt.ref('a')", ()),
    ],
)
def test_what_a_python_model_reads_of_its_config_counts(code, changed):
    old, new = (
        with_macros(
            language="python", raw_code=f"def model(dbt, session):\n    return {code}\n", config={"meta": {"a": a}}
        )
        for a in (1, 2)
    )
    assert changes(old, new) == changed


@pytest.mark.parametrize(
    ("code", "changed"),
    [("import acme", ("inputs",)), ("import json", ()), ("open('x')", ()), ("import others", ())],
)
def test_what_is_known_of_a_library_that_a_python_model_imports_counts(code, changed):
    old, new = (
        with_macros(language="python", raw_code=code, config={"meta": {"dagster_sao": {"trusted_imports": trusted}}})
        for trusted in ([], ["acme"])
    )
    assert changes(old, new) == changed
