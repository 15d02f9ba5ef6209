"""The state of the sources, their tokens in the warehouse now, and new data that a loader reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import as_text, styled
from dagster_sao.api.errors import ConflictingOptionsError
from dagster_sao.core.durations import format_duration
from dagster_sao.core.errors import DagsterSaoError, UnknownNodeError
from dagster_sao.core.manifest.graph import Source
from dagster_sao.core.state.source_tokens import told_by_probe
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.events.event_schema import LOADED_AT_KEY, PROBE_KEY, from_timestamp, plain
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.project.loaded import LoadedProject, source_policy
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.probed_sources import open_session
from dagster_sao.orchestration.selection.resolve import find_node
from dagster_sao.orchestration.sources.notices import Notice, NoticeStatus, is_pushed, take_notice
from dagster_sao.orchestration.sources.record_tokens import next_state_of
from dagster_sao.orchestration.state.read_state import ProjectView
from dagster_sao.warehouse.probes.base import Observation
from dagster_sao.warehouse.probes.registry import SourceProber

_LOADED_BY_DAGSTER = "Dagster asset"


@dataclass(frozen=True, slots=True)
class SourceReport:
    """The state of one source."""

    unique_id: str
    name: str
    file: str
    asset_key: str
    token: str | None
    """The latest recorded token, None when it was never probed."""
    recorded_at: datetime | None
    """When that token was recorded: the last change that was seen."""
    loaded_at: datetime | None
    """When the data was last loaded, where that is known."""
    probe: str
    """How the token was found; empty when it was never probed."""
    age: timedelta | None
    """How old the data is: since it was loaded, else since its last change was seen."""
    has_new_data: bool | None = None
    """Whether the warehouse has other data than recorded; None if it was not probed."""
    error: str = ""
    """Why it could not be probed."""
    warning: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "unique_id": self.unique_id,
            "name": self.name,
            "file": self.file,
            "asset_key": self.asset_key,
            "token": self.token,
            "recorded_at": self.recorded_at.isoformat() if self.recorded_at else None,
            "loaded_at": self.loaded_at.isoformat() if self.loaded_at else None,
            "age_seconds": round(self.age.total_seconds(), 3) if self.age is not None else None,
            "probe": self.probe,
            "has_new_data": self.has_new_data,
            "error": self.error or None,
            "warning": self.warning or None,
        }


@dataclass(frozen=True, slots=True)
class SourceReports:
    """The state of a project's sources. Prints as a table."""

    project_name: str
    sources: tuple[SourceReport, ...]

    def __iter__(self) -> Iterator[SourceReport]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"project": self.project_name, "sources": [source.to_dict() for source in self.sources]}

    def __rich__(self) -> RenderableType:
        """Return it as a table."""
        table = Table(title=f"{self.project_name}: {len(self.sources)} sources", title_justify="left")
        for heading in ("source", "how it is probed", "age", "last change seen", "token", "now"):
            table.add_column(heading)
        for source in self.sources:
            table.add_row(
                source.name,
                source.probe or "never probed",
                format_duration(source.age) if source.age is not None else "",
                source.recorded_at.isoformat(sep=" ", timespec="seconds") if source.recorded_at else "",
                Text(source.token or "", overflow="ellipsis", no_wrap=True),
                _now(source),
            )
        return table

    def __str__(self) -> str:
        return as_text(self)


@dataclass(frozen=True, slots=True)
class SourceNotices:
    """The results of a notice about sources. Prints as a table."""

    project_name: str
    notices: tuple[Notice, ...]

    def __iter__(self) -> Iterator[Notice]:
        return iter(self.notices)

    def __len__(self) -> int:
        return len(self.notices)

    @property
    def success(self) -> bool:
        """Whether the state of each source is known now."""
        return all(notice.status is not NoticeStatus.ERROR for notice in self.notices)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        sources = [
            {
                "unique_id": notice.unique_id,
                "name": notice.name,
                "status": notice.status.value,
                "message": notice.message or None,
            }
            for notice in self.notices
        ]
        return {"project": self.project_name, "success": self.success, "sources": sources}

    def __rich__(self) -> RenderableType:
        """Return it as a table."""
        table = Table.grid(padding=(0, 2))
        for notice in self.notices:
            table.add_row(notice.name, styled(notice.status.value), notice.message)
        return table

    def __str__(self) -> str:
        return as_text(self)


@dataclass(frozen=True, slots=True)
class Look:
    """The tokens of some sources in the warehouse now."""

    observations: Mapping[str, Observation]
    problem: str = ""
    """Why the warehouse could not be probed; empty if it could."""


def ask_warehouse(
    project: OrchestratedProject,
    loaded: LoadedProject,
    sources: Iterable[Source],
    also: Callable[[SourceProber], object] | None = None,
) -> Look:
    """Probe sources, then do what `also` does; record nothing. Tokens that were read before a failure count."""
    found: dict[str, Observation] = {}
    try:
        session = open_session(project, loaded)
        try:
            prober = SourceProber(session, now_ns=clock.now_ns)
            found.update(prober.observe(list(sources)))
            if also is not None:
                also(prober)
        finally:
            session.close()
    except DagsterSaoError as error:
        return Look(found, sentence(error))
    return Look(found)


def with_new_tokens(state: StateSnapshot, look: Look, loaded: LoadedProject, now: datetime) -> StateSnapshot:
    """Return the state as a job would have it after it probed the sources."""
    sources = dict(state.sources)
    for uid, observation in look.observations.items():
        policy = source_policy(loaded, loaded.project.graph.sources[uid])
        # A job counts a source that is not tracked as updated at every run.
        found = next_state_of(observation, policy, sources.get(uid), now, untracked_at="now")
        if found is not None:
            sources[uid] = found
    return replace(state, sources=sources)


def notify_sources(view: ProjectView, names: Sequence[str], token: str) -> SourceNotices:
    """Record new data of the named sources. Raises UnknownNodeError, and ConflictingOptionsError for a token of a probed source."""
    graph = view.graph
    uids = dict.fromkeys(find_node(view.loaded, name.removeprefix("source:")) for name in names)
    if nodes := [graph.label(uid) for uid in uids if uid not in graph.sources]:
        msg = f"{', '.join(nodes)} is built by dbt, and so is not a source: name sources, as in raw.orders."
        raise UnknownNodeError(msg)
    sources = [graph.sources[uid] for uid in uids]
    if token and (probed := [source.label for source in sources if not is_pushed(view, source)]):
        msg = (
            f"The warehouse is asked whether {', '.join(probed)} has new data, so a token would count beside its answer. Leave"
            " out the token, or name the source in `loaded_by_dagster`: then it is not probed."
        )
        raise ConflictingOptionsError(msg)
    return SourceNotices(view.project.name, tuple(take_notice(view, sources, token)))


def source_reports(view: ProjectView, look: Look | None = None) -> SourceReports:
    """Return the state of every source that a node reads, with its token in the warehouse just now."""
    read = [source for uid, source in view.graph.sources.items() if view.graph.children[uid]]
    reports = (_with_look(_report(view, source), look, view.state) for source in read)
    return SourceReports(view.project.name, tuple(reports))


def _report(view: ProjectView, source: Source) -> SourceReport:
    uid = source.unique_id
    key, state = view.loaded.keys.by_unique_id[uid], view.state.sources.get(uid)
    event = view.instance.get_latest_materialization_event(key)
    materialization = event.asset_materialization if event else None
    values = plain(materialization.metadata if materialization else {})
    loaded_at = values.get(LOADED_AT_KEY)
    loaded_at = from_timestamp(loaded_at) if isinstance(loaded_at, (int, float)) else None
    since = loaded_at or (state.recorded_at if state else None)
    return SourceReport(
        unique_id=uid,
        name=source.label,
        file=source.file,
        asset_key=key.to_user_string(),
        token=state.token if state else None,
        recorded_at=state.recorded_at if state else None,
        loaded_at=loaded_at,
        probe=_LOADED_BY_DAGSTER if key in view.project.loaded_by_dagster else str(values.get(PROBE_KEY) or ""),
        age=view.now - since if since else None,
    )


def _with_look(report: SourceReport, look: Look | None, state: StateSnapshot) -> SourceReport:
    if look is None or report.probe == _LOADED_BY_DAGSTER:
        return report
    observation = look.observations.get(report.unique_id)
    if observation is None:
        return replace(report, error=look.problem or "There was no answer")
    last = state.sources.get(report.unique_id)
    knows = observation.token is not None
    return replace(
        report,
        probe=observation.kind,
        has_new_data=(last is None or told_by_probe(last.token) != observation.token) if knows else None,
        error=observation.error or "",
        warning=observation.warning or "",
    )


def _now(source: SourceReport) -> Text:
    if source.error:
        return Text(source.error, style="red")
    if source.warning:
        return Text(source.warning, style="yellow")
    if source.has_new_data is None:
        return Text("")
    return styled("new data" if source.has_new_data else "no new data")
