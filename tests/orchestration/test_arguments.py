"""A value of another type than a public function takes: one sentence with the argument's name, never a traceback of the inside."""

from __future__ import annotations

import dagster as dg
import pytest
from dagster_dbt import DbtProject

from dagster_sao import StateAwareJob, StateAwareProject, build_state_aware_definitions
from dagster_sao.api.errors import ConflictingOptionsError
from dagster_sao.api.request import make_request, make_selection
from dagster_sao.core.errors import InvalidJobError, InvalidPolicyError
from dagster_sao.orchestration.arguments import check_types
from tests.support.parsing import parsing_here

SECRET = "hunter2-planted"
DEFINITIONS = {
    "project": ("shop", "DbtProject, not a str"),
    "assets": (1, "Sequence[Any], not an int"),
    "select": (["orders", "customers"], "str, not a list of str"),
    "exclude": (None, "str, not None"),
    "selector": (1, "str, not an int"),
    "dbt": ("dbt", "DbtCliResource | None, not a str"),
    "dbt_args": ("build --full-refresh", "Sequence[str], not a str"),
    "variables": (f"token: {SECRET}", "Mapping[str, Any] | None, not a str"),
    "include_metadata": ("row_count", "Sequence[str], not a str"),
    "default_sensor_status": (True, "DefaultSensorStatus, not a bool"),
    "loaded_by_dagster": ("raw.orders", "Sequence[str], not a str"),
    "probe_target": (["probes"], "str | None, not a list of str"),
    "jobs": ([{"name": "nightly"}], "Sequence[StateAwareJob], not a list of dict"),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_definitions_refuse_an_argument_of_another_type(name, tmp_path):
    value, words = DEFINITIONS[name]
    (tmp_path / "dbt_project.yml").write_text("name: shop")
    with pytest.raises(InvalidPolicyError) as refused:
        build_state_aware_definitions(**{"project": DbtProject(tmp_path), name: value})
    assert str(refused.value) == f"`{name}` takes {words}."


def test_the_types_in_a_mapping_are_named():
    tags = {"dagster/max_retries": 2, "team": "finance"}
    with pytest.raises(InvalidJobError, match=r"^`tags` takes dict\[str, str\], not a dict of str to int and str\.$"):
        check_types({"tags": dict[str, str]}, {"tags": tags}, InvalidJobError)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    files = {
        "dbt_project.yml": "{name: shop, profile: shop, flags: {send_anonymous_usage_stats: false}}",
        "profiles.yml": f"shop: {{target: x, outputs: {{x: {{type: duckdb, path: '{folder}/x.duckdb'}}}}}}",
        "models/orders.sql": "select 1 as id",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    with parsing_here():
        build_state_aware_definitions(DbtProject(folder))
        yield folder


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("select", ["orders"]),
        ("exclude", 1),
        ("selector", {}),
        ("state", 1.5),
        ("schedule", ["0 * * * *", 1]),
        ("tags", ["nightly"]),
        ("description", 1),
        ("in_process", "no"),
        ("test_strategy", []),
        ("retries", "many"),
    ],
)
def test_a_job_refuses_an_option_of_another_type(name, value, project):
    with (
        parsing_here(),
        pytest.raises(InvalidJobError, match=f"'nightly' cannot be defined: `{name}` takes .*, not an? "),
    ):
        build_state_aware_definitions(DbtProject(project), jobs=[StateAwareJob("nightly", **{name: value})])


@pytest.mark.parametrize(
    ("name", "value"),
    [("select", 1), ("select", ["a", 1]), ("exclude", None), ("selector", ["a"]), ("state", 1), ("force", [None])],
)
def test_a_request_refuses_an_option_of_another_type(name, value):
    with pytest.raises(ConflictingOptionsError, match=f"^`{name}` takes .*, not "):
        make_request(**{name: value})


def test_a_selection_may_be_any_iterable_of_texts():
    assert str(make_selection(select=(name for name in ("a", "b c")))) == str(make_selection(select=["a b", "c"]))


@pytest.mark.parametrize("value", [None, 1, ["shop"], b"shop"])
def test_a_project_refuses_what_is_no_folder(value):
    with pytest.raises(ConflictingOptionsError, match=r"^`project` takes DbtProject \| Path \| str, not "):
        StateAwareProject(value)


def test_what_a_project_is_asked_for_is_a_name(project):
    with parsing_here(), dg.DagsterInstance.ephemeral() as instance:
        shop = StateAwareProject(project, instance=instance)
        for ask in (shop.explain, shop.state):
            with pytest.raises(ConflictingOptionsError, match=r"^`name` takes str, not a list of str\.$"):
                ask(["orders"])
        with pytest.raises(ConflictingOptionsError, match=r"^`token` takes str, not None\.$"):
            shop.notify("raw.orders", token=None)
        with pytest.raises(ConflictingOptionsError, match=r"^`sources` takes str, not an int\.$"):
            shop.notify("raw.orders", 1)


def test_a_name_without_a_type_takes_anything():
    check_types({}, {"select": object()}, InvalidPolicyError)
