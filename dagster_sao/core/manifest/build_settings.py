"""The settings of a node's config that change how dbt builds it, read from its manifest entry. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from dagster_sao.sql.built_rows import has_contract


@dataclass(frozen=True, slots=True)
class Batches:
    """How dbt cuts a microbatch model: https://docs.getdbt.com/docs/build/incremental-microbatch."""

    size: str
    lookback: int = 1
    begin: datetime | None = None

    def start_of(self, moment: datetime, back: int = 0) -> datetime:
        """Return the start of the batch with `moment`, or of the one so many batches before.

        >>> Batches("month").start_of(datetime(2026, 3, 31, 5), back=1).isoformat()
        '2026-02-01T00:00:00+00:00'
        """
        moment = in_utc(moment).replace(minute=0, second=0, microsecond=0)
        if self.size == "hour":
            return moment - timedelta(hours=back)
        moment = moment.replace(hour=0)
        if self.size == "day":
            return moment - timedelta(days=back)
        months = moment.year * 12 + moment.month - 1 - back
        if self.size == "month":
            return moment.replace(year=months // 12, month=months % 12 + 1, day=1)
        return moment.replace(year=moment.year - back, month=1, day=1)


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """The settings of a node that change how dbt builds it."""

    refuses_full_refresh: bool = False
    """`full_refresh: false`: dbt does not do a full refresh, whatever the flags."""
    always_full_refresh: bool = False
    """`full_refresh: true`: dbt does a full refresh at each build, whatever the flags."""
    fails_on_configuration_change: bool = False
    enforces_contract: bool = False
    """Whether dbt compares its columns with a contract when it creates it."""
    batches: Batches | None = None
    """How dbt cuts it, if it is a microbatch model."""
    file: str = ""
    """Of an external model of dbt-duckdb: the local file, or folder, that its config names; empty where that is not known."""


NO_SETTINGS = BuildSettings()


def read_build_settings(props: Mapping[str, Any]) -> BuildSettings:
    """Return the build settings of a manifest entry."""
    config = props.get("config") or {}
    return BuildSettings(
        refuses_full_refresh=config.get("full_refresh") is False,
        always_full_refresh=config.get("full_refresh") is True,
        fails_on_configuration_change=str(config.get("on_configuration_change")) == "fail",
        enforces_contract=has_contract(props),
        file=_file(config) if config.get("materialized") == "external" else "",
        batches=_batches(config) if config.get("incremental_strategy") == "microbatch" else None,
    )


def _file(config: Mapping[str, Any]) -> str:
    location = str(config.get("location") or "")
    return "" if "://" in location or "{" in location else location


def in_utc(moment: datetime) -> datetime:
    """Return a moment in UTC, which one without a time zone is already."""
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)


def _batches(config: Mapping[str, Any]) -> Batches:
    begin = config.get("begin")
    try:
        moment = begin if isinstance(begin, datetime) else datetime.fromisoformat(str(begin).replace("Z", "+00:00"))
    except ValueError:
        moment = None
    lookback = config.get("lookback")
    size = getattr(config.get("batch_size"), "value", config.get("batch_size"))
    return Batches(
        str(size or ""), lookback if isinstance(lookback, int) else 1, in_utc(moment) if moment is not None else None
    )
