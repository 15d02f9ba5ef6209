"""One long scenario on the real `dagster dev`: each test is a promise, kept on the state that the one before it left.

What each run is to build is written out by hand. `DAGSTER_SAO_E2E_QUIET_SECONDS=300` makes the quiet spell longer in which nothing may run.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest

from tests.support.dagster_dev import (
    AUTOMATION_SENSOR,
    FRESHNESS_SENSOR,
    SENSORS,
    TICK_SECONDS,
    DagsterDev,
    dagster_dev,
)
from tests.support.graphql import Run
from tests.support.polling import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("dagster_dev")]

QUIET_TICKS = 6
QUIET_SECONDS = float(os.environ.get("DAGSTER_SAO_E2E_QUIET_SECONDS", "0"))
NOT_ASKED = r"(; \d not probed, since nothing below may be built yet)?\."
QUIET_FRESHNESS = "0 of 10 sources have new data" + NOT_ASKED
QUIET_AUTOMATION = "0 of 32 models to build."

VIEWS = {
    "intermediate/int_order_items_priced",
    "intermediate/int_payments_net",
    "intermediate/int_sessions_daily",
    "staging/stg_customers",
    "staging/stg_exchange_rates",
    "staging/stg_order_items",
    "staging/stg_orders",
    "staging/stg_payments",
    "staging/stg_products",
    "staging/stg_refunds",
    "staging/stg_stores",
    "staging/stg_supplies",
    "staging/stg_support_tickets",
    "staging/stg_web_sessions",
}
TABLES = {
    "customer_lifetime_value",
    "customer_recency",
    "daily_revenue",
    "dim_customers",
    "dim_products",
    "dim_stores",
    "executive_summary",
    "fct_order_items",
    "fct_orders",
    "fct_payments",
    "intermediate/int_order_totals",
    "product_price_history",
    "revenue_by_currency",
    "seeds/tax_rates",
    "snapshots/products_snapshot",
    "store_margin",
    "support_load",
    "web_conversion",
}
NODES = VIEWS | TABLES
PROBED_SOURCES = {
    "crm/support_tickets",
    "landing/supplies",
    "landing/web_sessions",
    "payments/payments",
    "payments/refunds",
    "shop/customers",
    "shop/order_items",
    "shop/orders",
    "shop/products",
    "shop/stores",
}

# The runs of the whole scenario, in order.
BELOW_PAYMENTS = {"customer_lifetime_value"}
BELOW_ORDERS = {
    "customer_lifetime_value",
    "customer_recency",
    "daily_revenue",
    "dim_customers",
    "fct_order_items",
    "fct_orders",
    "fct_payments",  # waited for orders since payments arrived
    "intermediate/int_order_totals",
    "support_load",
    "web_conversion",
}
LOADER = {"fx/exchange_rates"}
BELOW_RATES = {"revenue_by_currency"}
EDITED_AND_BELOW = {"dim_customers", "customer_recency", "support_load"}
WIPED = {"customer_recency"}
BROKEN_AND_BELOW = {"dim_products", "product_price_history"}
SCENARIO = [
    NODES,
    BELOW_PAYMENTS,
    BELOW_ORDERS,
    LOADER,
    BELOW_RATES,
    EDITED_AND_BELOW,
    WIPED,
    BROKEN_AND_BELOW,
    BROKEN_AND_BELOW,
]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    with dagster_dev(tmp_path_factory.mktemp("dagster_dev"), interval_seconds=5) as running:
        yield running


@pytest.fixture(scope="module")
def failures_before(request: pytest.FixtureRequest) -> int:
    return request.session.testsfailed


@pytest.fixture(autouse=True)
def _in_order(request: pytest.FixtureRequest, failures_before: int) -> None:
    if request.session.testsfailed > failures_before:
        pytest.skip("An earlier step of the scenario failed")


def reasons(dev: DagsterDev, asset: str, run: Run | None = None) -> list[str]:
    """Return the texts of an asset's latest evaluations, the newest first; with `run`, of those that asked for it."""
    evaluations = dev.client.evaluations(asset, limit=5)
    assert {evaluation.labels[0] for evaluation in evaluations} == {"state_aware"}
    return [e.labels[1] for e in evaluations if run is None or run.id in e.run_ids]


def has_no_run_for(dev: DagsterDev, rounds: int) -> None:
    """Assert that the sensors look `rounds` times from now and ask for nothing, and say so."""
    moment = time.time()
    dev.a_full_round(moment, rounds)
    assert dev.client.runs(after=moment) == []
    ticks = [tick for sensor in SENSORS for tick in dev.client.ticks(sensor, after=moment)]
    assert {tick.status for tick in ticks} == {"SKIPPED"}
    assert [tick.error for tick in ticks if tick.error] == []


def test_with_nothing_touched_the_first_ticks_build_everything_once(dev: DagsterDev) -> None:
    run = dev.run_after(0)
    assert run.status == "SUCCESS"
    assert run.assets == NODES
    dev.a_full_round(run.ended_at)
    assert dev.client.materialization_counts(NODES) == dict.fromkeys(NODES, 1)
    assert dev.client.materialization_counts(PROBED_SOURCES) == dict.fromkeys(PROBED_SOURCES, 1)
    assert reasons(dev, "fct_orders", run) == ["Not built before in this environment"]


def test_a_materialization_says_why_it_was_built_and_what_it_read(dev: DagsterDev) -> None:
    (event,) = dev.client.materializations("intermediate/int_order_totals")
    record = event.metadata["dagster_sao/build"]
    assert event.metadata["dagster_sao/decision"] == "build"
    assert event.metadata["dagster_sao/reason"] == "Not built before in this environment"
    assert event.metadata["dagster_sao/reason_code"] == "never_built"
    assert event.metadata["dagster_sao/duration_seconds"] > 0
    assert event.tags["dagster/data_version"] == record["data_version"]
    assert {parent.rsplit(".", 1)[1] for parent in record["consumed"]} == {
        "stg_order_items",
        "stg_orders",
        "stg_stores",
        "tax_rates",
    }


def test_the_sensors_say_in_one_line_what_they_found(dev: DagsterDev) -> None:
    # Which sensor comes first is Dagster's choice; a run probes what the freshness sensor has not seen yet.
    known = rf"(10|0) of 10 sources have new data(: .+ and 5 more)?{NOT_ASKED}|Run \w{{8}} is writing to the DuckDB .+"
    said = [tick.skip_reason or "" for tick in dev.client.ticks(FRESHNESS_SENSOR)]
    assert [text for text in said if not re.fullmatch(known, text)] == []
    known = r"0 of 32 models to build(; \d+ waiting for a run)?(; \d+ tests waiting for a run)?\."
    # A tick that has reasons to record says so with them.
    said = [tick.skip_reason for tick in dev.client.ticks(AUTOMATION_SENSOR) if tick.skip_reason]
    assert [text for text in said if not re.fullmatch(known, text)] == []
    warnings = [
        message
        for tick in dev.client.ticks(FRESHNESS_SENSOR, with_logs=True)
        for level, message in tick.logs
        if level == "WARNING"
    ]
    # Said once, not at every tick.
    assert warnings == [
        "crm.support_tickets is a view with no 'loaded_at_field' or 'loaded_at_query', so it is always considered fresh"
    ]


def test_after_that_the_ticks_stay_quiet(dev: DagsterDev) -> None:
    moment = time.time()
    seconds = QUIET_SECONDS + 90
    for sensor in SENSORS:
        dev.ticks_after(moment, sensor, QUIET_TICKS, seconds=seconds)
        dev.ticks_after(moment + QUIET_SECONDS, sensor, seconds=seconds)
    assert dev.client.runs(after=moment) == []
    freshness = dev.client.ticks(FRESHNESS_SENSOR, after=moment)
    automation = dev.client.ticks(AUTOMATION_SENSOR, after=moment)
    assert [tick for tick in freshness if not re.fullmatch(QUIET_FRESHNESS, tick.skip_reason or "")] == []
    assert {tick.skip_reason for tick in automation} == {QUIET_AUTOMATION}
    assert len(freshness) >= QUIET_TICKS
    assert len(automation) >= QUIET_TICKS
    assert dev.client.materialization_counts(NODES) == dict.fromkeys(NODES, 1)


def test_a_source_that_cannot_be_read_is_reported_and_the_others_go_on(dev: DagsterDev) -> None:
    moment = time.time()
    dev.sql("alter table raw_shop.stores rename to stores_elsewhere")
    failing = wait_for(
        "the first tick that reports the missing table",
        lambda: [t for t in dev.client.ticks(FRESHNESS_SENSOR, after=moment, with_logs=True) if _fails(t)],
        seconds=TICK_SECONDS,
    )[-1]
    assert failing.status == "SKIPPED"
    assert re.fullmatch("0 of 10 sources have new data; 1 failing: shop.stores" + NOT_ASKED, failing.skip_reason)
    (warning,) = [message for level, message in failing.logs if level == "WARNING"]
    assert "shop.stores" in warning
    assert "\n" not in warning
    dev.load("append", "payments")
    run = dev.run_after(moment)
    assert run.status == "SUCCESS"
    assert run.assets == BELOW_PAYMENTS
    told = "1 of 10 sources have new data: payments.payments; 1 failing: shop.stores" + NOT_ASKED
    # What the automation sensor's look found is shown by the first tick of the freshness sensor after the run.
    wait_for(
        "a tick that shows the new data",
        lambda: [
            t for t in dev.client.ticks(FRESHNESS_SENSOR, after=moment) if re.fullmatch(told, t.skip_reason or "")
        ],
        seconds=TICK_SECONDS,
    )
    assert reasons(dev, "customer_lifetime_value", run) == ["New changes detected: int_payments_net"]


def _fails(tick: object) -> bool:
    return "failing" in (getattr(tick, "skip_reason", "") or "")


def test_a_model_that_waits_for_all_of_its_parents_says_for_which(dev: DagsterDev) -> None:
    assert reasons(dev, "fct_payments")[0] == "No new changes on all upstreams: waiting for stg_orders"


def test_a_table_that_comes_back_as_it_was_is_nothing_new(dev: DagsterDev) -> None:
    dev.sql("alter table raw_shop.stores_elsewhere rename to stores")
    moment = time.time()
    # A source that failed is asked again after longer and longer waits.
    wait_for(
        "a tick that finds the table again",
        lambda: re.fullmatch(QUIET_FRESHNESS, dev.client.last_tick(FRESHNESS_SENSOR).skip_reason or ""),
        seconds=TICK_SECONDS,
    )
    has_no_run_for(dev, rounds=2)
    assert dev.client.runs(after=moment) == []


def test_new_rows_build_exactly_what_reads_them_in_one_run(dev: DagsterDev) -> None:
    last_build = dev.client.materializations("web_conversion", limit=1)[0].timestamp
    wait_for("the minute of web_conversion's build_after to pass", lambda: time.time() > last_build + 61, seconds=90)
    moment = time.time()
    dev.load("append", "orders", "order_items", "--rows", "25")
    run = dev.run_after(moment)
    assert run.status == "SUCCESS"
    assert run.assets == BELOW_ORDERS
    assert not run.assets & VIEWS
    orders = dev.value("select count(*) from raw_shop.orders where not is_test")
    assert dev.value("select count(*) from analytics.fct_orders") == orders


@pytest.mark.parametrize(
    ("asset", "message"),
    [
        ("dim_customers", r"New changes detected: int_order_totals"),
        ("fct_payments", r"New changes detected: int_payments_net, stg_orders"),
        ("revenue_by_currency", r"No new changes on all upstreams: waiting for stg_exchange_rates"),
        ("store_margin", r"New changes detected\. Did not meet build_after of 1h\. Last updated .+ ago"),
        ("executive_summary", r"New changes detected\. Did not meet build_after of 1h\. Last updated .+ ago"),
    ],
)
def test_each_model_says_why_it_was_built_or_not(dev: DagsterDev, asset: str, message: str) -> None:
    assert any(re.fullmatch(message, text) for text in reasons(dev, asset)), reasons(dev, asset)


def test_a_run_of_a_dagster_asset_that_loads_a_source_builds_what_is_below_it(dev: DagsterDev) -> None:
    # How often a model is built is no code: without the hour, it still waits for the rates.
    dev.edit(
        "models/marts/finance/_finance.yml",
        "build_after: {count: 1, period: hour, updates_on: all}",
        "build_after: {count: 0, period: hour, updates_on: all}",
    )
    has_no_run_for(dev, rounds=1)
    moment = time.time()
    loading = dev.ended(dev.client.launch("fx/exchange_rates"))
    assert loading.status == "SUCCESS"
    assert loading.assets == LOADER
    run = dev.run_after(max(moment, loading.created_at))
    assert run.status == "SUCCESS"
    assert run.assets == BELOW_RATES
    assert reasons(dev, "revenue_by_currency", run) == ["New changes detected: daily_revenue, stg_exchange_rates"]


def test_a_comment_builds_nothing_whether_or_not_the_code_location_is_reloaded(dev: DagsterDev) -> None:
    dev.edit("models/marts/core/dim_customers.sql", "with orders as (", "-- Who orders.\nwith  orders  AS (")
    has_no_run_for(dev, rounds=2)
    dev.client.reload()
    # The new code server knows only what the event log says.
    has_no_run_for(dev, rounds=2)
    assert dev.client.last_tick(AUTOMATION_SENSOR).skip_reason == QUIET_AUTOMATION


def test_changed_sql_builds_the_model_and_its_descendants_without_a_reload(dev: DagsterDev) -> None:
    moment = time.time()
    dev.edit("models/marts/core/dim_customers.sql", ">= {{ var('loyal", "> {{ var('loyal")
    run = dev.run_after(moment)
    assert run.status == "SUCCESS"
    assert run.assets == EDITED_AND_BELOW
    assert reasons(dev, "dim_customers", run) == ["Code changed: sql"]
    assert reasons(dev, "support_load", run) == ["New changes detected: dim_customers"]


def test_a_model_whose_history_is_wiped_is_built_once(dev: DagsterDev) -> None:
    moment = time.time()
    dev.client.wipe("customer_recency")
    run = dev.run_after(moment)
    assert run.status == "SUCCESS"
    assert run.assets == WIPED
    assert reasons(dev, "customer_recency", run) == ["Not built before in this environment"]
    assert dev.client.materialization_counts(WIPED) == {"customer_recency": 1}


def test_a_broken_model_fails_once_and_its_children_are_skipped(dev: DagsterDev) -> None:
    moment = time.time()
    dev.edit("models/marts/core/dim_products.sql", "products.category", "products.no_such_column")
    run = dev.run_after(moment)
    assert run.status == "FAILURE"
    assert run.assets == BROKEN_AND_BELOW
    errors = [message for level, message in dev.client.run_messages(run.id) if level == "ERROR"]
    assert any("no_such_column" in message for message in errors), errors
    failed = dev.client.observations("dim_products", limit=1)[0]
    skipped = dev.client.observations("product_price_history", limit=1)[0]
    assert failed.run_id == skipped.run_id == run.id
    assert failed.metadata["dagster_sao/decision"] == "failed"
    assert skipped.metadata["dagster_sao/reason"] == "Upstream failed: dim_products"


def test_a_broken_model_is_held_and_not_tried_again_at_each_tick(dev: DagsterDev) -> None:
    has_no_run_for(dev, rounds=2)
    held = r"Failed .+ ago with the same code and data\. Retries in .+, or when either changes"
    assert re.fullmatch(held, reasons(dev, "dim_products")[0])
    assert reasons(dev, "product_price_history")[0] == "Upstream failed: dim_products"
    assert dev.client.last_tick(AUTOMATION_SENSOR).skip_reason == (
        "0 of 32 models to build; 1 held after a failure; 1 skipped below it."
    )


def test_a_repaired_model_and_its_children_are_built_after_a_reload(dev: DagsterDev) -> None:
    dev.client.stop_sensor(AUTOMATION_SENSOR)
    moment = time.time()  # a tick that is at work goes on, and may see the edit before the reload
    dev.edit("models/marts/core/dim_products.sql", "products.no_such_column", "upper(products.category) as category")
    dev.client.reload()
    dev.client.start_sensor(AUTOMATION_SENSOR)
    run = dev.run_after(moment)
    assert run.status == "SUCCESS"
    assert run.assets == BROKEN_AND_BELOW
    assert reasons(dev, "dim_products", run) == ["Code changed: sql"]


def test_nothing_else_was_run_and_no_tick_failed(dev: DagsterDev) -> None:
    has_no_run_for(dev, rounds=2)
    assert [run.assets for run in dev.client.runs()] == SCENARIO
    for sensor in SENSORS:
        assert [tick.error for tick in dev.client.ticks(sensor) if tick.error] == []


def test_dagster_dev_printed_no_warning_and_no_error_of_ours(dev: DagsterDev) -> None:
    lines = dev.log().splitlines()
    assert [line for line in lines if "dagster_sao/" in line and "Warning" in line] == []
    assert [line for line in lines if "SensorExecutionError" in line] == []
