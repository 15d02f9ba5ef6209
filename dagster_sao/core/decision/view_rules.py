"""Rules about views: what a stored definition is bound to, and what determines the columns of a node. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from dagster_sao.core.code.evidence import Evidence, code_digest, proven_kind
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.code.versions import digest, is_deferred
from dagster_sao.core.decision.materializations import is_refreshed_with_old_sql
from dagster_sao.core.manifest.graph import Node, NodeKind, ProjectGraph
from dagster_sao.core.project import Project
from dagster_sao.core.state.news import changed_parents
from dagster_sao.core.state.relation_versions import superseded_at
from dagster_sao.core.state.state import LastBuild, StateSnapshot

_MATERIALIZED_VIEW = "materialized_view"
_REPLACED_WHEN_BUILT = frozenset({"table", "view"})


class Relations:
    """Which relations of nodes are there after a plan, as far as it has come: parents first."""

    def __init__(self, project: Project, state: StateSnapshot, replaced_in: Mapping[str, str]) -> None:
        """Know of none yet. `replaced_in` tells of each node the run that will have replaced its relation last."""
        self._project, self._state, self._replaced_in = project, state, replaced_in
        self._gone: set[str] = set()

    def dropped_with(self, node: Node) -> frozenset[str]:
        """Return the relations whose replacement since its last build dropped a node, or will; none where that drops nothing."""
        last_build = self._state.builds.get(node.unique_id)
        if last_build is None or not self._is_dropped(node):
            return frozenset()
        has_signatures = follows_columns(node, self._project)
        bindings = last_build.view_bindings or dict.fromkeys(node.parents, "")
        bound_to = {uid: marker.rpartition(" ")[0] if has_signatures else marker for uid, marker in bindings.items()}
        return frozenset(uid for uid, run in bound_to.items() if self._replaced_in.get(uid, run) != run)

    def is_lost_view(self, node: Node) -> bool:
        """Return whether a view is not there any more unless the plan builds it, though all that it reads is."""
        return node.is_view and self._is_lost(node) and self._gone.isdisjoint(node.parents)

    def decided(self, node: Node, *, is_built: bool) -> None:
        """Note whether the plan builds a node."""
        uid = node.unique_id
        if is_built or uid in self._state.sources:
            return  # or it is read from another environment
        is_below = self._is_dropped(node) and not self._gone.isdisjoint(node.parents)
        if uid not in self._state.builds or self._is_lost(node) or is_below:
            self._gone.add(uid)

    def _is_lost(self, node: Node) -> bool:
        is_missing = node.unique_id in self._state.missing_relations
        return is_missing or bool(self.dropped_with(node))

    def _is_dropped(self, node: Node) -> bool:
        return self._project.traits.drops_dependent_views and is_dropped(node.unique_id, self._project.graph)


def column_signature(node: Node, project: Project, signatures: Mapping[str, str], definition: str = "") -> str:
    """Return the column signature of a newly built node: a digest of its code and of its parents' signatures, since types flow.

    Equal signatures mean equal columns. `definition` is the view's definition (see `definition`).
    """
    code = project.fingerprints[node.unique_id].digest
    return digest([code, [signatures.get(parent, "") for parent in node.parents], definition])


def changed_columns(
    node: Node, project: Project, last_build: LastBuild | None, columns: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the columns of its parents that a stored definition is not known to be bound to.

    Empty for a view that need not follow them (see `follows_columns`), unless its templates asked for columns.
    """
    if last_build is None or not has_definition(node, project):
        return {}
    reads = last_build.evidence.reads
    if node.is_view and not follows_columns(node, project) and (reads is None or not reads.asks_columns):
        return {}
    return {parent: signature for parent, signature in columns.items() if last_build.columns.get(parent) != signature}


def asks_parents(node: Node, project: Project, evidence: Evidence) -> bool:
    """Return whether the SQL of a view is made from what its parents held when it was built."""
    if not node.is_view:
        return False
    reads = evidence.reads
    return node.unique_id in project.may_ask if reads is None else reads.asks_parents


def asked_parents(
    node: Node, project: Project, last_build: LastBuild | None, columns: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the parents of a view whose other version may give it other SQL, because its templates queried them.

    Or because it was created on the parents of another environment, whose names its SQL has. `columns` are those that are
    known: if its templates asked for columns alone, these parents are compared by them.
    """
    if last_build is None or not node.is_view:
        return ()
    elsewhere = tuple(parent for parent in node.parents if is_deferred(last_build.consumed.get(parent, "")))
    if not asks_parents(node, project, last_build.evidence):
        return elsewhere
    reads = last_build.evidence.reads
    if reads is None or reads.asks_rows:
        return node.parents
    # Of what a view follows, the column signatures of nodes are compared too.
    bound = project.graph.nodes if follows_columns(node, project) else ()
    return tuple(p for p in node.parents if p in elsewhere or (p not in columns and p not in bound))


def renewal(
    node: Node,
    project: Project,
    last_build: LastBuild | None,
    columns: Mapping[str, str],
    versions: Mapping[str, str],
) -> Mapping[str, str]:
    """Return what makes the definition of a view another one when it is created anew; empty where it stays what it is."""
    if last_build is None:
        return {}
    asked = asked_parents(node, project, last_build, columns)
    changed = changed_parents(asked, last_build.consumed, versions)
    return {**changed_columns(node, project, last_build, columns), **{parent: versions[parent] for parent in changed}}


def other_text(last_build: LastBuild | None, fingerprint: Fingerprint, evidence: Evidence) -> Mapping[str, str]:
    """Return what makes the definition of a view another one although its code is the same: the SQL that it was created with.

    Its templates read the time, a random value or the id of dbt's invocation. Empty where the SQL is the same, or not known.
    """
    before = last_build.evidence.definition if last_build is not None else ""
    if last_build is None or not before or evidence.definition in {"", before}:
        return {}
    return {"": evidence.definition} if code_digest(fingerprint, evidence) == last_build.code else {}


def follows_columns(node: Node, project: Project) -> bool:
    """Return whether a view has to be created anew when its parents get other columns.

    It has to where the database binds views. With an enforced contract it has to everywhere, since dbt compares its columns with
    the contract when it creates the view, and never again; so have the views that it reads, which pass them on.
    """
    return node.is_view and (project.traits.binds_views or node.unique_id in project.graph.views_under_contract)


def has_definition(node: Node, project: Project) -> bool:
    """Return whether the database keeps SQL of a node that it runs again: of a view, or of a materialized view."""
    return node.is_view or is_refreshed_with_old_sql(node.materialized, project.traits)


def bound_columns(
    node: Node, project: Project, before: LastBuild | None, known: Mapping[str, str], *, is_created: bool
) -> Mapping[str, str]:
    """Return the columns of its parents that a stored definition is bound to after a build; without what is not known.

    `is_created` tells whether the build created the relation. A mere refresh leaves it bound to what it was bound to.
    """
    if not has_definition(node, project):
        return {}
    if node.is_view or is_created or before is None:
        return known
    return {parent: before.columns.get(parent, "") for parent in node.parents}


def is_bound_to(build: LastBuild, parent: str, state: StateSnapshot) -> bool:
    """Return whether the stored definition that a build created is bound to a parent as it is now.

    The parent is what it was for the build: built by the same run, or by another one before.
    """
    last = state.builds.get(parent)
    created_on = build.parents_built_in.get(parent, build.run_id)
    return last is not None and last.run_id == created_on and not state.is_unknown(parent)


def definition(last_build: LastBuild | None, changed: Mapping[str, str]) -> str:
    """Return a mark of a view's stored definition, which differs after the view was created anew for what `changed`."""
    before = last_build.definition if last_build is not None else ""
    return digest([before, changed]) if changed else before


def unlisted_parents(node: Node, state: StateSnapshot) -> tuple[str, ...]:
    """Return the parents whose columns the warehouse does not list."""
    return tuple(parent for parent in node.parents if parent not in state.listed)


def views_to_renew(
    project: Project, state: StateSnapshot, selected: Iterable[str], builds: Iterable[str]
) -> frozenset[str]:
    """Return the views to create anew because a node below them is built and the columns of their `*` are unknown."""
    nodes, built = project.graph.nodes, set(builds)
    candidates = {
        uid
        for uid in project.selects_star.intersection(selected, state.builds)
        if follows_columns(nodes[uid], project) and unlisted_parents(nodes[uid], state)
    }
    return frozenset(uid for uid in candidates if not built.isdisjoint(project.graph.descendants([uid])))


def replaces_relation(
    node: Node,
    fingerprint: Fingerprint,
    last_build: LastBuild | None,
    bindings: Mapping[str, str],
    *,
    full_refresh: bool,
) -> bool:
    """Return whether a build replaces the node's relation; otherwise it only changes rows of it.

    Other code may mean another materialization, so an incremental model with changed code counts as replaced. So does a
    materialized view that was dropped with a table, as its `bindings` (see `view_bindings`) tell.
    """
    return (
        node.materialized in _REPLACED_WHEN_BUILT
        or full_refresh
        or last_build is None
        or last_build.fingerprint.digest != fingerprint.digest
        or last_build.view_bindings != bindings
    )


def view_bindings(
    node: Node, project: Project, signatures: Mapping[str, str], replaced_in: Mapping[str, str]
) -> dict[str, str]:
    """Return a marker for each parent that the stored definition of a view is bound to.

    Where the columns of a view stay as they were, it is bound to what its parents' columns follow from. Where replacing a
    table drops the views on it, a view is bound to each parent's relation: to the run in which it was last replaced.
    """
    drops_views = project.traits.drops_dependent_views
    has_signatures = follows_columns(node, project)
    if not (drops_views and is_dropped(node.unique_id, project.graph)) and not has_signatures:
        return {}
    return {
        parent: " ".join(
            ([replaced_in.get(parent, "")] if drops_views else [])
            + ([signatures.get(parent, "")] if has_signatures else [])
        )
        for parent in node.parents
        if parent in project.graph.nodes
    }


def views_read(node: Node, graph: ProjectGraph) -> list[str]:
    """Return the views that a node reads, through views too."""
    found: dict[str, None] = {}
    stack = [*node.parents]
    while stack:
        uid = stack.pop()
        if uid not in found and _is_view(graph, uid):
            found[uid] = None
            stack.extend(graph.nodes[uid].parents)
    return list(found)


def view_leaves(node: Node, graph: ProjectGraph) -> list[str]:
    """Return the nodes and sources that a node reads through views: the nearest ancestors that are not views."""
    above = (parent for view in views_read(node, graph) for parent in graph.nodes[view].parents)
    return list(dict.fromkeys(parent for parent in above if not _is_view(graph, parent)))


def read_with_views(node: Node, graph: ProjectGraph) -> set[str]:
    """Return what a node reads, itself or through views: its parents, and the parents of all these views."""
    return {*node.parents, *(parent for view in views_read(node, graph) for parent in graph.nodes[view].parents)}


def build_kind(node: Node, evidence: Evidence, graph: ProjectGraph, builds: Mapping[str, LastBuild]) -> NodeKind:
    """Return what a build with this evidence does to the node's rows.

    A view runs its SQL whenever something reads it: a table is a function of its inputs only if those views are proven to be too.
    """
    kind = proven_kind(node.kind, evidence)
    if kind is not NodeKind.DETERMINISTIC:
        return kind
    read = [builds.get(uid) for uid in views_read(node, graph)]
    is_proven = all(build is not None and build.evidence.is_deterministic for build in read)
    return kind if is_proven else NodeKind.HISTORY_DEPENDENT


def first_change_at(  # noqa: PLR0913 (what a plan knows of a node's parents)
    node: Node,
    last_build: LastBuild,
    graph: ProjectGraph,
    state: StateSnapshot,
    *,
    versions: Mapping[str, str],
    is_built: Callable[[str], bool],
    now: datetime,
) -> datetime | None:
    """Return when the first change appeared, below views too, that `last_build` has not consumed.

    `versions` are those after the plan, and `is_built` tells what it builds.
    """
    direct = [parent for parent in node.parents if not _is_view(graph, parent)]
    read = {
        **{p: v for p, v in last_build.consumed.items() if not _is_view(graph, p)},
        **last_build.view_leaf_versions,
    }
    moments = [
        superseded_at(
            read.get(parent, ""),
            state.history(parent),
            now=now,
            read_at=last_build.started_at,
            is_built_now=is_built(parent),
        )
        for parent in (*view_leaves(node, graph), *direct)
        if versions.get(parent) not in (None, read.get(parent))
    ]
    return min(moments, default=None)


def is_dropped(unique_id: str, graph: ProjectGraph) -> bool:
    """Return whether a node's relation is dropped with a table that it reads, where views are."""
    node = graph.nodes[unique_id]
    return node.is_view or is_materialized_view(node)


def is_materialized_view(node: Node) -> bool:
    """Return whether a node is a materialized view."""
    return node.materialized == _MATERIALIZED_VIEW


def _is_view(graph: ProjectGraph, unique_id: str) -> bool:
    node = graph.nodes.get(unique_id)
    return node is not None and node.kind is NodeKind.VIEW
