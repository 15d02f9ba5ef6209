"""The tokens of what models' builds left, by which a later change from outside Dagster is detected.

A token is of a relation's rows, where they are watched; otherwise of its definition: a table, or a view of which query.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from dagster_sao.core.code.versions import digest
from dagster_sao.core.manifest.graph import Node, Source
from dagster_sao.core.manifest.policy import ExternalChanges
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.state.read_state import LiveProject, ProjectView
from dagster_sao.orchestration.state.relation_notes import build_id, read_baselines, write_baselines
from dagster_sao.warehouse.probes.base import ProbeKind
from dagster_sao.warehouse.probes.registry import SourceProber
from dagster_sao.warehouse.relations.definitions import has_definitions, relation_definitions
from dagster_sao.warehouse.relations.names import parse_relation_name

_CHEAP = frozenset({ProbeKind.POSTGRES, ProbeKind.DUCKLAKE})
_EXACT_AFTER_A_RUN = _CHEAP | {ProbeKind.DUCKDB}
"""The kinds whose token is known to include, as soon as a run has ended, everything that it wrote: see `waits_for_counters`."""


def is_watched(node: Node, prober: SourceProber, loaded: LoadedProject) -> bool:
    """Return whether alterations of a node's relation are detected."""
    if loaded.project.policy(node.unique_id).external_changes is ExternalChanges.IGNORE:
        return False
    return has_definitions(prober.session.adapter_type) or _has_watched_rows(node, prober, loaded)


def _has_watched_rows(node: Node, prober: SourceProber, loaded: LoadedProject) -> bool:
    """Return whether alterations of a node's rows can be detected at a low price, or the user asked for it."""
    if node.is_view:
        return False
    kind = _kind(node, prober)
    # Only read all rows of a model where the user asked for it.
    asked = loaded.project.policy(node.unique_id).external_changes
    return kind in _CHEAP or (asked is not None and kind != ProbeKind.UNTRACKED)


def relation_tokens(prober: SourceProber, loaded: LoadedProject, nodes: Iterable[Node]) -> Iterator[tuple[str, str]]:
    """Yield the unique id and the token of the relation of each node that gave an answer. Raises WarehouseError."""
    by_rows: list[Node] = []
    by_definition: list[Node] = []
    for node in nodes:
        (by_rows if _has_watched_rows(node, prober, loaded) else by_definition).append(node)
    for uid, observation in prober.observe([_as_source(node, prober) for node in by_rows]):
        if observation.token is not None:
            yield uid, digest(observation.token)
    if by_definition:
        yield from relation_definitions(prober.session, by_definition).items()


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
    return {uid: token for uid, token in relation_tokens(prober, view.loaded, watched) if token != known[uid]}


def note_what_is_left(live: LiveProject, prober: SourceProber, nodes: Collection[Node], run_id: str) -> None:
    """Note the tokens of what the builds of a run left, at its end, when dbt and all hooks have ended.

    Two kinds are left to the first look of a sensor or a job: a token that may not include all that the run wrote, which would
    look like an alteration later, and a relation that another run has written since, or is writing once the tokens are read.

    Raises WarehouseError when the warehouse cannot be queried.
    """
    watched = [
        node for node in nodes if _kind(node, prober) in _EXACT_AFTER_A_RUN and is_watched(node, prober, live.loaded)
    ]
    by_rows = {node.unique_id for node in watched if _has_watched_rows(node, prober, live.loaded)}
    if by_rows and prober.waits_for_counters():
        watched = [node for node in watched if node.unique_id not in by_rows]
    if not watched:
        return
    tokens = dict(relation_tokens(prober, live.loaded, watched))
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
