"""How old a source may be."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from dagster_sao.core.manifest.policy import SourcePolicy
from dagster_sao.core.state.source_age import source_freshness

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
BOTH = SourcePolicy(warn_after=HOUR, error_after=2 * HOUR)


@pytest.mark.parametrize(
    ("policy", "age", "status", "message", "worse_in"),
    [
        pytest.param(BOTH, HOUR / 2, "pass", "Loaded 30m ago", HOUR / 2, id="fresh"),
        pytest.param(BOTH, HOUR, "pass", "Loaded 1h ago", timedelta(0), id="just as old as it may be"),
        pytest.param(BOTH, 1.5 * HOUR, "warn", "Loaded 1h 30m ago. warn_after is 1h", HOUR / 2, id="too old"),
        pytest.param(BOTH, 3 * HOUR, "error", "Loaded 3h ago. error_after is 2h", None, id="much too old"),
        pytest.param(
            SourcePolicy(warn_after=HOUR), 9 * HOUR, "warn", "Loaded 9h ago. warn_after is 1h", None, id="warn"
        ),
        pytest.param(
            SourcePolicy(error_after=HOUR), 9 * HOUR, "error", "Loaded 9h ago. error_after is 1h", None, id="error"
        ),
        pytest.param(
            SourcePolicy(warn_after=2 * HOUR, error_after=HOUR),
            1.5 * HOUR,
            "error",
            "Loaded 1h 30m ago. error_after is 1h",
            HOUR / 2,
            id="error before warn",
        ),
        pytest.param(BOTH, -HOUR, "pass", "Loaded 0s ago", 2 * HOUR, id="loaded by a clock that is ahead"),
    ],
)
def test_a_source_is_as_fresh_as_its_thresholds_say(policy, age, status, message, worse_in):
    freshness = source_freshness(policy, NOW - age, NOW)
    assert (freshness.status.value, freshness.message) == (status, message)
    assert freshness.changes_at == (None if worse_in is None else NOW + worse_in)
