"""What a user sees and does in Dagster's UI, in a real Chromium on the real `dagster dev`.

Each step leaves a picture in `artefacts/screenshots/`. Those of the README are copied from there to `docs/images/`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.dagster_dev import (
    AUTOMATION_SENSOR,
    FRESHNESS_SENSOR,
    REPOSITORY,
    SENSORS,
    DagsterDev,
    dagster_dev,
)
from tests.support.graphql import Tick
from tests.support.polling import wait_for

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("dagster_dev")]

SCREENSHOTS = REPOSITORY / "artefacts" / "screenshots"
SIZE = {"width": 1400, "height": 900}
# On a machine with other work; an idle one needs a fifth of it.
SECONDS = 120
METHODS = "accepted_values_stg_payments_method__card__cash__gift_card__voucher"
NODE_COUNT = 32
UNTRACKED = (
    "crm.support_tickets is a view with no 'loaded_at_field' or 'loaded_at_query', so it is always considered fresh"
)

Shot = Callable[[str], Path]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    with dagster_dev(tmp_path_factory.mktemp("dagster_dev")) as running:
        first = running.run_after(0)
        assert first.status == "SUCCESS"
        assert first.ended_at is not None
        running.a_full_round(first.ended_at)
        yield running


@pytest.fixture
def page(browser: Browser, dev: DagsterDev) -> Iterator[Page]:
    # The UI shows times in the browser's zone, and the tests look for them.
    context = browser.new_context(base_url=dev.client.url, viewport=SIZE, locale="en-US", timezone_id="UTC")
    context.set_default_timeout(SECONDS * 1000)
    expect.set_options(timeout=SECONDS * 1000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def shot(page: Page) -> Shot:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    def take(name: str) -> Path:
        """Save a picture of the page as it is, once nothing is loading."""
        expect(page.get_by_text("Loading", exact=False)).to_have_count(0)
        page.mouse.move(1, 1)
        path = SCREENSHOTS / f"{name}.png"
        page.screenshot(path=path, animations="disabled")
        return path

    return take


def sensor_url(name: str) -> str:
    return f"/locations/__repository__@jaffle_shop/sensors/{name}"


def ui_time(timestamp: float) -> str:
    """Return a time as the UI's tables show it."""
    moment = datetime.fromtimestamp(timestamp, timezone.utc)
    return f"{moment:%b} {moment.day}, {moment.hour % 12 or 12}:{moment:%M:%S %p}"


def open_tick(page: Page, sensor: str, tick: Tick) -> None:
    """Open the details of a tick, from the sensor's page."""
    page.goto(sensor_url(sensor))
    # The latest tick is also named above the table, without its logs.
    row = page.get_by_role("row").filter(has_text=ui_time(tick.timestamp)).filter(has_text="View logs")
    row.get_by_text(re.compile("requested")).last.click()
    expect(page.get_by_text(f"Tick for {sensor}")).to_be_visible()


def test_the_code_location_loads_without_error_or_warning(dev: DagsterDev, page: Page, shot: Shot) -> None:
    page.goto("/deployment/locations")
    expect(page.get_by_text("1 code location")).to_be_visible()
    expect(page.get_by_text("Loaded", exact=True)).to_be_visible()
    expect(page.get_by_text(re.compile("failed to load|View errors?|error", re.IGNORECASE))).to_have_count(0)
    shot("code-location")
    assert dev.client.location_errors() == []
    complaints = [
        line
        for line in dev.log().splitlines()
        if re.search(r"Traceback|WARNING|ERROR\b(?!=)|Warning:", line)
        and "dev_command" not in line
        and UNTRACKED not in line
    ]
    assert complaints == []


def test_the_lineage_shows_sources_and_models(dev: DagsterDev, page: Page, shot: Shot) -> None:
    # All that one report is made of: the whole lineage is too large to be read in a picture.
    page.set_viewport_size({"width": 1400, "height": 1180})
    selection = quote('+key:"executive_summary"')
    page.goto(f"/asset-groups~{selection}/")
    expect(page.get_by_text("Materialize all (12)")).to_be_visible()
    page.get_by_text("Hide navigation").click()
    page.mouse.click(700, 1100, button="right")
    page.get_by_text("Expand all groups").locator("visible=true").last.click()
    # Only a page that is opened with its groups expanded fits them in.
    page.reload()
    for asset in ("order_items", "stg_order_items", "int_order_totals", "fct_orders", "executive_summary"):
        expect(page.get_by_text(asset, exact=True).locator("visible=true").first).to_be_visible()
    # Green once the UI knows that an asset was materialized.
    expect(page.locator('[style*="color-accent-green"]')).to_have_count(17)
    shot("asset-graph")


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sensor_can_be_switched_off_and_on(dev: DagsterDev, page: Page, shot: Shot, sensor: str) -> None:
    page.goto(sensor_url(sensor))
    switch = page.locator("label:has(input[type=checkbox])")
    box = page.locator("input[type=checkbox]")
    expect(box).to_be_checked()
    expect(page.get_by_text("Running", exact=True)).to_be_visible()
    switch.click()
    expect(box).not_to_be_checked()
    wait_for("the sensor to stop", lambda: dev.client.sensor_statuses()[sensor] == "STOPPED", seconds=SECONDS)
    shot(f"{sensor}-off")
    switch.click()
    expect(box).to_be_checked()
    wait_for("the sensor to run", lambda: dev.client.sensor_statuses()[sensor] == "RUNNING", seconds=SECONDS)
    shot(f"{sensor}-on")


def test_the_automation_sensor_names_its_target_in_a_line(dev: DagsterDev, page: Page) -> None:
    page.goto(sensor_url(AUTOMATION_SENSOR))
    expect(page.get_by_text("Target", exact=True)).to_be_visible()
    expect(page.get_by_text("AssetSelection")).to_have_count(0)


def test_a_model_materialized_by_hand_is_built_and_nothing_else_is(dev: DagsterDev, page: Page, shot: Shot) -> None:
    page.goto("/assets/dim_customers?view=overview")
    moment = time.time()
    page.get_by_role("button", name="Materialize").first.click()
    run = dev.run_after(moment)
    assert run.status == "SUCCESS"
    assert run.assets == {"dim_customers"}
    built, before = dev.client.materializations("dim_customers")
    assert built.run_id == run.id
    assert built.metadata["dagster_sao/decision"] == "build"
    assert built.metadata["dagster_sao/reason"] == "Requested explicitly"
    # The same code and data give the same rows, so the models below it have nothing new to read.
    assert built.tags["dagster/data_version"] == before.tags["dagster/data_version"]
    page.goto("/assets/dim_customers?view=overview")
    reason = page.get_by_text("Requested explicitly").first
    expect(reason).to_be_visible()
    reason.scroll_into_view_if_needed()
    shot("materialized-by-hand")
    assert run.ended_at is not None
    dev.a_full_round(run.ended_at, 2)
    assert [later.id for later in dev.client.runs(after=moment)] == [run.id]


def test_a_freshness_tick_shows_in_one_line_what_changed(dev: DagsterDev, page: Page, shot: Shot) -> None:
    moment = time.time()
    dev.load("append", "payments")
    summary = "1 of 10 sources have new data: payments.payments"
    tick = wait_for(
        "a tick that saw the new payments",
        lambda: [
            t for t in dev.client.ticks(FRESHNESS_SENSOR, after=moment) if (t.skip_reason or "").startswith(summary)
        ],
        seconds=SECONDS,
    )[0]
    open_tick(page, FRESHNESS_SENSOR, tick)
    expect(page.get_by_text(summary)).to_be_visible()
    shot("sensor-tick")
    run = dev.run_after(moment)
    assert run.status == "SUCCESS"
    assert run.assets == {"customer_lifetime_value"}


def test_the_automation_tab_shows_why_a_model_was_built(dev: DagsterDev, page: Page, shot: Shot) -> None:
    moment = time.time()
    dev.load("append", "orders", "order_items")
    run = dev.run_after(moment)
    assert run.status == "SUCCESS"
    assert "fct_payments" in run.assets
    page.goto("/assets/fct_payments?view=automation")
    row = page.get_by_role("row").filter(has=page.get_by_text("Requested", exact=True)).first
    row.get_by_role("button").first.click()
    expect(page.get_by_text("state_aware").first).to_be_visible()
    expect(page.get_by_text("New changes detected: int_payments_net, stg_orders").first).to_be_visible()
    shot("evaluation-tree")


def test_a_quiet_automation_tick_says_that_there_is_nothing_to_build(dev: DagsterDev, page: Page, shot: Shot) -> None:
    quiet = f"0 of {NODE_COUNT} models to build."
    tick = wait_for(
        "a tick with nothing new to say",
        lambda: [t for t in dev.client.ticks(AUTOMATION_SENSOR, limit=5) if t.skip_reason == quiet],
        seconds=SECONDS,
    )[0]
    open_tick(page, AUTOMATION_SENSOR, tick)
    shot("automation-tick")


def test_a_state_aware_job_ends_with_what_it_reused_and_why(dev: DagsterDev, page: Page, shot: Shot) -> None:
    run = dev.ended(dev.client.launch_job("hourly"))
    assert run.status == "SUCCESS"
    page.goto(f"/runs/{run.id}")
    page.get_by_placeholder(re.compile("Filter")).last.fill("of building saved")
    # What its `build_after` has just let through is built.
    expect(page.get_by_text(re.compile(r"\d+ reused; about .* of building saved")).last).to_be_visible()
    page.get_by_text("Show Markdown").first.click()
    expect(page.get_by_text("No new changes on any upstreams").first).to_be_visible()
    shot("state-aware-job")


def test_a_failing_test_on_a_view_holds_what_is_below_and_turns_green_by_itself(
    dev: DagsterDev, page: Page, shot: Shot
) -> None:
    loaded = "insert into raw_ops.load_log values ('payments', 1, (now() at time zone 'UTC')::timestamp);"
    moment = time.time()
    dev.sql("update raw_payments.payments set method = 'cheque' where id = 1;" + loaded)
    run = dev.run_after(moment)
    assert run.status == "FAILURE"
    page.goto("/assets/staging/stg_payments?view=checks")
    expect(page.get_by_text(METHODS, exact=True).locator("visible=true").first).to_be_visible()
    expect(page.get_by_text("Failed", exact=True).locator("visible=true").first).to_be_visible()
    expect(page.get_by_text("New data in stg_payments").locator("visible=true").first).to_be_visible()
    shot("failing-test")
    assert run.ended_at is not None
    dev.a_full_round(run.ended_at)
    # The view itself is as it should be, and the model below says what it waits for.
    page.goto("/assets/customer_lifetime_value?view=automation")
    row = page.get_by_role("row").filter(has=page.get_by_text("Not requested", exact=True)).first
    row.get_by_role("button").first.click()
    expect(page.get_by_text(f"Upstream test failed: {METHODS}").locator("visible=true").first).to_be_visible()
    shot("held-by-a-test")
    moment = time.time()
    dev.sql("update raw_payments.payments set method = 'card' where id = 1;" + loaded)
    run = dev.run_after(moment)
    assert run.status == "SUCCESS"
    assert "customer_lifetime_value" in run.assets
    page.goto("/assets/staging/stg_payments?view=checks")
    expect(page.get_by_text(METHODS, exact=True).locator("visible=true").first).to_be_visible()
    expect(page.get_by_text("Failed", exact=True)).to_have_count(0)
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(3)
    shot("mended-test")
