"""Notes about relations: which models' relations are missing or were altered outside Dagster, and which columns they have.

The notes are documents in the instance's key-value store: they hold the present state, while the event log would keep every
earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace

import dagster as dg

from dagster_sao.core.decision.view_rules import has_definition, is_bound_to
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import LastBuild, StateSnapshot
from dagster_sao.orchestration.state.documents import Document


@dataclass(frozen=True, slots=True)
class RelationNote:
    """How one node's relation differs from what a build of the node left."""

    built_at: str
    """The end of that build. A note about one build does not count for another."""
    is_missing: bool = False
    alteration: str | None = None
    """The token of its rows, where they were altered outside Dagster."""
    is_restored: bool = False
    """Whether it comes from an older copy of its database."""
    absences: int = 0
    """How often it was missing in a row, each time after another build, without being seen between them."""

    @property
    def is_out_of_order(self) -> bool:
        """Return whether there is anything to note."""
        return self.is_missing or self.is_restored or self.alteration is not None or self.absences > 0


@dataclass(frozen=True, slots=True)
class RelationNotes:
    """The relations of a project that are not as their last build left them, by unique id."""

    seen: Mapping[str, RelationNote] = field(default_factory=dict)

    def missing(self, builds: Mapping[str, LastBuild]) -> frozenset[str]:
        """Return the nodes whose relation is missing since their last build."""
        return frozenset(uid for uid, relation in self._current(builds) if relation.is_missing)

    def restored(self, builds: Mapping[str, LastBuild]) -> frozenset[str]:
        """Return the nodes whose relation comes from an older copy of its database, put back since their last build."""
        return frozenset(uid for uid, relation in self._current(builds) if relation.is_restored)

    def altered(self, builds: Mapping[str, LastBuild]) -> dict[str, str]:
        """Return the nodes whose rows were altered since their last build, with their token."""
        return {uid: relation.alteration for uid, relation in self._current(builds) if relation.alteration is not None}

    def _current(self, builds: Mapping[str, LastBuild]) -> Iterator[tuple[str, RelationNote]]:
        for uid, relation in self.seen.items():
            if uid in builds and relation.built_at == build_id(builds[uid]):
                yield uid, relation


def build_id(build: LastBuild) -> str:
    """Return the id of a build among the builds of its node."""
    return build.ended_at.isoformat()


def build_mark(build: LastBuild | None) -> str:
    """Return the mark of a build, which no other build of any run has; empty for no build."""
    return f"{build.run_id} {build_id(build)}" if build else ""


@dataclass
class Baselines:
    """The tokens of relations at the end of the run of a build, or at the first look after it, each with that build."""

    tokens: dict[str, tuple[str, str]] = field(default_factory=dict)

    def of(self, unique_id: str, build: LastBuild) -> str | None:
        """Return the token of a node's rows after just this build."""
        built_at, token = self.tokens.get(unique_id, ("", ""))
        return token if built_at == build_id(build) else None


@dataclass(frozen=True, slots=True)
class Columns:
    """The signatures of columns, each with the build after which it was seen: an empty one for sources."""

    seen: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The signatures of sources and nodes."""
    bound: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    """The signatures that a view was created on, of parents that were listed only after that: by view, with its build, then by parent."""
    hidden: frozenset[str] = frozenset()
    """The sources and nodes whose columns were seen once, but could not be listed at the last look."""

    def added_to(self, state: StateSnapshot, project: Project) -> StateSnapshot:
        """Return the state with the known columns. All else that is known of relations must be in it."""
        builds = dict(state.builds)
        for uid, (_, columns) in self.learned(state, project).bound.items():
            builds[uid] = replace(builds[uid], columns={**columns, **builds[uid].columns})
        sources = {
            uid: replace(source, columns=self.seen.get(uid, ("", ""))[1]) for uid, source in state.sources.items()
        }
        listed = self.seen.keys() - self.hidden
        known = {uid: self.seen[uid][1] for uid in listed if self.seen[uid][0] == last_build_id(uid, state)}
        return replace(state, builds=builds, sources=sources, columns=known, listed=frozenset(listed))

    def learned(self, state: StateSnapshot, project: Project) -> Columns:
        """Return the columns with those that each view was created on, as far as they are listed by now."""
        graph, bound = project.graph, {}
        for uid, build in state.builds.items():
            node = graph.nodes.get(uid)
            if node is None or not has_definition(node, project):
                continue
            mark, known = self.bound.get(uid, ("", {}))
            columns = dict(known) if mark == build_id(build) else {}
            for parent in node.parents:
                is_listed = parent in state.builds and self.seen.get(parent, ("", ""))[0] == last_build_id(
                    parent, state
                )
                if parent not in columns and is_listed and is_bound_to(build, parent, state):
                    columns[parent] = self.seen[parent][1]
            if columns:
                bound[uid] = build_id(build), columns
        return replace(self, bound=bound)


def last_build_id(unique_id: str, state: StateSnapshot) -> str:
    """Return the id of the last build of a node; empty for a source, and for a node without one."""
    build = state.builds.get(unique_id)
    return build_id(build) if build is not None else ""


def read_columns(instance: dg.DagsterInstance, state_name: str) -> Columns:
    """Return the noted columns; none where another version wrote them."""
    content = Document.COLUMNS.read(instance, state_name)
    try:
        seen = {uid: (str(mark), str(signature)) for uid, (mark, signature) in content.get("seen", {}).items()}
        bound = {uid: (str(mark), dict(columns)) for uid, (mark, columns) in content.get("bound", {}).items()}
        return Columns(seen, bound, frozenset(content.get("hidden", ())))
    except (AttributeError, TypeError, ValueError):
        return Columns()


def write_columns(instance: dg.DagsterInstance, state_name: str, columns: Columns) -> None:
    """Write the noted columns."""
    content = {"seen": dict(columns.seen), "bound": dict(columns.bound), "hidden": sorted(columns.hidden)}
    Document.COLUMNS.write(instance, state_name, content)


@dataclass(frozen=True, slots=True)
class MovedInRun:
    """The parents of nodes that moved during the run of their last build, with their versions at its end, by node."""

    seen: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    """The parents and versions for each node, with the mark of that build."""

    def current(self, builds: Mapping[str, LastBuild]) -> dict[str, Mapping[str, str]]:
        """Return the notes about the last builds."""
        return {uid: moved for uid, (mark, moved) in self.seen.items() if mark == build_mark(builds.get(uid))}


def read_moved(instance: dg.DagsterInstance, state_name: str) -> MovedInRun:
    """Return what moved in runs; nothing where another version wrote it."""
    content = Document.MOVED_IN_RUN.read(instance, state_name)
    try:
        return MovedInRun({uid: (str(mark), dict(moved)) for uid, (mark, moved) in content.items()})
    except (TypeError, ValueError):
        return MovedInRun()


def write_moved(
    instance: dg.DagsterInstance,
    state_name: str,
    builds: Mapping[str, LastBuild],
    moved: Mapping[str, Mapping[str, str]],
) -> None:
    """Write what moved in a run that built exactly the nodes of `moved`, beside the notes about the other last builds."""
    before = read_moved(instance, state_name)
    seen = {uid: (build_mark(builds[uid]), dict(found)) for uid, found in before.current(builds).items()}
    seen.update({uid: (build_mark(builds[uid]), dict(found)) for uid, found in moved.items()})
    seen = {uid: (mark, found) for uid, (mark, found) in seen.items() if found}
    if seen != before.seen:
        Document.MOVED_IN_RUN.write(instance, state_name, seen)


def read_relation_notes(instance: dg.DagsterInstance, state_name: str) -> RelationNotes:
    """Return the notes; none where another version wrote them."""
    seen = Document.RELATIONS.read(instance, state_name)
    try:
        return RelationNotes({uid: RelationNote(**relation) for uid, relation in seen.items()})
    except TypeError:
        return RelationNotes()


def write_relation_notes(instance: dg.DagsterInstance, state_name: str, relations: RelationNotes) -> None:
    """Write the notes."""
    Document.RELATIONS.write(instance, state_name, {uid: asdict(relation) for uid, relation in relations.seen.items()})


def read_baselines(instance: dg.DagsterInstance, state_name: str) -> Baselines:
    """Return the baselines; none where another version wrote them."""
    tokens = Document.BASELINES.read(instance, state_name)
    try:
        return Baselines({uid: (str(built_at), str(token)) for uid, (built_at, token) in tokens.items()})
    except (TypeError, ValueError):
        return Baselines()


def write_baselines(instance: dg.DagsterInstance, state_name: str, baselines: Baselines) -> None:
    """Write the baselines."""
    Document.BASELINES.write(instance, state_name, baselines.tokens)


def read_checkpoints(instance: dg.DagsterInstance, state_name: str) -> dict[str, int]:
    """Return the highest count of checkpoints that each DuckDB file had; none, when another version wrote it."""
    content = Document.CHECKPOINTS.read(instance, state_name)
    try:
        return {file: int(count) for file, count in content.items()}
    except (TypeError, ValueError):
        return {}


def write_checkpoints(instance: dg.DagsterInstance, state_name: str, counts: Mapping[str, int]) -> None:
    """Keep counts of checkpoints."""
    Document.CHECKPOINTS.write(instance, state_name, counts)
