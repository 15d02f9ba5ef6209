"""What expires with its sources, read from a manifest."""

from __future__ import annotations

from datetime import timedelta

from tests.core.manifests import manifest, model, source
from tests.orchestration.shops import ORDERS, RAW, load_project

EXPIRING = {"materialized": "table", "meta": {"dagster_sao": {"expire_with_sources": True}}}


def load(folder, **freshness):
    sources = [source("raw", "orders", config={"enabled": True, "freshness": freshness})]
    return load_project(folder, manifest([model("stg", RAW), model("orders", "stg", config=EXPIRING)], sources)).load()


def test_a_model_expires_with_the_sources_far_above_it(tmp_path):
    loaded = load(tmp_path, error_after={"count": 6, "period": "hour"})
    assert loaded.project.policy(ORDERS).rebuild_every == timedelta(hours=6)
    assert loaded.warnings == ()


def test_a_model_whose_sources_never_expire_is_warned_of(tmp_path):
    loaded = load(tmp_path)
    assert loaded.project.policy(ORDERS).rebuild_every is None
    (warning,) = loaded.warnings
    assert str(warning) == (
        "orders (models/orders.sql): `meta.dagster_sao.expire_with_sources` has no effect: no source above it has an"
        " `error_after` or `warn_after`."
    )
