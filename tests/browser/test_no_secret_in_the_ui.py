"""A planted secret is in nothing that Dagster's UI receives or shows, whatever queries, models and answers try to say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocket

from tests.support.dagster_dev import DagsterDev, dagster_dev_of
from tests.support.planted_secrets import SECRETS, environment_of, secrets_in, write_project

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("dagster_dev")]

_DEFINITIONS = """
from dagster import DefaultSensorStatus
from dagster_dbt import DbtProject
from dagster_sao import StateAwareJob, build_state_aware_definitions

defs = build_state_aware_definitions(
    DbtProject("shop", profiles_dir="shop"),
    jobs=[StateAwareJob("hourly")],
    default_sensor_status=DefaultSensorStatus.RUNNING,
    freshness_interval_seconds=5,
    automation_interval_seconds=5,
)
"""
_MODELS = ("good", "hidden", "says_password", "says_url", "says_secret")
_TABS = ("overview", "partitions", "events", "checks", "lineage", "automation")
_MOST_POLLS, _POLL_MILLISECONDS = 600, 100
_SENSORS = ("shop_freshness_sensor", "shop_automation_sensor")


@dataclass
class _Heard:
    """What a page received and showed, each text with the page's address."""

    page: Page
    texts: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.route("**/graphql", self._pass_on)
        self.page.on("websocket", self._listen)

    def visit(self, path: str, until: str = "") -> None:
        """Open a page, wait until it receives nothing more, and `until` too, and keep what it shows."""
        before = len(self.texts)
        self.page.goto(path, wait_until="networkidle")
        for _ in range(_MOST_POLLS):
            if not until or any(until in text for _, text in self.texts[before:]):
                break
            self.page.wait_for_timeout(_POLL_MILLISECONDS)
        self.texts.append((path, self.page.content()))

    def _pass_on(self, route: Route) -> None:
        answer = route.fetch()
        self.texts.append((self.page.url, answer.text()))
        route.fulfill(response=answer)

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: self.texts.append((self.page.url, str(frame))))


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    folder = tmp_path_factory.mktemp("planted")
    file = write_project(folder / "shop")
    (folder / "definitions.py").write_text(_DEFINITIONS, encoding="utf-8")
    with dagster_dev_of(folder / "definitions.py", environment_of(file)) as running:
        yield running


def test_no_page_of_the_ui_receives_or_shows_a_planted_secret(browser: Browser, dev: DagsterDev) -> None:
    requested = dev.run_after(0)
    by_hand = dev.ended(dev.client.launch("says_url", "says_secret", "hidden"))
    job = dev.ended(dev.client.launch_job("hourly"))
    assert [run.status for run in (requested, by_hand, job)] == ["FAILURE"] * 3
    heard = _Heard(browser.new_page(base_url=dev.client.url))
    for run in (requested, by_hand, job):
        # The log comes in order and by and by.
        heard.visit(f"/runs/{run.id}", until="RunFailureEvent")
    for model in _MODELS:
        for tab in _TABS:
            heard.visit(f"/assets/{model}?view={tab}")
    for source in ("orders", "hidden", "answer"):
        heard.visit(f"/assets/raw/{source}?view=events")
    for sensor in _SENSORS:
        heard.visit(f"/locations/{dev.client.location}/sensors/{sensor}")
    for path in ("/deployment/locations", "/jobs", "/runs", "/overview/activity", "/asset-groups"):
        heard.visit(path)
    received = "".join(text for _, text in heard.texts)
    # The failures did arrive, so that what follows looks at something.
    assert "refused ***" in received
    assert "has a loaded_at_query that failed" in received
    assert [(where, secret) for where, text in heard.texts for secret in SECRETS if secret in text] == []
    assert secrets_in(Path(dev.environment["DAGSTER_HOME"])) == []
    assert not [secret for secret in SECRETS if secret in dev.log()]
