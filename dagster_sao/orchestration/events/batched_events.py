"""Events of a step that are stored many at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from dagster_sao.orchestration.events.door import masked_event
from dagster_sao.orchestration.private.dagster_internals import (
    BATCH_WRITABLE_EVENTS,
    DagsterEventType,
    EventLogStorage,
    SqliteEventLogStorage,
    on_one_connection,
    step_context,
    tell_listeners,
)

# Small enough for one statement, and for one write of SQLite while others wait.
_AT_ONCE = 500


def store_step_events(
    context: dg.AssetExecutionContext, contents: Iterable[dg.AssetObservation | dg.AssetCheckEvaluation]
) -> Sequence[dg.DagsterEvent]:
    """Store observations and check results of a step in bulk, and return the events, which the step yields in their place.

    Dagster stores each result that a step yields by itself, in several transactions: 6 ms of CPU on SQLite, and as many round
    trips to a server. It takes a yielded event as already stored.
    """
    step: Any = _EventsOfStep(context)
    events = [
        dg.DagsterEvent.asset_observation(step, content)
        if isinstance(content, dg.AssetObservation)
        else dg.DagsterEvent.asset_check_evaluation(step, content)
        for content in map(masked_event, contents)
    ]
    for first in range(0, len(step.entries), _AT_ONCE):
        _store(context.instance.event_log_storage, step.entries[first : first + _AT_ONCE])
    for entry in step.entries:
        tell_listeners(context.instance, entry)
    return events


class _EventsOfStep:
    """Stands in for a step where Dagster creates events, and collects them instead of logging them one by one."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._step = step_context(context)
        self.entries: list[dg.EventLogEntry] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever a step has)
        return getattr(self._step, name)

    @property
    def log(self) -> _EventsOfStep:
        return self

    def log_dagster_event(self, level: int, msg: str, dagster_event: dg.DagsterEvent, batch_metadata: None) -> None:
        del batch_metadata
        entry = dg.EventLogEntry(  # type: ignore[no-untyped-call]
            error_info=None,
            level=level,
            user_message=msg,
            run_id=self._step.run_id,
            timestamp=time.time(),
            step_key=self._step.step.key,
            job_name=self._step.job_name,
            dagster_event=dagster_event,
        )
        self.entries.append(entry)


def _store(storage: EventLogStorage, entries: Sequence[dg.EventLogEntry]) -> None:
    if isinstance(storage, SqliteEventLogStorage):
        _store_in_sqlite(storage, entries)
    elif all(entry.dagster_event_type in BATCH_WRITABLE_EVENTS for entry in entries):
        storage.store_event_batch(entries)
    else:
        for entry in entries:
            storage.store_event(entry)


def _store_in_sqlite(storage: SqliteEventLogStorage, entries: Sequence[dg.EventLogEntry]) -> None:
    """Store events as `store_event` does: in the file of their run, and in the index across runs.

    The index's table of assets needs no update: planning the run added the assets.
    """
    inserts = [storage.prepare_insert_event(entry) for entry in entries]
    with storage.run_connection(entries[0].run_id) as connection:
        for insert in inserts:
            connection.execute(insert)
    with on_one_connection(storage) as index, index.index_connection() as connection:
        for entry, insert in zip(entries, inserts, strict=True):
            event_id = connection.execute(insert).lastrowid
            if entry.dagster_event_type is DagsterEventType.ASSET_CHECK_EVALUATION:
                index.store_asset_check_event(entry, event_id)
