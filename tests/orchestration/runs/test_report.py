"""What a run reports of what it did not build."""

from __future__ import annotations

from dagster_sao.orchestration.runs.report import RunReport
from tests.core.graphs import graph


def test_a_run_fails_for_what_it_selected_and_not_for_a_view_that_it_took_along():
    report = RunReport(None, graph("src.raw >> orders >> view:clean"), None)
    report.outcomes.update(orders=("built", "New changes detected: src.raw"), clean=("held", "Failed 1m ago"))
    assert report.stuck({"orders"}) == ""
    assert (
        report.stuck({"orders", "clean"}) == "Not built because of an earlier failure: clean is held (Failed 1m ago)."
    )
