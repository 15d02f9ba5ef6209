"""A run starts dbt without `dbt --version` and without an adapter of dagster-dbt, unless somebody needs them."""

from __future__ import annotations

import sys

import dagster as dg
import pytest
from dagster_dbt import DbtCliResource, DbtProject
from dagster_dbt.core import resource
from dbt.cli.main import dbtRunner

from dagster_sao import StateAwareProject, build_state_aware_definitions
from dagster_sao.orchestration.private.dbt_commands import lean_resource
from dagster_sao.warehouse.dbt_private.environment import is_imported_dbt

ENTRY = "import sys\nfrom dbt.cli.main import cli\nsys.exit(cli())\n"
ASKED = "somebody asked for the version"


def refuse(*_args, **_options):
    raise AssertionError(ASKED)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one model. Nobody can ask for the version of dbt."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "one.sql").write_text("{{ config(materialized='table') }} select 1 as id union all select 2")
    (tmp_path / "dbt_project.yml").write_text("{name: shop, profile: shop, flags: {send_anonymous_usage_stats: false}}")
    (tmp_path / "profiles.yml").write_text("shop: {target: dev, outputs: {dev: {type: duckdb, path: shop.duckdb}}}\n")
    monkeypatch.chdir(tmp_path)
    assert dbtRunner().invoke(["--quiet", "parse"]).success
    monkeypatch.setattr(resource, "check_output", refuse)
    return DbtProject(tmp_path)


@pytest.mark.parametrize(
    ("script", "is_ours", "expected"),
    [
        ("#!{own}/python3.11\n" + ENTRY, True, True),
        ("#!{own}/python\n" + ENTRY, False, False),
        ("#!/elsewhere/bin/python\n" + ENTRY, True, False),
        ("#!/bin/sh\nexec {own}/python -c '" + ENTRY + "'", True, False),
        ("#!{own}/python\nfrom fusion import main\nmain()\n", True, False),
        ("\x7fELF" + ENTRY, True, False),
        (None, True, False),
    ],
)
def test_only_a_script_of_this_environment_that_imports_dbt_core_is_known(
    tmp_path, monkeypatch, script, is_ours, expected
):
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    path = (own if is_ours else other) / "dbt"
    if script is not None:
        path.write_text(script.format(own=own))
        path.chmod(0o755)
    is_imported_dbt.cache_clear()
    assert is_imported_dbt(str(path)) is expected


def test_the_dbt_of_these_tests_is_known():
    is_imported_dbt.cache_clear()
    assert is_imported_dbt("dbt")


@pytest.mark.parametrize("needs_adapter", [True, False])
def test_a_command_starts_with_what_is_needed_and_the_users_resource_stays_as_it_is(project, needs_adapter):
    dbt = DbtCliResource(project)
    before = dict(vars(dbt))
    lean = lean_resource(dbt, is_imported=True, needs_adapter=needs_adapter)
    invocation = lean.cli(["parse"], target_path=project.project_dir / "target")
    assert invocation.wait().is_successful()
    assert (invocation.adapter is not None) is needs_adapter
    assert vars(dbt) == before


def test_the_version_of_another_dbt_is_asked_for(project):
    dbt = lean_resource(DbtCliResource(project), is_imported=False, needs_adapter=False)
    with pytest.raises(AssertionError, match=ASKED):
        dbt.cli(["parse"])


def test_a_resource_that_starts_commands_in_its_own_way_is_left_alone(project):
    class Mine(DbtCliResource):
        def cli(self, *args, **options):
            return super().cli(*args, **options)

    mine = Mine(project)
    assert lean_resource(mine, is_imported=True, needs_adapter=False) is mine


@pytest.mark.parametrize(("include_metadata", "rows"), [((), None), (["row_count"], 2)])
def test_a_run_has_the_metadata_that_was_asked_for(project, include_metadata, rows):
    definitions = build_state_aware_definitions(project, include_metadata=include_metadata)
    with dg.DagsterInstance.ephemeral() as instance:
        StateAwareProject.from_definitions(definitions, instance=instance).build()
        event = instance.get_latest_materialization_event(dg.AssetKey("one"))
        count = event.asset_materialization.metadata.get("dagster/row_count")
    assert (count.value if count else None) == rows
