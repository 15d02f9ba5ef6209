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


def test_a_problem_with_the_sources_ends_the_summary_with_one_full_stop():
    report = RunReport(None, graph("src.raw >> orders"), None)
    report.sources_had(["The database is in use."])
    text, _ = report.summary(1)
    assert text == "No models; new data may not be detected in sources: The database is in use."
