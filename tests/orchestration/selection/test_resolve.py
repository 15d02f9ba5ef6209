"""What users select is what dbt itself would select, and a mistake is one sentence."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from dagster_dbt import DbtProject

from dagster_sao import StateAwareDbtTranslator
from dagster_sao.core.errors import EmptySelectionError, InvalidSelectionError, UnknownNodeError
from dagster_sao.orchestration.private.dbt_selection import finds_selectors
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.selection.resolve import (
    NodeSelection,
    StateMode,
    find_node,
    is_stateful,
    nearest_names,
    resolve_selection,
)
from tests.conftest import run_dbt
from tests.orchestration.shops import RAW, STG, load_project, shop_manifest
from tests.support.dbt_version import DBT_VERSION

PROJECT = Path(__file__).parent / "selection_project"
ALL = {"countries", "stg_orders", "stg_customers", "orders", "customers", "report.v1", "report.v2", "kept"}


def copy_project(folder):
    shutil.copytree(PROJECT, folder)
    run_dbt(folder, "parse")
    return folder


def open_project(folder, **options):
    return OrchestratedProject(DbtProject(folder), StateAwareDbtTranslator(), **options)


def resolve(project, select="", **options):
    """Return the names of what is selected."""
    loaded = project.load()
    found = resolve_selection(project, loaded, NodeSelection(select, **options))
    return {loaded.project.graph.nodes[uid].name for uid in found}


def edit(folder, path, old, new):
    file = folder / path
    text = file.read_text()
    assert old in text, (path, old)
    file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("selection") / "shop")


@pytest.fixture(scope="module")
def shop(folder):
    return open_project(folder)


@pytest.fixture(scope="module")
def production(folder, tmp_path_factory):
    """The manifest of production, made for another schema."""
    copy = tmp_path_factory.mktemp("production") / "shop"
    shutil.copytree(folder, copy)
    run_dbt(copy, "parse", "--target", "prod")
    return copy / "target" / "manifest.json"


@pytest.fixture
def edited(folder, production, tmp_path):
    """A copy of the project to edit, with the manifest of production in `state`."""
    copy = tmp_path / "shop"
    shutil.copytree(folder, copy)
    (copy / "state").mkdir()
    shutil.copy(production, copy / "state")
    return copy


@pytest.fixture(scope="module")
def parsed(folder):
    """The project as dbt holds it, so that dbt need not parse it for each question."""
    from dbt.cli.main import dbtRunner

    return dbtRunner().invoke(["--quiet", "parse", *folders(folder)]).result


def folders(folder):
    return ["--project-dir", str(folder), "--profiles-dir", str(folder)]


def listed_by_dbt(folder, *args, manifest=None):
    """Return what dbt itself selects, of what is built."""
    from dbt.cli.main import dbtRunner

    types = [arg for name in ("model", "seed", "snapshot") for arg in ("--resource-type", name)]
    keys = ["--output", "json", "--output-keys", "unique_id", "name", "version", "config"]
    result = dbtRunner(manifest=manifest).invoke(["--quiet", "ls", *types, *keys, *folders(folder), *args])
    assert result.success, result.exception
    rows = [json.loads(row) for row in result.result or []]
    return {
        f"{row['name']}.v{row['version']}" if row.get("version") else row["name"]
        for row in rows
        if row["config"]["materialized"] != "ephemeral"
    }


# The same as dbt


@pytest.mark.parametrize(
    ("select", "exclude"),
    [
        ("orders", ""),
        ("+orders", ""),
        ("stg_orders+", ""),
        ("stg_customers+1", ""),
        ("2+report.v1", ""),
        ("@stg_orders", ""),
        ("stg_orders stg_customers", ""),
        ("  stg_orders   stg_customers ", ""),
        ("tag:nightly,stg_orders", ""),
        ("tag:night*", ""),
        ("tag:nightly+", "customers+"),
        ("", "tag:nightly"),
        ("path:models/marts", ""),
        ("models/staging", ""),
        ("models/staging/stg_orders.sql+", ""),
        ("file:orders.sql", ""),
        ("orders.sql", ""),
        ("fqn:*", ""),
        ("fqn:shop.staging.*", ""),
        ("shop.marts", ""),
        pytest.param("stg_*", "", marks=pytest.mark.skipif(DBT_VERSION < (1, 11), reason="dbt 1.10 matches nothing")),
        ("report", ""),
        ("report.v2", ""),
        ("report_v1", ""),
        ("version:latest", ""),
        ("version:prerelease", ""),
        ("version:none,path:models/marts", ""),
        ("source:raw+", ""),
        ("source:raw.customers+", ""),
        ("source:shop.raw.orders+2", ""),
        ("+exposure:dashboard", ""),
        ("config.materialized:incremental", ""),
        ("config.materialized:view+", ""),
        ("config.meta.owner.team:core", ""),
        ("config.unique_key:id", ""),
        ("resource_type:seed", ""),
        ("resource_type:snapshot resource_type:seed", ""),
        ("package:shop,resource_type:model", ""),
        ("package:this", "resource_type:model"),
        ("group:finance", ""),
        ("access:protected", ""),
        ("1+test_type:singular", ""),
        ("1+test_type:unit", ""),
        ("+no_order_without_id", ""),
        ("1+test_name:unique", ""),
        ("+unit_test:keeps_ids", ""),
    ],
)
def test_a_selection_means_what_it_means_to_dbt(folder, shop, parsed, select, exclude):
    given = [*(["--select", *select.split()] if select else []), *(["--exclude", *exclude.split()] if exclude else [])]
    expected = listed_by_dbt(folder, *given, manifest=parsed)
    assert expected
    assert resolve(shop, select, exclude=exclude) == expected


@pytest.mark.parametrize("selector", ["nightly", "nightly_and_below", "of_marts"])
def test_a_yaml_selector_means_what_it_means_to_dbt(folder, shop, parsed, selector):
    expected = listed_by_dbt(folder, "--selector", selector, manifest=parsed)
    assert expected
    assert resolve(shop, selector=selector) == expected


@pytest.mark.skipif(finds_selectors(), reason="dbt 1.12 has the method")
def test_a_dbt_without_the_method_selector_is_named(shop):
    with pytest.raises(InvalidSelectionError) as error:
        resolve(shop, "selector:nightly")
    assert str(error.value) == (
        "The method `selector:` in a selection needs dbt 1.12 or newer. Give the yaml selector as `selector`."
    )


since_1_12 = pytest.mark.skipif(not finds_selectors(), reason="dbt has the method `selector:` from 1.12 on")


@since_1_12
@pytest.mark.parametrize(
    ("select", "exclude"),
    [
        ("selector:of_marts", ""),
        ("selector:nightly+", "selector:of_marts"),
        ("selector:nightly* kept", ""),
        ("path:models/marts,selector:nightly_and_below", ""),
    ],
)
def test_a_yaml_selector_in_a_selection_means_what_it_means_to_dbt(folder, shop, parsed, select, exclude):
    given = ["--select", *select.split(), *(["--exclude", *exclude.split()] if exclude else [])]
    expected = listed_by_dbt(folder, *given, manifest=parsed)
    assert expected
    assert resolve(shop, select, exclude=exclude) == expected


@since_1_12
def test_yaml_selectors_inherit_in_any_order_and_by_pattern(edited):
    write_selectors(
        edited,
        {"name": "all", "definition": {"union": ["selector:of_*", {"selector": "kept"}]}},
        {"name": "kept", "definition": "kept"},
        {"name": "of_night", "definition": "tag:nightly"},
    )
    run_dbt(edited, "parse")
    assert resolve(open_project(edited), selector="all") == listed_by_dbt(edited, "--selector", "all")


@since_1_12
def test_what_a_yaml_selector_in_a_selection_depends_on_counts(shop):
    assert is_stateful(shop, NodeSelection("selector:inherits_changed+"))
    assert not is_stateful(shop, NodeSelection("selector:of_marts"))
    with pytest.raises(InvalidSelectionError, match=r"^There is no yaml selector 'nightli' in selectors\.yml"):
        resolve(shop, "selector:nightli")


@pytest.mark.parametrize(
    "select",
    ["state:modified", "state:modified+", "state:modified.body", "state:modified.macros", "state:new+", "state:old"],
)
def test_a_comparison_of_states_means_what_it_means_to_dbt(edited, select):
    edit(edited, "models/staging/stg_customers.sql", "select", "-- said differently\nselect")
    edit(edited, "macros/cents.sql", "100", "1000")
    (edited / "models" / "marts" / "new.sql").write_text("select 1 as id")
    run_dbt(edited, "parse")
    expected = listed_by_dbt(edited, "--select", select, "--state", "state")
    assert expected
    assert resolve(open_project(edited), select, state=Path("state")) == expected


def test_a_state_may_be_compared_though_another_part_left_dbt_without_its_settings(edited):
    import dbt.flags

    edit(edited, "models/staging/stg_customers.sql", "id,", "id as id,")
    run_dbt(edited, "parse")
    before = dbt.flags.get_flags()
    dbt.flags.set_flags(Namespace(WARN_ERROR=True, PROFILES_DIR="profiles"))
    try:
        assert resolve(open_project(edited), "state:modified", state=edited / "state") == {"stg_customers"}
    finally:
        dbt.flags.set_flags(before)


def sources_json(loaded_at):
    """Return a sources.json as dbt writes it, by table."""
    return {
        "metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/sources/v3.json"},
        "elapsed_time": 0.1,
        "results": [
            {
                "unique_id": f"source.shop.raw.{table}",
                "max_loaded_at": moment,
                "snapshotted_at": "2026-03-02T00:00:00Z",
                "max_loaded_at_time_ago_in_s": 1.0,
                "status": "pass",
                "criteria": {"warn_after": {"count": 1, "period": "day"}},
                "adapter_response": {},
                "timing": [],
                "thread_id": "main",
                "execution_time": 0.1,
            }
            for table, moment in loaded_at.items()
        ],
    }


def test_sources_that_are_fresher_than_in_the_state_are_selected(edited):
    run_dbt(edited, "parse")
    first, later = "2026-03-01T00:00:00Z", "2026-03-01T01:00:00Z"
    (edited / "state" / "sources.json").write_text(json.dumps(sources_json({"orders": first, "customers": first})))
    (edited / "target" / "sources.json").write_text(json.dumps(sources_json({"orders": later, "customers": first})))
    select = "source_status:fresher+"
    expected = listed_by_dbt(edited, "--select", select, "--state", "state")
    assert expected == {"stg_orders", "orders", "kept"}
    assert resolve(open_project(edited), select, state=Path("state")) == expected


def test_results_of_the_state_are_selected(edited):
    run_dbt(edited, "seed", "--target", "prod")
    shutil.copy(edited / "target" / "run_results.json", edited / "state")
    run_dbt(edited, "parse")
    expected = listed_by_dbt(edited, "--select", "result:success+", "--state", "state")
    assert expected == {"countries", "customers", "report.v1", "report.v2"}
    assert resolve(open_project(edited), "result:success+", state=Path("state")) == expected


def test_a_manifest_of_an_engine_that_writes_less_is_selected_from(tmp_path):
    world = shop_manifest()
    assert "loader" not in world["sources"][RAW]
    assert resolve(load_project(tmp_path, world), "source:raw+1") == {"stg"}


def test_a_manifest_that_the_installed_dbt_does_not_know_is_refused_in_one_sentence(tmp_path):
    world = shop_manifest()
    del world["nodes"][STG]["checksum"]
    with pytest.raises(InvalidSelectionError) as error:
        resolve(load_project(tmp_path, world), "stg")
    message = str(error.value)
    assert message.startswith("The installed dbt cannot select from this manifest, which dbt 1.11.16 wrote: ")
    assert message.endswith(". Parse the project again with the installed dbt.")


# All, and the default


@pytest.mark.parametrize("select", ["", " ", "fqn:*"])
def test_nothing_selected_is_all(shop, select):
    assert resolve(shop, select) == ALL


def write_selectors(folder, *selectors):
    (folder / "selectors.yml").write_text(yaml.safe_dump({"selectors": list(selectors)}))


def test_nothing_selected_is_the_default_selector_where_there_is_one(edited):
    write_selectors(edited, {"name": "usual", "default": True, "definition": "tag:nightly"})
    run_dbt(edited, "parse")
    project = open_project(edited)
    assert resolve(project) == listed_by_dbt(edited) == {"stg_orders", "stg_customers"}
    assert resolve(project, "fqn:*") == ALL
    assert "orders" in resolve(project, exclude="kept")


def test_yaml_selectors_with_templates_are_read_as_dbt_rendered_them(edited):
    write_selectors(edited, {"name": "of_env", "definition": "tag:{{ env_var('SHOP_TAG', 'nightly') }}"})
    run_dbt(edited, "parse")
    assert resolve(open_project(edited), selector="of_env") == {"stg_orders", "stg_customers"}


def test_a_new_yaml_selector_needs_no_new_manifest(edited):
    run_dbt(edited, "parse")
    project = open_project(edited)
    project.load()
    write_selectors(edited, {"name": "just_written", "definition": "orders"})
    assert resolve(project, selector="just_written") == {"orders"}


def test_a_new_manifest_is_selected_from(edited):
    run_dbt(edited, "parse")
    project = open_project(edited)
    assert resolve(project, "tag:nightly") == {"stg_orders", "stg_customers"}
    (edited / "models" / "staging" / "stg_new.sql").write_text("select 1 as id")
    run_dbt(edited, "parse")
    assert resolve(project, "tag:nightly") == {"stg_orders", "stg_customers", "stg_new"}


# Compared by fingerprints


def modified(project, select="state:modified", **options):
    return resolve(project, select, state=Path("state"), state_mode=StateMode.SEMANTIC, **options)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("models/staging/stg_customers.sql", "select", "-- a comment\nselect"),
        ("models/staging/stg_customers.sql", "select id, country", "SELECT\n    id,\n    country"),
        ("models/marts/paid.sql", "select id", "/* paid */ select id"),
        ("macros/cents.sql", "{{ column }}", "{# in cents #}{{ column }}"),
        ("models/schema.yml", "latest_version: 1", "description: a report\n    latest_version: 1"),
    ],
)
def test_by_fingerprints_what_changes_nothing_is_not_modified(edited, path, old, new):
    edit(edited, path, old, new)
    run_dbt(edited, "parse")
    project = open_project(edited)
    assert modified(project) == set()
    assert modified(project, "state:unmodified") == ALL


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("models/staging/stg_customers.sql", "id,", "id + 1 as id,", {"stg_customers"}),
        ("models/marts/paid.sql", "amount", "amount as amount", {"orders"}),
        ("macros/cents.sql", "100", "1000", {"stg_orders"}),
        ("seeds/countries.csv", "Germany", "France", {"countries"}),
        ("dbt_project.yml", "+materialized: view", "+materialized: table", {"stg_orders", "stg_customers"}),
        ("models/marts/customers.sql", "unique_key='id'", "unique_key=['id']", {"customers"}),
        ("models/schema.yml", "schema: raw", "schema: landing", {"stg_orders", "stg_customers"}),
        ("models/marts/orders.sql", "select", "{{ config(alias='all_orders') }} select", {"orders"}),
    ],
)
def test_by_fingerprints_what_changes_the_rows_is_modified(edited, path, old, new, expected):
    edit(edited, path, old, new)
    run_dbt(edited, "parse")
    assert modified(open_project(edited)) == expected


def test_by_fingerprints_a_variable_of_the_command_line_counts_where_the_state_tells_it(edited):
    run_dbt(edited, "seed", "--target", "prod", "--vars", "{discount: 1}")
    shutil.copy(edited / "target" / "run_results.json", edited / "state")
    run_dbt(edited, "parse")
    assert modified(open_project(edited, variables={"discount": 1})) == set()
    assert modified(open_project(edited, variables={"discount": 2})) == {"orders"}


def test_by_fingerprints_a_variable_of_the_project_counts_where_its_file_lies_beside_the_state(edited):
    shutil.copy(edited / "dbt_project.yml", edited / "state")
    edit(edited, "dbt_project.yml", "discount: 1", "discount: 2")
    run_dbt(edited, "parse")
    assert modified(open_project(edited)) == {"orders"}


def test_by_fingerprints_operators_and_other_methods_work_as_ever(edited):
    edit(edited, "models/staging/stg_customers.sql", "id,", "id + 1 as id,")
    edit(edited, "models/marts/orders.sql", "select", "-- a comment\nselect")
    (edited / "models" / "marts" / "new.sql").write_text("select id from {{ ref('orders') }}")
    run_dbt(edited, "parse")
    project = open_project(edited)
    assert modified(project, "state:modified+") == {"stg_customers", "customers", "report.v1", "report.v2", "new"}
    assert modified(project, "state:modified+,path:models/staging") == {"stg_customers"}
    assert modified(project, "state:new") == {"new"}
    assert modified(project, "1+state:new") == {"new", "orders"}
    assert modified(project, "state:old,path:models/staging") == {"stg_customers", "stg_orders"}
    assert modified(project, "", selector="changed") == modified(project, "state:modified+")
    assert modified(project, "state:modified+", exclude="report") == {"stg_customers", "customers", "new"}


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("body", {"stg_customers"}),
        ("macros", {"stg_orders"}),
        ("configs", {"customers"}),
        ("relation", {"orders"}),
        ("contract", set()),
        ("persisted_descriptions", set()),
    ],
)
def test_by_fingerprints_one_kind_of_change_can_be_asked_for(edited, criterion, expected):
    edit(edited, "models/staging/stg_customers.sql", "id,", "id + 1 as id,")
    edit(edited, "macros/cents.sql", "100", "1000")
    edit(edited, "models/marts/customers.sql", "unique_key='id'", "unique_key=['id']")
    edit(edited, "models/marts/orders.sql", "select", "{{ config(alias='all_orders') }} select")
    run_dbt(edited, "parse")
    assert modified(open_project(edited), f"state:modified.{criterion}") == expected


def test_a_state_is_read_again_when_it_changes(edited):
    edit(edited, "models/staging/stg_customers.sql", "id,", "id + 1 as id,")
    run_dbt(edited, "parse")
    project = open_project(edited)
    assert modified(project) == {"stg_customers"}
    shutil.copy(edited / "target" / "manifest.json", edited / "state")
    assert modified(project) == set()


# Stateful or not


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (NodeSelection(), False),
        (NodeSelection("tag:nightly+ path:models/state"), False),
        (NodeSelection("state:modified+"), True),
        (NodeSelection("tag:nightly,2+state:modified.body"), True),
        (NodeSelection("@source_status:fresher"), True),
        (NodeSelection("orders", "result:error+"), True),
        (NodeSelection(selector="nightly_and_below"), False),
        (NodeSelection(selector="of_marts"), False),
        (NodeSelection(selector="changed"), True),
        (NodeSelection(selector="inherits_changed"), True),
    ],
)
def test_a_selection_knows_whether_it_depends_on_a_state(shop, selection, expected):
    assert is_stateful(shop, selection) is expected


# What users get wrong


@pytest.mark.parametrize(
    ("selection", "problem"),
    [
        (
            NodeSelection(selector="nightli"),
            "There is no yaml selector 'nightli' in selectors.yml. Did you mean 'nightly'?",
        ),
        (NodeSelection(selector="x"), "There is no yaml selector 'x' in selectors.yml."),
        (
            NodeSelection("orders", selector="nightly"),
            "The yaml selector 'nightly' cannot be combined with select or exclude: give one or the other.",
        ),
        (
            NodeSelection(exclude="orders", selector="nightly"),
            "The yaml selector 'nightly' cannot be combined with select or exclude: give one or the other.",
        ),
        (NodeSelection("tags:nightly"), "dbt's selection has no method 'tags'. Did you mean 'tag'?"),
        (
            NodeSelection("state:modified+"),
            "The selection 'state:modified+' uses `state:` and needs a state to compare with: give the folder as `state`.",
        ),
        (
            NodeSelection(selector="changed"),
            "The selection 'selector:changed' uses `state:` and needs a state to compare with: give the folder as `state`.",
        ),
        (
            NodeSelection("resource_type:table"),
            'dbt cannot resolve the selection: Runtime Error Invalid resource_type selector "table"',
        ),
        (NodeSelection("@orders+"), None),
    ],
)
def test_a_selection_without_meaning_is_refused_in_one_sentence(shop, selection, problem):
    with pytest.raises(InvalidSelectionError) as error:
        resolve_selection(shop, shop.load(), selection)
    if problem:
        assert str(error.value) == problem
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("selection", "problem"),
    [
        (NodeSelection("tag:nope"), "The selection 'tag:nope' matches no node of shop."),
        (
            NodeSelection("+ordres"),
            "The selection '+ordres' matches no node of shop. Did you mean 'orders' or 'stg_orders'?",
        ),
        (NodeSelection("source:raw"), "The selection 'source:raw' matches no node of shop."),
        (NodeSelection("orders", "orders"), "The selection 'orders --exclude orders' matches no node of shop."),
    ],
)
def test_a_selection_that_matches_nothing_is_an_error(shop, selection, problem):
    with pytest.raises(EmptySelectionError) as error:
        resolve_selection(shop, shop.load(), selection)
    assert str(error.value) == problem


def test_that_nothing_was_modified_is_no_error(edited):
    run_dbt(edited, "parse")
    assert modified(open_project(edited), "state:modified+") == set()


@pytest.mark.parametrize("mode", StateMode)
@pytest.mark.parametrize("select", ["", "orders", "state:modified+"])
def test_a_state_folder_without_manifest_is_refused(edited, select, mode):
    run_dbt(edited, "parse")
    (edited / "state" / "manifest.json").unlink()
    with pytest.raises(InvalidSelectionError) as error:
        resolve(open_project(edited), select, state=Path("state"), state_mode=mode)
    assert str(error.value) == (
        f"The state folder {edited / 'state'} has no manifest.json: copy the artifacts of the other environment"
        " into it."
    )


def test_results_and_sources_that_a_state_lacks_are_named(edited):
    run_dbt(edited, "parse")
    project = open_project(edited)
    with pytest.raises(InvalidSelectionError, match=r"has no run_results\.json"):
        resolve(project, "result:error+", state=Path("state"))
    with pytest.raises(InvalidSelectionError, match=r"has no sources\.json"):
        resolve(project, "source_status:fresher+", state=Path("state"))
    (edited / "state" / "sources.json").write_text(json.dumps(sources_json({})))
    with pytest.raises(InvalidSelectionError, match=r"Run `dbt source freshness` first\.$"):
        resolve(project, "source_status:fresher+", state=Path("state"))


def test_a_kind_of_change_that_does_not_exist_is_refused(edited):
    run_dbt(edited, "parse")
    with pytest.raises(InvalidSelectionError, match=r"^Unknown criterion 'state:modifed': use one of new, "):
        modified(open_project(edited), "state:modifed")


def selector(name, *inherited):
    return {"name": name, "definition": {"union": [{"method": "selector", "value": one} for one in inherited] or ["a"]}}


@pytest.mark.parametrize(
    ("selectors", "problem"),
    [
        (
            [selector("a", "b"), selector("b", "c"), selector("c", "a")],
            "The yaml selector 'a' inherits from itself: a → b → c → a. Remove one of these from selectors.yml.",
        ),
        (
            [selector("a", "a")],
            "The yaml selector 'a' inherits from itself: a → a. Remove one of these from selectors.yml.",
        ),
        ([selector("a", "gone")], "The yaml selector 'a' inherits from 'gone', which selectors.yml does not define."),
        pytest.param(
            [selector("a", "b"), selector("b")],
            "The yaml selector 'a' inherits from 'b', which selectors.yml defines only below it.",
            marks=pytest.mark.skipif(finds_selectors(), reason="dbt 1.12 reads them in any order"),
        ),
    ],
)
def test_yaml_selectors_that_refer_to_each_other_wrongly_are_named(folder, tmp_path, selectors, problem):
    copy = tmp_path / "shop"
    shutil.copytree(folder, copy)
    write_selectors(copy, *selectors)
    project = open_project(copy)
    for ask in (lambda: resolve(project, selector="a"), lambda: is_stateful(project, NodeSelection(selector="a"))):
        with pytest.raises(InvalidSelectionError) as error:
            ask()
        assert str(error.value).startswith(problem)


def test_a_broken_file_of_yaml_selectors_is_named(folder, tmp_path):
    copy = tmp_path / "shop"
    shutil.copytree(folder, copy)
    (copy / "selectors.yml").write_text("selectors: [{definition: tag:nightly}]")
    with pytest.raises(
        InvalidSelectionError, match=r"selectors\.yml cannot be read as dbt's yaml selectors: 'name'\.$"
    ):
        resolve(open_project(copy), selector="a")


# One node


@pytest.mark.parametrize(
    ("text", "unique_id"),
    [
        ("orders", "model.shop.orders"),
        ("model.shop.orders", "model.shop.orders"),
        ("shop.marts.orders", "model.shop.orders"),
        ("marts.orders", "model.shop.orders"),
        ("report.v2", "model.shop.report.v2"),
        ("countries", "seed.shop.countries"),
        ("raw.orders", "source.shop.raw.orders"),
        ("source.shop.raw.orders", "source.shop.raw.orders"),
    ],
)
def test_a_node_is_found_by_each_of_its_names(shop, text, unique_id):
    assert find_node(shop.load(), text) == unique_id


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ordres", "There is no node or source 'ordres' in shop. Did you mean 'orders'"),
        ("raw.order", "There is no node or source 'raw.order' in shop. Did you mean 'raw.orders'"),
        ("xyzzy", "There is no node or source 'xyzzy' in shop."),
        ("report", "2 nodes of shop are named 'report': name one of model.shop.report.v1, model.shop.report.v2."),
    ],
)
def test_an_unknown_node_is_told_with_the_nearest_names(shop, text, problem):
    with pytest.raises(UnknownNodeError) as error:
        find_node(shop.load(), text)
    assert str(error.value).startswith(problem)


def test_names_are_near_whatever_their_case():
    assert nearest_names("ORDERS", ["Orders", "kept"]) == ["Orders"]
