"""The progress of a build: a bar on a terminal, a line for each node and each test. On stderr, beside the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from dagster_sao.api.display import counted, seconds_text, styled
from dagster_sao.api.results.values import NodeResult, NodeStatus, TestResult, TestStatus
from dagster_sao.cli.output import Output


@contextmanager
def build_progress(out: Output, count: int) -> Iterator[Callable[[NodeResult | TestResult], None]]:
    """Yield a function that shows each result as soon as it is known. `count` is the number of nodes."""
    columns = TextColumn("Building"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    is_shown = out.err.is_terminal and not out.quiet
    heard: set[str] = set()
    with Progress(*columns, console=out.err, transient=True, disable=not is_shown) as bar:
        task = bar.add_task("nodes", total=count)

        def hear(result: NodeResult | TestResult) -> None:
            if isinstance(result, NodeResult):
                heard.add(result.unique_id)
                bar.update(task, completed=len(heard))
            if not out.quiet and _is_news(result, is_shown=is_shown):
                bar.console.print(_line(result))

        yield hear


def _is_news(result: NodeResult | TestResult, *, is_shown: bool) -> bool:
    """Return whether a result is worth a line beside the bar, or without one."""
    if isinstance(result, TestResult):
        # There are many tests, and an answer of an earlier run is news only where it holds something.
        return result.status is not TestStatus.REUSED or result.is_failing
    # On a terminal the many reused nodes would hide the few that are built.
    return not is_shown or result.status is not NodeStatus.REUSED


def _line(result: NodeResult | TestResult) -> Text:
    return Text.assemble(styled(result.status.value), f" {result.name}{_more(result)}. {result.message}")


def _more(result: NodeResult | TestResult) -> str:
    if isinstance(result, NodeResult):
        return f" in {seconds_text(result.seconds)}" if result.status is NodeStatus.SUCCESS else ""
    return f" ({counted(result.failures, 'row')})" if result.failures else ""
