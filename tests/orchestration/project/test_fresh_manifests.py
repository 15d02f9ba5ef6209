"""Real dbt: a manifest has the current state of the project, or a warning says that it has not."""

from __future__ import annotations

import logging
import os

import pytest
from dagster_dbt import DbtProject

from dagster_sao import StateAwareProject, build_state_aware_definitions
from dagster_sao.errors import InvalidProjectError
from dagster_sao.orchestration.project.parsing import changed_since_parse
from tests.histories.inprocess_dbt import run_dbt
from tests.histories.lab import TABLE, lab
from tests.orchestration.shops import project_in
from tests.support.parsing import parsing_here

LOG = logging.getLogger("test")
FILES = {
    "shop/dbt_project.yml": "{name: shop, version: '1.0', profile: shop, flags: {send_anonymous_usage_stats: false}}",
    "shop/profiles.yml": """
shop:
  target: dev
  outputs:
    dev: {type: duckdb, path: shop.duckdb, schema: dev}
    prod: {type: duckdb, path: shop.duckdb, schema: prod}
""",
    "shop/models/sources.yml": """
sources:
  - {name: raw, schema: "{{ env_var('LANDING', 'blue') }}", tables: [{name: orders}, {name: items}]}
""",
    "shop/models/a.sql": "select {{ linked.one() }} as one from {{ source('raw', var('table', 'orders')) }}",
    "shop/packages.yml": "packages: [{local: ../linked}]",
    "linked/dbt_project.yml": "{name: linked, version: '1.0'}",
    "linked/macros/one.sql": "{% macro one() %}1{% endmacro %}",
}


@pytest.fixture
def parsed():
    """The projects that were parsed."""
    with parsing_here() as projects:
        yield projects


@pytest.fixture
def root(tmp_path, parsed):
    """A project with a local package, as `dbt deps` installs it."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "shop/dbt_packages").mkdir()
    (tmp_path / "shop/dbt_packages/linked").symlink_to(tmp_path / "linked")
    return tmp_path / "shop"


def loaded(root, **options):
    """What a process that starts now knows of the project."""
    return StateAwareProject(root, **options).orchestrated.load()


def replace_with_an_older_file(root):
    (root / "other.txt").write_text("select 2 as two")
    os.utime(root / "other.txt", (1_600_000_000, 1_600_000_000))
    (root / "other.txt").rename(root / "models/a.sql")


def edit_the_local_package(root):
    (root.parent / "linked/macros/one.sql").write_text("{% macro one() %}2{% endmacro %}")


@pytest.mark.parametrize("change", [replace_with_an_older_file, edit_the_local_package])
def test_whatever_became_of_the_files_the_manifest_is_parsed_from_them(root, change):
    before = loaded(root).project.fingerprints["model.shop.a"]
    change(root)
    assert loaded(root).project.fingerprints["model.shop.a"].changes_since(before)


def test_a_file_that_was_moved_or_deleted_is_parsed_and_nothing_is_parsed_twice(root, parsed):
    assert set(loaded(root).project.graph.nodes) == {"model.shop.a"}
    (root / "models/a.sql").rename(root / "models/b.sql")
    assert set(loaded(root).project.graph.nodes) == {"model.shop.b"}
    (root / "models/b.sql").unlink()
    assert not loaded(root).project.graph.nodes
    count = len(parsed)
    loaded(root)
    assert len(parsed) == count == 3


def test_an_environment_variable_that_only_a_yaml_file_reads_is_an_input(root, monkeypatch):
    source = "source.shop.raw.orders"
    assert ".blue." in loaded(root).project.graph.sources[source].relation_name.replace('"', "")
    monkeypatch.setenv("LANDING", "green")
    assert ".green." in loaded(root).project.graph.sources[source].relation_name.replace('"', "")
    text = (root / "target/dagster_sao_manifest_inputs.json").read_text()
    assert "LANDING" in text
    assert "green" not in text


def test_a_manifest_that_dbt_wrote_by_hand_is_not_taken_for_ours(root):
    loaded(root)
    run_dbt(["parse", "--vars", "{table: items}"], root, root / "target")
    assert loaded(root).project.graph.nodes["model.shop.a"].parents == ("source.shop.raw.orders",)


@pytest.mark.parametrize("where", ["variables", "dbt_args"])
def test_a_variable_that_a_parse_reads_decides_the_parents_wherever_it_stands(root, where):
    run_dbt(["parse"], root, root / "target")
    given = {"variables": {"table": "items"}, "dbt_args": ["build", "--vars", "{table: items}"]}[where]
    definitions = build_state_aware_definitions(DbtProject(root, target="dev"), **{where: given})
    project = project_in(definitions).load().project
    assert project.graph.nodes["model.shop.a"].parents == ("source.shop.raw.items",)


def test_the_target_of_the_environment_is_another_environment(root, monkeypatch):
    usual = StateAwareProject(root).orchestrated
    monkeypatch.setenv("DBT_TARGET", "prod")
    other = StateAwareProject(root).orchestrated
    assert (usual.state_name, other.state_name) == ("shop", "shop.prod")
    assert other.probe_target == other.dbt_project.target == "prod"
    relation = other.load().project.graph.nodes["model.shop.a"].relation_name
    assert relation.replace('"', "") == "shop.prod.a"


def test_a_manifest_for_another_target_is_refused(root):
    build_state_aware_definitions(DbtProject(root, target="prod"))
    with pytest.raises(InvalidProjectError, match=r"parsed for another target than dev, .* a `target_path` of its own"):
        build_state_aware_definitions(DbtProject(root))
    own = project_in(build_state_aware_definitions(DbtProject(root, target_path="target_dev")))
    assert own.load().project.graph.nodes["model.shop.a"].relation_name.replace('"', "") == "shop.dev.a"


def test_a_sensor_keeps_its_manifest_while_there_is_one_for_another_target(root, monkeypatch, caplog):
    project = project_in(build_state_aware_definitions(DbtProject(root)))
    before = project.refresh(LOG)
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    build_state_aware_definitions(DbtProject(root, target="prod"))
    monkeypatch.delenv("DAGSTER_IS_DEV_CLI")
    with caplog.at_level(logging.WARNING):
        assert project.refresh(LOG) is before
    assert "so its last manifest stays in use: The manifest at " in caplog.text


def test_the_default_target_is_the_same_whether_it_is_named_or_not(root, monkeypatch):
    build_state_aware_definitions(DbtProject(root))
    for named in (DbtProject(root, target="dev"), DbtProject(root)):
        assert project_in(build_state_aware_definitions(named)).load()
        monkeypatch.setenv("DBT_TARGET", "dev")


def test_what_a_deployed_manifest_does_not_know_is_said_once(root, parsed, caplog):
    StateAwareProject(root)
    project = project_in(build_state_aware_definitions(DbtProject(root)))
    assert changed_since_parse(project.dbt_project, {}) == ""
    (root / "models/b.sql").write_text("select 1")
    count = len(parsed)
    with caplog.at_level(logging.WARNING):
        project.refresh(LOG)
        project.refresh(LOG)
    said = (
        "models/b.sql was added after the manifest of the dbt project shop was parsed, so the plan does not include it."
    )
    assert caplog.text.count(said) == 1
    assert len(parsed) == count


def test_a_parse_that_fails_keeps_the_last_manifest_with_one_warning_per_change(root, monkeypatch, caplog):
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    project = project_in(build_state_aware_definitions(DbtProject(root)))
    before = project.refresh(LOG)
    (root / "models/a.sql").write_text("select {{ ref('nothing') }}")
    with caplog.at_level(logging.WARNING):
        assert project.refresh(LOG) is before
        assert project.refresh(LOG).manifest is before.manifest
        assert project.unread
    assert caplog.text.count("The dbt project shop cannot be read, so its last manifest stays in use: ") == 1
    (root / "models/a.sql").write_text("select 7 as seven")
    assert "seven" in project.refresh(LOG).manifest["nodes"]["model.shop.a"]["raw_code"]
    assert not project.unread


SOURCE = {"models/sources.yml": "sources: [{name: raw, schema: raw, tables: [{name: orders}]}]"}
SETUP = ["create schema raw", "create table raw.orders as select 1 as id"]


def test_code_that_is_put_back_before_it_was_parsed_is_built(tmp_path):
    """dbt built what no manifest knew; with the old file back, the rows are of code that is nowhere."""
    code = TABLE + "select NUMBER as n, id from {{ source('raw', 'orders') }}"
    with lab(tmp_path, {**SOURCE, "models/m.sql": code.replace("NUMBER", "1")}, SETUP) as shop:
        shop.settle()
        (tmp_path / "models/m.sql").write_text(code.replace("NUMBER", "2"))
        shop.sql("insert into raw.orders values (2)")
        shop.settle()
        assert {n for n, _ in shop.sql("select * from m")} == {2}
        assert shop.decision("m")[0] == "reuse"
        (tmp_path / "models/m.sql").write_text(code.replace("NUMBER", "1"))
        shop.watch.learned(shop._names)
        assert shop.decision("m") == ("build", "Code changed: sql")
        shop.settle()
        assert {n for n, _ in shop.sql("select * from m")} == {1}
        assert shop.decision("m")[0] == "reuse"


PYTHON = "import rates\n\ndef model(dbt, session):\n    return rates.of(dbt, session)\n"


@pytest.mark.parametrize(
    ("file", "old", "new", "part"),
    [
        ("profiles.yml", "schema: dev}", "schema: dev, settings: {TimeZone: UTC}}", "profile: settings.TimeZone"),
        ("dbt_project.yml", "flags: {", "flags: {require_new: true, ", "dbt flag: require_new"),
        ("rates.py", "1", "2", "imports"),
    ],
)
def test_a_process_that_goes_on_sees_code_that_is_not_in_the_manifest(root, file, old, new, part):
    (root / "models/p.py").write_text(PYTHON)
    (root / "rates.py").write_text("RATE = 1\n")
    StateAwareProject(root)
    code = project_in(build_state_aware_definitions(DbtProject(root)))
    before, same = code.load(), code.load()
    assert same is before
    (root / file).write_text((root / file).read_text().replace(old, new))
    after = code.load().project.fingerprints["model.shop.p"]
    assert after.changes_since(before.project.fingerprints["model.shop.p"]) == (part,)
