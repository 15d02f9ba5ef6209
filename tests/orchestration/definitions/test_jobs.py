"""Jobs that skip what need not run: how they are defined, what the launchpad offers, and their runs."""

from __future__ import annotations

import shutil
from datetime import datetime, timezone

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox
from dagster_dbt import DbtProject

from dagster_sao import (
    StateAwareDbtProjectComponent,
    StateAwareJob,
    StateAwareRunConfig,
    TestStrategy,
    build_state_aware_definitions,
    build_state_aware_job,
)
from dagster_sao.core.errors import InvalidJobError
from dagster_sao.core.manifest.policy import EfficientTesting
from tests.conftest import run_dbt
from tests.core.manifests import data_test, manifest, model
from tests.orchestration.shops import definitions, shop_manifest, write_project
from tests.support.job_shop import OP, JobShop

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
PREFILLED = {
    "state_aware": True,
    "select": "",
    "exclude": "",
    "selector": "",
    "full_refresh": False,
    "force": [],
    "refresh_sources": True,
    "test_strategy": "IMMEDIATE",
    "efficient_testing": None,
    "retries": 0,
    "retry_delay_seconds": 30.0,
    "fail_fast": False,
    "observe_reused": False,
    "vars": {},
    "target": None,
    "threads": None,
    "state": None,
    "defer": False,
    "favor_state": False,
}


def shop_jobs(folder, *jobs, **options):
    return definitions(folder, shop_manifest(), jobs=jobs, **options)


def names(job):
    return {key.path[-1] for key in job.asset_layer.selected_asset_keys}


def op_config(job_or_request):
    return job_or_request.run_config["ops"][OP]["config"]


# Definitions


def test_a_job_is_about_the_assets_that_its_selection_names(tmp_path):
    defs = shop_jobs(
        tmp_path,
        build_state_aware_job("nightly", select="stg+", exclude="customers"),
        build_state_aware_job("all"),
        build_state_aware_job("everything", state_aware=False),
    )
    nightly = defs.resolve_job_def("nightly")
    assert names(nightly) == {"stg", "orders"}
    assert nightly.description == (
        "Builds the models of `stg+ --exclude customers` of the dbt project shop whose code or upstream data changed,"
        " and reports the rest as reused."
    )
    assert names(defs.resolve_job_def("all")) == {"stg", "orders", "customers"}
    everything = defs.resolve_job_def("everything")
    assert everything.description == "Builds all of `fqn:*` of the dbt project shop, changed or not."
    assert op_config(everything)["state_aware"] is False


def test_the_launchpad_offers_every_field_with_the_jobs_value(tmp_path):
    defs = shop_jobs(
        tmp_path,
        build_state_aware_job("plain"),
        build_state_aware_job("set", test_strategy=TestStrategy.DEFERRED, retries=2, threads=4, vars={"day": 1}),
        build_state_aware_job("sparing", efficient_testing=EfficientTesting.ALL),
        build_state_aware_job("plainest", efficient_testing="off"),
    )
    assert op_config(defs.resolve_job_def("sparing")) == PREFILLED | {"efficient_testing": "ALL"}
    assert op_config(defs.resolve_job_def("plainest")) == PREFILLED | {"efficient_testing": "OFF"}
    assert dg.validate_run_config(defs.resolve_job_def("plainest"), {})
    assert op_config(defs.resolve_job_def("plain")) == PREFILLED
    assert set(PREFILLED) == set(StateAwareRunConfig.model_fields)
    changed = {"test_strategy": "DEFERRED", "retries": 2, "threads": 4, "vars": {"day": 1}}
    assert op_config(defs.resolve_job_def("set")) == PREFILLED | changed


def test_a_schedule_starts_the_job_with_its_config(tmp_path):
    job = build_state_aware_job("hourly", schedule="5 * * * *", timezone="Europe/Oslo", tags={"team": "core"})
    defs = shop_jobs(tmp_path, job)
    (schedule,) = defs.schedules
    assert (schedule.name, schedule.cron_schedule, schedule.execution_timezone) == (
        "hourly_schedule",
        "5 * * * *",
        "Europe/Oslo",
    )
    assert defs.resolve_job_def("hourly").tags["team"] == "core"
    context = dg.build_schedule_context(scheduled_execution_time=NOON)
    (request,) = schedule.evaluate_tick(context).run_requests
    assert op_config(request) == PREFILLED
    assert dg.validate_run_config(defs.resolve_job_def("hourly"), request.run_config)


@pytest.mark.parametrize(
    ("sensors", "of_the_job", "runs"),
    [("STOPPED", None, False), ("RUNNING", None, True), ("RUNNING", False, False), ("STOPPED", True, True)],
)
def test_a_schedule_runs_from_the_start_as_the_sensors_unless_it_says_otherwise(tmp_path, sensors, of_the_job, runs):
    job = build_state_aware_job("hourly", schedule="@hourly", schedule_enabled=of_the_job)
    (schedule,) = shop_jobs(tmp_path, job, default_sensor_status=dg.DefaultSensorStatus[sensors]).schedules
    assert schedule.default_status is dg.DefaultScheduleStatus["RUNNING" if runs else "STOPPED"]


def test_a_job_has_the_tests_that_read_its_models_as_dbt_has_them(tmp_path):
    orders, customers = "model.shop.orders", "model.shop.customers"
    world = shop_manifest()
    for test in (
        data_test("ids", orders, attached_node=orders),
        data_test("customer", orders, customers, attached_node=customers),
    ):
        world["nodes"][test["unique_id"]] = test
    defs = definitions(tmp_path, world, jobs=[build_state_aware_job(name, select=name) for name in ("stg", "orders")])
    checks = {
        name: {key.name for key in defs.resolve_job_def(name).asset_layer.asset_graph.asset_check_keys}
        for name in ("stg", "orders")
    }
    assert checks == {"stg": set(), "orders": {"ids", "customer"}}
    assert names(defs.resolve_job_def("orders")) == {"orders"}


def test_what_only_a_run_can_know_is_selected_by_the_run(tmp_path):
    job = build_state_aware_job("changed", select="state:modified+", exclude="customers", state="state")
    changed = shop_jobs(tmp_path, job).resolve_job_def("changed")
    assert names(changed) == {"stg", "orders", "customers"}
    selection = {"select": "state:modified+", "exclude": "customers", "state": "state"}
    assert op_config(changed) == PREFILLED | selection


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (
            {"efficient_testing": "some"},
            "`efficient_testing` is 'some'. Input should be 'off', 'reuse', 'aggregate' or 'all'.",
        ),
        ({"select": "ordres"}, "The selection 'ordres' matches no node of shop. Did you mean 'orders'?"),
        ({"select": "+"}, "The selection '+' "),
        ({"select": "tag"}, "The selection 'tag' matches no node of shop."),
        ({"select": "colour:red"}, "dbt's selection has no method 'colour'. It has "),
        ({"selector": "nightly"}, "There is no yaml selector 'nightly' in selectors.yml."),
        ({"select": "orders", "selector": "nightly"}, "The yaml selector 'nightly' cannot be combined with select"),
        (
            {"select": "state:modified"},
            "The selection 'state:modified' uses `state:` and needs a state to compare with",
        ),
        ({"retries": -1}, "`retries` is -1. Input should be greater than or equal to 0."),
        ({"threads": 0}, "`threads` is 0. Input should be greater than or equal to 1."),
        ({"timezone": "Europe/Oslo"}, "`timezone`, `schedule_enabled` and `start_run_when_idle` need a `schedule`"),
    ],
)
def test_what_is_wrong_with_a_job_is_said_with_its_name(tmp_path, settings, why):
    with pytest.raises(InvalidJobError) as error:
        shop_jobs(tmp_path, build_state_aware_job("nightly", **settings))
    text = str(error.value)
    assert text.startswith(f"The job 'nightly' cannot be defined: {why}")
    assert "\n" not in text


def test_two_projects_in_one_code_location_have_their_jobs(tmp_path):
    other = manifest([model("items", package_name="store")])
    other["metadata"]["project_name"] = "store"
    store = write_project(tmp_path / "store", other)
    (tmp_path / "store" / "dbt_project.yml").write_text("name: store\nprofile: shop\n")
    defs = dg.Definitions.merge(
        shop_jobs(tmp_path / "shop", build_state_aware_job("shop_hourly", select="orders", schedule="@hourly")),
        build_state_aware_definitions(
            DbtProject(store.project_dir), jobs=[build_state_aware_job("store_hourly", schedule="@hourly")]
        ),
    )
    assert names(defs.resolve_job_def("shop_hourly")) == {"orders"}
    assert names(defs.resolve_job_def("store_hourly")) == {"items"}
    for job, op in (("shop_hourly", OP), ("store_hourly", "store_dbt_assets")):
        assert set(defs.resolve_job_def(job).run_config["ops"]) == {op}
        assert dg.validate_run_config(defs.resolve_job_def(job), {})


# defs.yaml


def load_component(folder, component, **attributes):
    with create_defs_folder_sandbox(project_name="the_shop") as sandbox:
        path = sandbox.scaffold_component(
            component_cls=StateAwareDbtProjectComponent,
            defs_yaml_contents={
                "type": component,
                "attributes": {"project": str(folder), **attributes},
            },
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as found:
            yield found


def test_a_job_in_yaml_is_the_one_in_python(tmp_path):
    written = {
        "name": "nightly",
        "select": "stg+",
        "exclude": "customers",
        "schedule": "0 2 * * *",
        "timezone": "Europe/Oslo",
        "test_strategy": "deferred",
        "efficient_testing": "reuse",
        "retries": 1,
        "vars": {"day": 1},
        "tags": {"team": "core"},
    }
    folder = write_project(tmp_path / "yaml", shop_manifest()).project_dir
    (python,) = [
        StateAwareJob(
            **{**written, "test_strategy": TestStrategy.DEFERRED, "efficient_testing": EfficientTesting.REUSE}
        )
    ]
    expected = shop_jobs(tmp_path / "python", python)
    block = {"sensors_enabled": True, "jobs": [written]}
    for component, defs in load_component(folder, "dagster_sao.StateAwareDbtProjectComponent", state_aware=block):
        assert component.state_aware.jobs == [python]
        ours, theirs = defs.resolve_job_def("nightly"), expected.resolve_job_def("nightly")
        (config,) = (op["config"] for op in ours.run_config["ops"].values())
        assert config == op_config(theirs)
        assert dg.validate_run_config(ours, {})
        assert (names(ours), ours.description, ours.tags) == (names(theirs), theirs.description, theirs.tags)
        (schedule,) = defs.schedules
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_off_without_quotes_in_yaml_is_off(tmp_path):
    folder = write_project(tmp_path, shop_manifest()).project_dir
    # As YAML reads `off`.
    block = {"efficient_testing": False, "verify_proofs": 0, "jobs": [{"name": "nightly", "efficient_testing": False}]}
    for component, defs in load_component(folder, "dagster_sao.StateAwareDbtProjectComponent", state_aware=block):
        assert component.state_aware.test_settings.efficient_testing is EfficientTesting.OFF
        (config,) = (op["config"] for op in defs.resolve_job_def("nightly").run_config["ops"].values())
        assert config["efficient_testing"] == "OFF"


def test_a_wrong_setting_of_a_job_in_yaml_is_named(tmp_path):
    folder = write_project(tmp_path, shop_manifest()).project_dir
    block = {"jobs": [{"name": "nightly", "shedule": "0 2 * * *"}]}
    with pytest.raises(Exception, match="Error while loading component") as error:
        list(load_component(folder, "dagster_sao.StateAwareDbtProjectComponent", state_aware=block))
    assert "shedule" in str(error.value.__cause__)


DECIDES_FIRST = "Starts nightly when it has something to build or test."


@pytest.mark.parametrize(
    ("settings", "description"),
    [
        ({}, DECIDES_FIRST),
        ({"start_run_when_idle": True}, "Starts nightly."),
        ({"state_aware": False}, "Starts nightly."),
    ],
)
def test_a_schedule_decides_first_unless_it_is_to_start_a_run_each_time(tmp_path, settings, description):
    defs = shop_jobs(tmp_path, build_state_aware_job("nightly", schedule="0 2 * * *", **settings))
    (schedule,) = defs.schedules
    assert schedule.description == description
    (tmp_path / "home").mkdir()
    (tmp_path / "home/dagster.yaml").write_text("telemetry: {enabled: false}")
    with (
        dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance,
        dg.build_schedule_context(instance, repository_def=defs.get_repository_def()) as context,
    ):
        (request,) = schedule.evaluate_tick(context).run_requests
    # Nothing is built yet.
    asked = {key.path[-1] for key in request.asset_selection or ()}
    assert asked == ({"stg", "orders", "customers"} if description == DECIDES_FIRST else set())
    assert request.run_config == defs.resolve_job_def("nightly").run_config


class ComponentWithOwnArguments(StateAwareDbtProjectComponent):
    """A user's component that chooses the arguments of dbt when a run begins."""

    def get_cli_args(self, context):
        return [*super().get_cli_args(context), "--full-refresh"]


@pytest.mark.parametrize(
    ("component", "attributes", "description"),
    [
        ("dagster_sao.StateAwareDbtProjectComponent", {}, DECIDES_FIRST),
        (
            "dagster_sao.StateAwareDbtProjectComponent",
            {"cli_args": ["build", "{{ context.run_id }}"]},
            "Starts nightly.",
        ),
        (f"{__name__}.ComponentWithOwnArguments", {}, "Starts nightly."),
    ],
    ids=["ours", "an argument that depends on the run", "arguments chosen by the run"],
)
def test_a_schedule_starts_a_run_each_time_where_nobody_knows_what_the_run_does(
    tmp_path, component, attributes, description
):
    folder = write_project(tmp_path, shop_manifest()).project_dir
    jobs = [{"name": "nightly", "schedule": "0 2 * * *"}]
    for _, defs in load_component(folder, component, state_aware={"jobs": jobs}, **attributes):
        (schedule,) = defs.schedules
        assert schedule.description == description


class OwnConfig(dg.Config):
    day: str = "today"


class ComponentWithOwnConfig(StateAwareDbtProjectComponent):
    """A user's component whose runs take a config of its own."""

    @property
    def op_config_schema(self):
        return OwnConfig


def test_jobs_need_the_run_config_that_they_set(tmp_path):
    folder = write_project(tmp_path, shop_manifest()).project_dir
    component = f"{__name__}.ComponentWithOwnConfig"
    with pytest.raises(Exception, match="Error while") as error:
        list(load_component(folder, component, state_aware={"jobs": [{"name": "nightly"}]}))
    assert "need a run config that derives from StateAwareRunConfig" in str(error.value.__cause__ or error.value)


# Runs


@pytest.fixture(scope="module")
def built_shop(tmp_path_factory):
    """A shop that was built by `dagster job execute`."""
    shop = JobShop(tmp_path_factory.mktemp("jobs") / "shop")
    run_id = shop.execute("hourly")
    shop.keep()
    return shop, run_id


@pytest.fixture
def shop(built_shop):
    """A shop whose `hourly` job ran once, to change."""
    yield built_shop[0]
    built_shop[0].put_back()


def test_a_job_runs_from_the_command_line(built_shop):
    shop, run_id = built_shop
    said, summary, message = shop.decisions(run_id)
    assert said == {"a": "build", "b": "build"}
    assert message == "2 built; tests: 1 pass."
    assert (summary["built"], summary["reused"]) == (2, 0)
    assert "| b | built | Not built before in this environment |" in summary["decisions"]
    with shop.instance() as instance:
        assert not _launched_processes(instance, run_id)
        (check,) = shop.defs.resolve_job_def("hourly").asset_layer.asset_graph.asset_check_keys
        assert instance.get_latest_asset_check_evaluation_record(check) is not None


def test_a_job_leaves_its_step_to_the_executor_of_the_code_location(shop):
    run_id = shop.execute("spread")
    assert shop.decisions(run_id)[0] == {"a": "reused", "b": "reused"}
    with shop.instance() as instance:
        assert _launched_processes(instance, run_id)


def _launched_processes(instance, run_id):
    return [entry for entry in instance.all_logs(run_id) if "Launching subprocess for" in entry.user_message]


def test_a_second_run_reuses_all_and_says_what_it_saved(shop):
    said, summary, message = shop.decisions(shop.execute_here("hourly"))
    assert said == {"a": "reused", "b": "reused"}
    assert message.startswith("2 reused; about ")
    assert message.endswith(" of building saved; tests: 1 reused.")
    assert summary["seconds_saved"] > 0
    assert "| a | reused | No new changes on any upstreams |" in summary["decisions"]


def test_a_job_every_hour_builds_what_may_be_built_every_hour(shop):
    """A cron equal to `build_after` must not skip every other run because one started a second late."""
    shop.sql("insert into raw.orders values (2)")
    assert shop.decisions(shop.execute_here("hourly", hours=0.9))[0] == {"a": "reused", "b": "reused"}
    assert shop.decisions(shop.execute_here("hourly", hours=0.999))[0] == {"a": "build", "b": "build"}


def test_a_job_that_is_told_one_thing_stays_state_aware(shop):
    said, summary, _ = shop.decisions(shop.execute("hourly", force=["b"]))
    assert said == {"a": "reused", "b": "build"}
    assert "| b | built | Requested explicitly |" in summary["decisions"]


def test_a_state_agnostic_job_builds_all_and_updates_the_same_state(shop):
    assert shop.decisions(shop.execute_here("everything"))[0] == dict.fromkeys("abc", "build")
    assert shop.decisions(shop.execute_here("hourly"))[0] == {"a": "reused", "b": "reused"}


def test_a_state_selection_is_resolved_by_each_run(shop):
    shutil.copytree(shop.folder / "dbt" / "target", shop.folder / "dbt" / "state")
    assert shop.decisions(shop.execute_here("changed")) == ({}, {}, "")
    model = shop.folder / "dbt" / "models" / "c.sql"
    model.write_text(model.read_text().replace("select 1", "select 2"))
    run_dbt(shop.folder / "dbt", "parse")
    assert shop.decisions(shop.execute_here("changed"))[0] == {"c": "build"}
    # One that matches nothing today may match tomorrow; one without its state folder is told what to copy there.
    shutil.rmtree(shop.folder / "dbt" / "state")
    with pytest.raises(dg.Failure, match=r"The state folder .* has no manifest.json"):
        shop.execute_here("changed")
