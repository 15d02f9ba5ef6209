"""New data that a loader reports: it is recorded at once, and nothing has to be polled."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import dagster as dg

from dagster_sao.core.code.versions import digest
from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.core.manifest.graph import Source
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.events.event_schema import DATA_VERSION_TAG
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.project.probed_sources import open_session
from dagster_sao.orchestration.sources.record_tokens import record_source
from dagster_sao.orchestration.state.asset_tokens import IS_USER_PROVIDED_TAG
from dagster_sao.orchestration.state.read_state import ProjectView
from dagster_sao.warehouse.probes.registry import Observation, SourceProber
from dagster_sao.warehouse.redaction import masked


class NoticeStatus(str, Enum):
    """The result of a notice about a source."""

    NEW_DATA = "new data"
    """New data was recorded: the next tick or job builds what reads it."""
    NO_NEW_DATA = "no new data"
    """The source has the data that was recorded before."""
    ERROR = "error"
    """The warehouse could not be asked."""


@dataclass(frozen=True, slots=True)
class Notice:
    """The result of a notice about one source."""

    unique_id: str
    name: str
    status: NoticeStatus
    message: str = ""
    """Why it could not be recorded; empty where it could."""


def take_notice(view: ProjectView, sources: Sequence[Source], token: str) -> list[Notice]:
    """Record new data of sources, and return the result for each.

    A source that is probed is probed now. If nothing tells whether its data changed, it counts as updated. A source that
    `is_pushed` has new data if `token` is another one than before, or is empty.
    """
    pushed = [source for source in sources if is_pushed(view, source)]
    probed = [source for source in sources if source not in pushed]
    notices = [_push(view, source, token) for source in pushed]
    return [*notices, *(_probe(view, probed) if probed else ())]


def is_pushed(view: ProjectView, source: Source) -> bool:
    """Return whether a source is not probed: it has the state that its loader reports to Dagster (`loaded_by_dagster`)."""
    return view.loaded.keys.by_unique_id[source.unique_id] in view.project.loaded_by_dagster


def _push(view: ProjectView, source: Source, token: str) -> Notice:
    last, token = view.state.sources.get(source.unique_id), _without_secret(token)
    if token and last is not None and last.token == token:
        return _notice(source, NoticeStatus.NO_NEW_DATA)
    tags = {DATA_VERSION_TAG: token, IS_USER_PROVIDED_TAG: "true"} if token else None
    key = view.loaded.keys.by_unique_id[source.unique_id]
    view.instance.report_runless_asset_event(
        dg.AssetMaterialization(key, description=f"New data in {source.label}, reported by its loader", tags=tags)
    )
    return _notice(source, NoticeStatus.NEW_DATA)


def _without_secret(token: str) -> str:
    """Return a token as it is, or a hash of one with a secret in it: Dagster shows and keeps it."""
    return token if masked(token) == token else digest(token)


def _probe(view: ProjectView, sources: Sequence[Source]) -> Iterator[Notice]:
    left, mark = {source.unique_id: source for source in sources}, uuid.uuid4().hex
    why = "There was no answer"
    try:
        session = open_session(view.project, view.loaded)
        try:
            for uid, seen in SourceProber(session, now_ns=clock.now_ns).observe(sources):
                yield _record(view, left.pop(uid), seen, mark)
        finally:
            session.close()
    except DagsterSaoError as error:
        why = sentence(error)
    for source in left.values():
        yield _notice(source, NoticeStatus.ERROR, why)


def _record(view: ProjectView, source: Source, seen: Observation, mark: str) -> Notice:
    if seen.error:
        return _notice(source, NoticeStatus.ERROR, seen.error)
    has_new_data = record_source(view, source, seen, untracked_at=f"notice {mark}")
    return _notice(source, NoticeStatus.NEW_DATA if has_new_data else NoticeStatus.NO_NEW_DATA)


def _notice(source: Source, status: NoticeStatus, message: str = "") -> Notice:
    return Notice(source.unique_id, source.label, status, message)
