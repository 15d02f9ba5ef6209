"""Partitions on dbt assets stop the load with a sentence, wherever they come from."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox
from dagster_dbt import DagsterDbtTranslator

from dagster_sao import StateAwareDbtProjectComponent, StateAwareDbtTranslator
from dagster_sao.core.errors import InvalidProjectError
from tests.orchestration.definitions.test_definitions import spec_of
from tests.orchestration.shops import definitions, shop_manifest, write_project

DAILY, WEEKLY = (
    kind(start_date="2026-01-01") for kind in (dg.DailyPartitionsDefinition, dg.WeeklyPartitionsDefinition)
)
REMEDY = (
    ", and state-aware dbt assets cannot be partitioned. Remove it from the translator (`get_partitions_def`) or from"
    " `post_processing`, or leave these models out with `exclude` and load them with `@dbt_assets`."
)


def translator(base, **partitions):
    class Partitioned(base):
        def get_partitions_def(self, props):
            return partitions.get(props["name"])

    return Partitioned()


@pytest.mark.parametrize("base", [DagsterDbtTranslator, StateAwareDbtTranslator])
@pytest.mark.parametrize(
    ("partitions", "begin"),
    [
        ({"stg": DAILY}, "stg (models/stg.sql) has a partitions definition"),
        (
            {"stg": DAILY, "customers": WEEKLY},
            "stg (models/stg.sql), customers (models/customers.sql) have a partitions definition",
        ),
    ],
)
def test_a_translator_that_gives_partitions_is_refused(tmp_path, base, partitions, begin):
    with pytest.raises(InvalidProjectError) as error:
        definitions(tmp_path, shop_manifest(), translator=translator(base, **partitions))
    assert str(error.value) == begin + REMEDY


def test_a_source_may_have_partitions_and_so_may_a_model_that_is_left_out(tmp_path):
    defs = definitions(
        tmp_path, shop_manifest(), translator=translator(StateAwareDbtTranslator, customers=DAILY), exclude="customers"
    )
    assert spec_of(defs, "orders").partitions_def is None


def test_partitions_that_are_given_afterwards_are_refused(tmp_path):
    defs = definitions(tmp_path, shop_manifest())
    for key in ("orders", "stg"):
        with pytest.raises(InvalidProjectError) as error:
            defs.map_resolved_asset_specs(
                selection=key, func=lambda spec: spec.replace_attributes(partitions_def=DAILY)
            ).resolve_asset_graph()
        assert str(error.value) == f"{key} (models/{key}.sql) has a partitions definition{REMEDY}"
    tagged = defs.map_resolved_asset_specs(selection="orders", func=lambda spec: spec.merge_attributes(tags={"a": "b"}))
    assert spec_of(tagged, "orders").tags["a"] == "b"


def test_partitions_of_the_post_processing_in_yaml_are_refused(tmp_path):
    folder = write_project(tmp_path / "dbt", shop_manifest()).project_dir
    daily = {"partitions_def": {"type": "daily", "start_date": "2026-01-01"}}
    contents = {
        "type": "dagster_sao.StateAwareDbtProjectComponent",
        "attributes": {"project": str(folder)},
        "post_processing": {"assets": [{"target": "key:orders", "attributes": daily}]},
    }
    with create_defs_folder_sandbox(project_name="the_shop") as sandbox:
        sandbox.scaffold_component(component_cls=StateAwareDbtProjectComponent, defs_yaml_contents=contents)
        with pytest.raises(Exception, match="Error while building definitions") as error, sandbox.build_all_defs():
            pass
    assert str(error.value.__cause__) == f"orders (models/orders.sql) has a partitions definition{REMEDY}"
