"""The tokens of the rows that models' builds left, by which a later change from outside Dagster is detected."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from dagster_sao.core.code.versions import digest
from dagster_sao.core.manifest.graph import Node, Source
from dagster_sao.core.manifest.policy import ExternalChanges
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.state.read_state import LiveProject, ProjectView
from dagster_sao.orchestration.state.relation_notes import build_id, read_baselines, write_baselines
from dagster_sao.warehouse.probes.base import ProbeKind
from dagster_sao.warehouse.probes.registry import SourceProber
from dagster_sao.warehouse.relations.names import parse_relation_name

_CHEAP = frozenset({ProbeKind.POSTGRES, ProbeKind.DUCKLAKE})
_EXACT_AFTER_A_RUN = _CHEAP | {ProbeKind.DUCKDB}
"""The kinds whose token is known to include, as soon as a run has ended, everything that it wrote: see `waits_for_counters`."""


def is_watched(node: Node, prober: SourceProber, loaded: LoadedProject) -> bool:
    """Return whether alterations of a node's rows can be detected at a low price, or the user asked for it."""
    asked = loaded.project.policy(node.unique_id).external_changes
    if node.is_view or asked is ExternalChanges.IGNORE:
        return False
    kind = _kind(node, prober)
    # Only read all rows of a model where the user asked for it.
    return kind in _CHEAP or (asked is not None and kind != ProbeKind.UNTRACKED)


def row_tokens(prober: SourceProber, nodes: Sequence[Node]) -> Iterator[tuple[str, str]]:
    """Yield the unique id and the token of the rows of each node that gave an answer. Raises WarehouseError."""
    for uid, observation in prober.observe([_as_source(node, prober) for node in nodes]):
        if observation.token is not None:
            yield uid, digest(observation.token)


def alterations_since(view: ProjectView, prober: SourceProber, nodes: Sequence[Node]) -> dict[str, str]:
    """Return the tokens of the nodes' relations that were altered outside Dagster since their last build.

    Raises WarehouseError when the warehouse cannot be queried.
    """
    builds = view.state.builds
    baselines = read_baselines(view.instance, view.project.state_name)
    known = {
        node.unique_id: baseline
        for node in nodes
        if node.unique_id in builds
        and is_watched(node, prober, view.loaded)
        and (baseline := baselines.of(node.unique_id, builds[node.unique_id])) is not None
    }
    watched = [node for node in nodes if node.unique_id in known]
    return {uid: token for uid, token in row_tokens(prober, watched) if token != known[uid]}


def note_rows(live: LiveProject, prober: SourceProber, nodes: Collection[Node], run_id: str) -> None:
    """Note the tokens of the rows that the builds of a run left, at its end, when dbt and all hooks have ended.

    Two kinds are left to the first look of a sensor or a job: a token that may not include all that the run wrote, which would
    look like an alteration later, and a relation that another run has written since, or is writing once the tokens are read.

    Raises WarehouseError when the warehouse cannot be queried.
    """
    watched = [
        node for node in nodes if _kind(node, prober) in _EXACT_AFTER_A_RUN and is_watched(node, prober, live.loaded)
    ]
    if not watched or prober.waits_for_counters():
        return
    tokens = dict(row_tokens(prober, watched))
    state, building = live.state_and_building()
    found = {
        uid: (build_id(state.builds[uid]), token)
        for uid, token in tokens.items()
        if uid not in building and _is_last_writer(uid, run_id, state)
    }
    if found:
        state_name = live.project.state_name
        baselines = read_baselines(live.instance, state_name)
        baselines.tokens.update(found)
        write_baselines(live.instance, state_name, baselines)


def _is_last_writer(uid: str, run_id: str, state: StateSnapshot) -> bool:
    build, writer = state.builds.get(uid), state.writers.get(uid)
    if build is None or build.run_id != run_id:
        return False
    return writer is None or writer.attempt_id == build.attempt_id


def _kind(node: Node, prober: SourceProber) -> str:
    return prober.probe_of(_as_source(node, prober)).kind


def _as_source(node: Node, prober: SourceProber) -> Source:
    """Return a node's relation in the form in which probes take relations."""
    name = parse_relation_name(node.relation_name or "", prober.session.adapter_type)
    return Source(
        unique_id=node.unique_id,
        source_name=name.schema if name else "",
        name=node.name,
        file=node.file,
        database=(name.database or None) if name else None,
        schema=(name.schema or None) if name else None,
        identifier=name.identifier if name else None,
        relation_name=node.relation_name,
    )
