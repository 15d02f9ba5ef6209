"""How a build goes on: a bar on a terminal, a line for each node. On stderr, beside the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from dagster_sao.api.display import seconds_text, styled
from dagster_sao.api.results import NodeResult, NodeStatus
from dagster_sao.cli.output import Output


@contextmanager
def build_progress(out: Output, count: int) -> Iterator[Callable[[NodeResult], None]]:
    """Yield what shows the result of a node as soon as it is known. `count` is how many nodes there will be."""
    columns = TextColumn("Building"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    is_shown = out.err.is_terminal and not out.quiet
    heard: set[str] = set()
    with Progress(*columns, console=out.err, transient=True, disable=not is_shown) as bar:
        task = bar.add_task("nodes", total=count)

        def hear(result: NodeResult) -> None:
            heard.add(result.unique_id)
            bar.update(task, completed=len(heard))
            # On a terminal the many that are reused would hide the few that are built.
            if not out.quiet and not (is_shown and result.status is NodeStatus.REUSED):
                bar.console.print(_line(result))

        yield hear


def _line(result: NodeResult) -> Text:
    took = f" in {seconds_text(result.seconds)}" if result.status is NodeStatus.SUCCESS else ""
    return Text.assemble(styled(result.status.value), f" {result.name}{took}. {result.message}")
