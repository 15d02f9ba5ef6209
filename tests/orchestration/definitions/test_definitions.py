"""Definitions in Python and from a defs.yaml: assets, sources, sensors, and mistakes of users."""

from __future__ import annotations

import json
import logging
import time

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox
from dagster_dbt import DbtProject

from dagster_sao import StateAwareCondition, StateAwareDbtProjectComponent, build_state_aware_definitions
from dagster_sao.core.errors import DagsterSaoError, InvalidPolicyError, InvalidProjectError
from dagster_sao.orchestration.definitions.settings import StateAwareSettings
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from tests.core.manifests import data_test, manifest, model, source
from tests.orchestration.shops import definitions, project_in, shop_manifest, write_project

ORDERS_KEY = dg.AssetKey(["raw", "orders"])
FRESH = {"warn_after": {"count": 12, "period": "hour"}, "error_after": {"count": 1, "period": "day"}}


def rich_manifest(**changes):
    raw = source(
        "raw",
        "orders",
        description="What the shop sold.",
        freshness=FRESH,
        columns={"id": {"name": "id", "description": "The key.", "data_type": "integer"}},
        config={
            "enabled": True,
            "freshness": FRESH,
            "meta": {"dagster": {"owners": ["team:loaders"], "group": "raw_data"}},
        },
        meta={"dagster": {"owners": ["team:loaders"], "group": "raw_data"}},
    )
    return manifest([model("stg", raw["unique_id"]), model("orders", "stg")], [raw], **changes)


def spec_of(defs, *path):
    graph = defs.resolve_asset_graph()
    return graph.get(dg.AssetKey(list(path)))


# Assets and sources


def test_models_have_the_condition_and_the_code_version(tmp_path):
    defs = definitions(tmp_path, rich_manifest())
    orders = spec_of(defs, "orders")
    assert isinstance(orders.automation_condition, StateAwareCondition)
    assert orders.code_version == project_in(defs).code_version("model.shop.orders")


def test_sources_are_external_assets_with_what_dbt_says_of_them(tmp_path):
    raw = spec_of(definitions(tmp_path, rich_manifest()), "raw", "orders")
    assert not raw.is_materializable
    assert raw.description == "What the shop sold."
    assert raw.group_name == "raw_data"
    assert raw.owners == ["team:loaders"]
    columns = raw.metadata["dagster/column_schema"].columns
    assert [(c.name, c.type, c.description) for c in columns] == [("id", "integer", "The key.")]
    assert raw.metadata["dagster_sao/warn_after"] == "12h"
    assert raw.metadata["dagster_sao/error_after"] == "1d"
    assert raw.automation_condition is None


def test_models_depend_on_their_sources(tmp_path):
    stg = spec_of(definitions(tmp_path, rich_manifest()), "stg")
    assert stg.parent_keys == {ORDERS_KEY}


def test_a_source_that_an_asset_loads_is_left_to_it(tmp_path):
    @dg.asset(key=ORDERS_KEY)
    def loader(): ...

    defs = definitions(tmp_path, rich_manifest(), assets=[loader])
    assert spec_of(defs, "raw", "orders").is_materializable
    assert project_in(defs).loaded_by_dagster == {ORDERS_KEY}


@pytest.mark.parametrize(
    "asset",
    [
        dg.AssetSpec(ORDERS_KEY, description="theirs"),
        dg.AssetsDefinition(specs=[dg.AssetSpec(ORDERS_KEY, description="theirs")]),
        dg.SourceAsset(ORDERS_KEY, description="theirs"),
    ],
    ids=["spec", "external", "source"],
)
def test_a_source_that_an_asset_only_describes_is_probed_and_keeps_the_description(tmp_path, asset):
    defs = definitions(tmp_path, rich_manifest(), assets=[asset])
    assert spec_of(defs, "raw", "orders").description == "theirs"
    assert not project_in(defs).loaded_by_dagster


@pytest.mark.parametrize("name", ["raw.orders", "raw.*", "*"])
def test_a_source_that_another_code_location_loads_can_be_named(tmp_path, name):
    defs = definitions(tmp_path, rich_manifest(), loaded_by_dagster=[name])
    assert project_in(defs).loaded_by_dagster == {ORDERS_KEY}
    assert not defs.resolve_asset_graph().has(ORDERS_KEY) or not spec_of(defs, "raw", "orders").is_materializable


def test_a_name_of_another_source_leaves_it_probed(tmp_path):
    defs = definitions(tmp_path, rich_manifest(), loaded_by_dagster=["rawXorders", "raw.order"])
    assert not project_in(defs).loaded_by_dagster


def test_the_sensors_are_stopped_until_somebody_starts_them(tmp_path):
    stopped = definitions(tmp_path, rich_manifest())
    running = definitions(tmp_path, rich_manifest(), default_sensor_status=dg.DefaultSensorStatus.RUNNING)
    assert {s.default_status for s in stopped.sensors} == {dg.DefaultSensorStatus.STOPPED}
    assert {s.default_status for s in running.sensors} == {dg.DefaultSensorStatus.RUNNING}


@pytest.mark.parametrize(("seconds", "asked"), [(1, 1), (5, 4), (7, 7), (30, 29)])
def test_a_sensor_is_due_before_the_daemon_looks_and_not_while_it_does(tmp_path, seconds, asked):
    defs = definitions(
        tmp_path, rich_manifest(), freshness_interval_seconds=seconds, automation_interval_seconds=seconds
    )
    assert {sensor.minimum_interval_seconds for sensor in defs.sensors} == {asked}


def test_a_selection_makes_the_rest_sources(tmp_path):
    defs = definitions(tmp_path, rich_manifest(), select="orders")
    graph = project_in(defs).load().project.graph
    assert list(graph.nodes) == ["model.shop.orders"]
    assert "model.shop.stg" in graph.sources


def test_definitions_are_pure_reading(tmp_path):
    """Loading definitions twice gives the same fingerprints, the second time from the cache on disk."""
    first = project_in(definitions(tmp_path, rich_manifest())).code_version("model.shop.orders")
    assert (tmp_path / "target" / "dagster_sao_normal_forms.json").exists()
    assert project_in(definitions(tmp_path, rich_manifest())).code_version("model.shop.orders") == first


def test_what_other_rules_saw_in_the_code_is_looked_up_again(tmp_path):
    first = project_in(definitions(tmp_path, rich_manifest())).code_version("model.shop.orders")
    cache = tmp_path / "target" / "dagster_sao_normal_forms.json"
    found = json.loads(cache.read_text())
    other = dict.fromkeys(found, "[[], []]") | {"made by": found["made by"][:-1]}
    cache.write_text(json.dumps(other))
    assert project_in(definitions(tmp_path, rich_manifest())).code_version("model.shop.orders") == first
    assert json.loads(cache.read_text()) == found


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '{"x": 1}'])
def test_a_broken_cache_costs_only_time(tmp_path, content):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "dagster_sao_normal_forms.json").write_text(content)
    assert definitions(tmp_path, rich_manifest())


# What users can have got wrong: one sentence that names the thing, the file and the remedy


def message(error_type, make):
    with pytest.raises(error_type) as error:
        make()
    text = str(error.value)
    assert "Traceback" not in text
    assert "\n" not in text
    return text


def test_two_sources_with_one_asset_key_are_named(tmp_path):
    key = {"dagster": {"asset_key": ["same"]}}
    world = manifest([], [source("a", "t", meta=key), source("b", "t", meta=key)])
    text = message(DagsterSaoError, lambda: definitions(tmp_path, world))
    assert text == (
        "The sources a.t and b.t (models/sources.yml) have the same asset key same."
        " Give one of them another key with `meta.dagster.asset_key`."
    )


MART = {"dagster": {"asset_key": ["mart", "customers"]}}


def customers(**options):
    return model("customers", *options.pop("parents", ()), config={"meta": MART}, meta=MART, **options)


def test_two_models_with_one_asset_key_are_named(tmp_path):
    world = manifest([customers(), model("orders", config={"meta": MART}, meta=MART)])
    text = message(DagsterSaoError, lambda: definitions(tmp_path, world))
    assert text == (
        "The models customers (models/customers.sql) and orders (models/orders.sql) have the same asset key"
        " mart/customers. Give one of them another key with `meta.dagster.asset_key`."
    )


@pytest.mark.parametrize(
    "reader", [model("report", "source.shop.mart.customers"), data_test("t", "source.shop.mart.customers")]
)
def test_a_source_with_a_models_asset_key_is_named_where_it_is_read(tmp_path, reader):
    world = manifest([customers(), reader], [source("mart", "customers")])
    text = message(DagsterSaoError, lambda: definitions(tmp_path, world))
    assert text == (
        "The model customers (models/customers.sql) and the source mart.customers (models/sources.yml) have the same"
        " asset key mart/customers. Give one of them another key with `meta.dagster.asset_key`."
    )


def test_a_source_that_nothing_reads_may_have_a_models_asset_key(tmp_path):
    world = manifest([customers()], [source("mart", "customers", freshness=FRESH)])
    defs = definitions(tmp_path, world)
    assert spec_of(defs, "mart", "customers").is_materializable
    loaded = project_in(defs).load()
    assert not loaded.project.graph.sources
    assert loaded.keys.unique_ids == {dg.AssetKey(["mart", "customers"]): "model.shop.customers"}


def test_two_parts_of_one_project_are_stopped_with_what_to_do(tmp_path, caplog):
    parts = [definitions(tmp_path, shop_manifest(), select="stg+")]
    with caplog.at_level(logging.WARNING):
        parts.append(definitions(tmp_path, shop_manifest(), exclude="stg+"))
    assert (
        "The dbt project shop is defined with select='fqn:*', exclude='stg+' and with select='stg+'. Its state is one, so"
        " Dagster cannot load them together: define the project once, and its parts as jobs (`build_state_aware_job`)."
    ) in caplog.text
    with pytest.raises(dg.DagsterError):
        dg.Definitions.merge(*parts).get_repository_def()


def test_the_same_part_of_a_project_may_be_loaded_again(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        _kept = [definitions(tmp_path, shop_manifest(), select="stg+") for _ in range(2)]
    assert "is defined with" not in caplog.text


def test_a_policy_without_meaning_names_the_node_and_the_file(tmp_path):
    world = manifest([model("orders", config={"freshness": {"build_after": {"count": -1, "period": "hour"}}})])
    text = message(InvalidPolicyError, lambda: definitions(tmp_path, world))
    assert text == "orders (models/orders.sql): `build_after.count` is -1, and a count cannot be negative."


def test_a_newer_manifest_says_what_to_upgrade(tmp_path):
    text = message(InvalidProjectError, lambda: definitions(tmp_path, rich_manifest(version=99)))
    assert "Upgrade dagster-sao" in text


@pytest.mark.parametrize("content", ["{", "", "\x00", "not json"])
def test_an_unreadable_manifest_is_named(tmp_path, content):
    project = write_project(tmp_path, None)
    project.manifest_path.write_text(content)
    text = message(InvalidProjectError, lambda: build_state_aware_definitions(project))
    assert text.startswith(f"The manifest at {project.manifest_path} cannot be read (")
    assert text.endswith("Run `dbt parse` to write a new one.")


@pytest.mark.parametrize("content", ["[]", "7", '"text"'])
def test_a_manifest_that_is_no_object_is_named(tmp_path, content):
    project = write_project(tmp_path, None)
    project.manifest_path.write_text(content)
    text = message(InvalidProjectError, lambda: build_state_aware_definitions(project))
    assert text == f"The manifest at {project.manifest_path} is not a JSON object. Run `dbt parse` to write a new one."


def test_no_manifest_says_how_to_write_one(tmp_path):
    project = OrchestratedProject(write_project(tmp_path, None), translator=None)
    text = message(InvalidProjectError, project.load)
    assert text == (
        f"There is no manifest at {project.dbt_project.manifest_path}."
        " Run `dbt parse` in the dbt project, or call `project.prepare_if_dev()`."
    )


@pytest.mark.parametrize("more", ["", '\nTraceback (most recent call last):\n  File "a.py", line 1, in <module>'])
def test_a_project_that_dbt_cannot_parse_says_why(tmp_path, monkeypatch, more):
    project = write_project(tmp_path, None)

    class Preparer:
        def prepare(self, _):
            msg = (
                "The dbt CLI process failed\n\nErrors parsed from dbt logs:\n\nModel 'm' depends on a node\n\nnamed 'x'"
            )
            raise RuntimeError(msg + more)

    monkeypatch.setattr(DbtProject, "preparer", Preparer())
    text = message(InvalidProjectError, lambda: build_state_aware_definitions(project))
    assert text == f"dbt cannot parse the project in {tmp_path}: Model 'm' depends on a node named 'x'"


def test_a_manifest_without_its_project_says_so(tmp_path):
    project = write_project(tmp_path, shop_manifest())
    (tmp_path / "dbt_project.yml").unlink()
    text = message(InvalidProjectError, lambda: build_state_aware_definitions(project))
    assert text == f"There is no dbt project in {tmp_path}: it has no dbt_project.yml."


def test_a_project_file_that_is_no_yaml_is_named(tmp_path):
    project = write_project(tmp_path, shop_manifest())
    (tmp_path / "dbt_project.yml").write_text("name: [shop")
    text = message(InvalidProjectError, lambda: build_state_aware_definitions(project))
    assert text.startswith(f"{tmp_path / 'dbt_project.yml'} cannot be read: ")


def test_warnings_of_settings_are_logged_once_per_load(tmp_path, caplog):
    world = manifest([model("m", config={"meta": {"dagster_sao": {"rebuild_evry": "1d"}}})])
    with caplog.at_level(logging.WARNING):
        definitions(tmp_path, world)
    assert caplog.text.count("`meta.dagster_sao.rebuild_evry` is not a setting") == 1


def test_a_broken_manifest_keeps_the_last_one_in_use(tmp_path, caplog):
    project = project_in(definitions(tmp_path, rich_manifest()))
    before = project.load()
    project.dbt_project.manifest_path.write_text("{")
    with caplog.at_level(logging.WARNING):
        assert project.refresh(logging.getLogger("test")) is before
    assert "The dbt project shop cannot be read, so its last manifest stays in use: The manifest at" in caplog.text


def test_a_new_manifest_is_read_again(tmp_path):
    project = project_in(definitions(tmp_path, shop_manifest()))
    before = project.code_version("model.shop.orders")
    world = shop_manifest()
    world["nodes"]["model.shop.orders"]["raw_code"] = "select 2 as id"
    project.dbt_project.manifest_path.write_text(json.dumps(world))
    project.load()
    assert project.code_version("model.shop.orders") != before


def test_a_manifest_that_dbt_is_writing_is_waited_for(tmp_path, monkeypatch):
    project = project_in(definitions(tmp_path, rich_manifest()))
    whole = json.dumps(shop_manifest())
    written = [whole[:100], whole[:1000], whole]

    def write_more(_: float = 0) -> None:
        project.dbt_project.manifest_path.write_text(written.pop(0))

    monkeypatch.setattr(time, "sleep", write_more)
    write_more()
    assert set(project.load().project.graph.nodes) == set(shop_manifest()["nodes"])
    assert not written


# The component


@pytest.fixture
def component(tmp_path):
    """A `dg` project with one component, and the definitions that its defs.yaml gives."""
    folder = write_project(tmp_path / "dbt", rich_manifest()).project_dir

    def load(**attributes):
        with create_defs_folder_sandbox(project_name="the_shop") as sandbox:
            path = sandbox.scaffold_component(
                component_cls=StateAwareDbtProjectComponent,
                defs_yaml_contents={
                    "type": "dagster_sao.StateAwareDbtProjectComponent",
                    "attributes": {"project": str(folder), **attributes},
                },
            )
            with sandbox.load_component_and_build_defs(defs_path=path) as (found, defs):
                yield found, defs

    return load


def test_a_component_is_loaded_from_yaml_with_a_state_aware_block(component):
    block = {"sensors_enabled": True, "freshness_interval_seconds": 300, "loaded_by_dagster": ["raw.*"]}
    for found, defs in component(state_aware=block):
        assert isinstance(found, StateAwareDbtProjectComponent)
        assert found.state_aware == StateAwareSettings(
            freshness_interval_seconds=300, sensors_enabled=True, loaded_by_dagster=["raw.*"]
        )
        sensors = {s.name: s for s in defs.sensors}
        assert sensors["shop_freshness_sensor"].minimum_interval_seconds == 299
        assert {s.default_status for s in sensors.values()} == {dg.DefaultSensorStatus.RUNNING}
        assert found._orchestrated_project.loaded_by_dagster == {ORDERS_KEY}


def test_a_component_gives_the_assets_and_sources_that_python_gives(component, tmp_path):
    python = definitions(tmp_path / "python", rich_manifest())
    for _, defs in component():
        for path in (["raw", "orders"], ["stg"], ["orders"]):
            ours, theirs = spec_of(defs, *path), spec_of(python, *path)
            for name in (
                "description",
                "group_name",
                "owners",
                "code_version",
                "automation_condition",
                "is_materializable",
            ):
                assert getattr(ours, name) == getattr(theirs, name), (path, name)
            assert ours.tags == theirs.tags


def test_a_component_takes_the_attributes_of_dagster_dbts(component):
    for _, defs in component(
        select="orders", translation={"group_name": "marts", "key": "{{ node.resource_type }}/{{ node.name }}"}
    ):
        assert spec_of(defs, "model", "orders").group_name == "marts"
        assert not spec_of(defs, "model", "stg").is_materializable


def test_a_components_unknown_setting_is_named(component):
    with pytest.raises(Exception, match="Error while loading component") as error:
        list(component(state_aware={"freshness_intervall_seconds": 1}))
    assert "freshness_intervall_seconds" in str(error.value.__cause__)
