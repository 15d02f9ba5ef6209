"""What a loader does after a load: one command or call, after which nothing has to be polled."""

from __future__ import annotations

import json

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster_dbt import DbtProject

from dagster_sao import NoticeStatus, StateAwareProject, build_state_aware_definitions
from dagster_sao.cli import main
from dagster_sao.core.decision.decide import Reason
from tests.support.corner_shop import ORDERS, open_shop
from tests.support.parsing import parsing_here

RAW = dg.AssetKey(["raw", "orders"])


@pytest.fixture
def shop(tmp_path, monkeypatch):
    shop = open_shop(tmp_path)
    for name, value in shop.environment.items():
        monkeypatch.setenv(name, value)
    with parsing_here():
        yield shop


@pytest.fixture
def notify(shop):
    """Run the command and return its exit code, and its document or what it wrote to stderr."""

    def run(*args):
        result = CliRunner().invoke(main, ["notify", "--project-dir", str(shop.project_dir), *args, "-o", "json"])
        return result.exit_code, json.loads(result.stdout)["sources"] if result.stdout else result.stderr

    return run


def reason(shop):
    """Return why orders is built or reused, by what is recorded alone."""
    with shop.instance() as instance:
        return shop.project(instance).plan("orders", refresh_sources=False).decisions[ORDERS].reason


def test_new_rows_are_recorded_at_once_and_old_ones_once_only(shop, notify):
    with shop.instance() as instance:
        shop.project(instance).build("+orders")
    assert notify("raw.orders") == (0, [_told("no new data")])
    shop.load_orders(2, 2)
    assert reason(shop) is Reason.NO_NEW_DATA
    assert notify("source:raw.orders", "raw.orders") == (0, [_told("new data")])
    assert reason(shop) is Reason.NEW_DATA
    assert notify("raw.orders") == (0, [_told("no new data")])


def _told(status, message=None):
    return {"unique_id": "source.corner_shop.raw.orders", "name": "raw.orders", "status": status, "message": message}


def test_a_source_that_cannot_be_probed_is_an_error_with_the_reason(shop, notify):
    shop.database.unlink()
    code, (told,) = notify("raw.orders")
    assert (code, told["status"]) == (1, "error")
    assert "raw.orders" in told["message"] or "Cannot" in told["message"]


REFUSED = {
    ("raw.ordres",): "There is no node or source 'raw.ordres' in corner_shop. Did you mean 'raw.orders' or 'orders'?",
    ("orders",): "orders is built by dbt, and so is not a source: name sources, as in raw.orders.",
    ("raw.orders", "--token", "7"): "The warehouse is asked whether raw.orders has new data, so a token would count",
}


def test_a_notice_that_means_nothing_is_refused_and_nothing_is_recorded(shop, notify):
    for args, sentence in REFUSED.items():
        code, said = notify(*args)
        assert code == 2
        assert sentence in " ".join(said.split())
    with shop.instance() as instance:
        assert shop.project(instance).sources().sources[0].token is None


def test_a_source_that_is_not_probed_has_new_data_with_each_notice_or_with_another_token(shop):
    definitions = build_state_aware_definitions(DbtProject(shop.project_dir), loaded_by_dagster=["raw.*"])
    with shop.instance() as instance:
        project = StateAwareProject.from_definitions(definitions, instance=instance)

        def told(**options):
            (notice,) = project.notify("raw.orders", **options)
            return notice.status

        assert [told(token="1"), told(token="1"), told(token="2")] == [
            NoticeStatus.NEW_DATA,
            NoticeStatus.NO_NEW_DATA,
            NoticeStatus.NEW_DATA,
        ]
        # Dagster shows the token for good, so one with a secret is stored as a hash.
        secret = "https://loader:hunter2hunter2@files/batch/7"
        assert [told(token=secret), told(token=secret)] == [NoticeStatus.NEW_DATA, NoticeStatus.NO_NEW_DATA]
        assert "hunter2" not in str(instance.fetch_materializations(RAW, limit=9))
        project.build("+orders")
        assert project.plan("orders").decisions[ORDERS].reason is Reason.NO_NEW_DATA
        assert [told(), told()] == [NoticeStatus.NEW_DATA, NoticeStatus.NEW_DATA]
        assert project.plan("orders").decisions[ORDERS].reason is Reason.NEW_DATA
