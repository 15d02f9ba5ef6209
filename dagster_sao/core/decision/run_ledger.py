"""The versions within one run: captured at its start, moved on by what it builds.

A run consumes what was recorded before dbt started, and what it built itself. So rows that land while it runs look new
to the next decision: at worst one build too many, never one too few. A token that can return needs more: the source is
probed again before anything is recorded, and if it moved, there is no telling which of its states a build read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime

from dagster_sao.core.code.evidence import UNSEEN, Evidence, code_digest
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.code.versions import (
    attempt_version,
    captured_version,
    data_version,
    deferred_version,
    function_versions,
    moved_version,
    times_moved,
    view_version,
)
from dagster_sao.core.decision.decide_tests import changed_reads
from dagster_sao.core.decision.view_rules import (
    asks_parents,
    bound_columns,
    build_kind,
    column_signature,
    definition,
    has_definition,
    other_text,
    read_with_views,
    renewal,
    replaces_relation,
    view_bindings,
    view_leaves,
)
from dagster_sao.core.manifest.graph import Node, ProjectTest
from dagster_sao.core.project import Project
from dagster_sao.core.state.relation_versions import altered_version, stored_version
from dagster_sao.core.state.state import LastBuild, StateSnapshot, Verdict, VerdictStatus, VersionHistory

_REMEMBERED_VERSIONS = 12


class Ledger:
    """The versions that each node of a run would consume now, and the record of each build."""

    def __init__(self, project: Project, state: StateSnapshot) -> None:
        """Capture the versions that `state` holds."""
        self._project = project
        self._tables: dict[str, str] = {uid: source.version for uid, source in state.sources.items()}
        self._builds: dict[str, LastBuild] = dict(state.builds)
        self._functions = {uid: known.code for uid, known in state.functions.items()}
        self._created: dict[str, str] = {}
        self._functions_of_views: dict[str, dict[str, str]] = {}
        self._limited: dict[str, str] = {}
        self._is_own: AbstractSet[str] | None = None
        self._elsewhere = ""
        self._moved: set[str] = set()
        self._left = {uid: failure.left for uid, failure in state.failures.items() if failure.left}
        self._attempts = 0
        self._state = state
        self._written: set[str] = set()
        """The nodes that this run has built."""
        self._moved_in_run = state.moved_in_run
        self._sources = state.sources
        self._source_signatures = {uid: source.columns for uid, source in state.sources.items()}
        self._columns = dict(state.columns)
        """The columns as they are now; nodes that this run builds are left out until they are listed."""
        for uid, build in state.builds.items():
            node = project.graph.nodes.get(uid)
            # A node that is read from another environment has its version there.
            if node is not None and not node.is_view and uid not in state.sources:
                self._tables[uid] = stored_version(uid, build.data_version, project.policy(uid), state, is_read=True)

    def replace_functions(self, functions: Iterable[str], run_id: str) -> None:
        """Note that other code of functions is being created.

        What reads them through a view that this run does not build may get either code, so it is to be built again.
        """
        self._functions.update(dict.fromkeys(functions, f"replaced in {run_id}"))

    def function_created(self, unique_id: str, code: str) -> None:
        """Note which code of a function the warehouse has now."""
        self._created[unique_id] = code

    def attempt(self, nodes: Iterable[str], run_id: str) -> None:
        """Note that dbt is about to build nodes. Until one is recorded, its children in dbt read rows of no known version."""
        self._attempts += 1
        for uid in nodes:
            if self._project.graph.nodes[uid].continues_on_error:
                self._left[uid] = attempt_version(uid, run_id, self._attempts)

    def only(self, nodes: Iterable[str], run_id: str) -> None:
        """Note that dbt reads all but `nodes` from another environment until its next command: `--favor-state`.

        It does so for whatever a command does not build, also what the run selected and reuses, or builds in another command.
        """
        self._is_own, self._elsewhere = frozenset(nodes), deferred_version(run_id)

    def left(self, unique_id: str) -> str:
        """Return the version that the failed build of a node left; empty unless dbt continues with its children."""
        return self._left.get(unique_id, "")

    def consumed(self, unique_id: str) -> dict[str, str]:
        """Return the versions of a node's direct parents as they were captured, or built in this run."""
        node = self._project.graph.nodes[unique_id]
        return self._parent_versions(node, {})

    def moved(self, unique_ids: Iterable[str]) -> None:
        """Let later records consume no known version of sources and nodes that others wrote after they were captured."""
        self._moved.update(unique_ids)

    def unknown(self, tokens: Mapping[str, str]) -> None:
        """Let later records consume these tokens of sources that could not be probed again."""
        for uid, token in tokens.items():
            self._tables[uid] = self._sources[uid].version_of(token) if uid in self._sources else token

    def limited(self, unique_id: str, run_id: str) -> None:
        """Note that a node was built with a part of its rows: what reads them in this run reads no known version."""
        self._limited[unique_id] = f"limited in {run_id}"

    def versions_read(self, test: ProjectTest) -> dict[str, str]:
        """Return the versions of what a test reads, as they were captured or built in this run."""
        known: dict[str, str | None] = {}
        return {read: version for read in test.reads if (version := self._version(read, known)) is not None}

    def stands(self, test: ProjectTest, verdict: Verdict) -> bool:
        """Return whether a verdict is about a test's code and about what dbt reads now."""
        is_same_code = not self._project.code_changes(test.unique_id, verdict)
        has_moved = any(self.has_moved(uid) for uid in test.reads)
        return is_same_code and not has_moved and not changed_reads(test.reads, verdict, self.versions_read(test))

    def verdict(  # noqa: PLR0913 (what a run knows of an answer)
        self,
        test: ProjectTest,
        status: VerdictStatus,
        *,
        at: datetime,
        run_id: str,
        failures: int | None = None,
        fingerprint: Fingerprint | None = None,
        evidence: Evidence = UNSEEN,
        before: Verdict | None = None,
        limited_by: str = "",
    ) -> Verdict:
        """Return the verdict that follows from an answer of dbt in this run. `before` is the verdict until then.

        An answer that dbt found in a part of the rows (`limited_by`) is about no version.
        """
        uid = test.unique_id
        versions = self.versions_read(test)
        # What could not be run is tried again after a while, whatever moved: a warehouse that is down moves everything.
        if status is not VerdictStatus.ERROR:
            versions = self._as_read(versions, before.versions if before is not None else {}, run_id)
        verdict = Verdict(
            status=status,
            at=at,
            run_id=run_id,
            fingerprint=fingerprint or self._project.fingerprints[uid],
            versions=versions,
            failures=failures,
            manifest_code_mark=self._project.manifest_code_mark(uid),
            evidence=evidence,
            limited_by=limited_by,
        )
        if limited_by:
            times = before.attempts if before is not None and before.limited_by else 0
            return replace(verdict, versions={}, attempts=times + 1)
        is_repeated = (
            before is not None
            and before.is_failing
            and verdict.is_failing
            and before.versions == versions
            and before.fingerprint.digest == verdict.fingerprint.digest
        )
        return replace(verdict, attempts=before.attempts + 1) if before is not None and is_repeated else verdict

    def record(  # noqa: PLR0913 (what a run knows of a build)
        self,
        unique_id: str,
        *,
        started_at: datetime,
        ended_at: datetime,
        run_id: str,
        fingerprint: Fingerprint | None = None,
        evidence: Evidence = UNSEEN,
        full_refresh: bool = False,
        is_planned: bool = True,
        attempt_id: str = "",
    ) -> LastBuild:
        """Return the record of a build of this run that succeeded, and let its children consume it.

        `is_planned` is False where it is not known what was built: then not even the next parse is waited for.
        """
        node = self._project.graph.nodes[unique_id]
        fingerprint = fingerprint or self._project.fingerprints[unique_id]
        before = self._builds.get(unique_id)
        consumed = self.consumed(unique_id)
        captured = consumed
        if not node.is_view or asks_parents(
            node, self._project, evidence
        ):  # another view reads nothing when it is built
            consumed = self._as_read(consumed, before.consumed if before is not None else {}, run_id)
        if node.is_view and node.functions:
            self._functions_of_views[unique_id] = function_versions(
                node.functions, {**self._functions, **self._created}
            )
        signatures = {
            **self._source_signatures,
            **{uid: build.column_signature for uid, build in self._builds.items() if uid in node.parents},
        }
        bindings = self._view_bindings(node, signatures)
        is_replaced = replaces_relation(node, fingerprint, before, bindings, full_refresh=full_refresh)
        is_created = full_refresh or before is None or before.view_bindings != bindings
        known = {parent: self._columns[parent] for parent in node.parents if parent in self._columns}
        built_in = self._parents_built_in(node, known) if node.is_view or is_created else {}
        renewed = renewal(node, self._project, before, known, captured)
        # What read the view on other columns than those that it is created on now has read another version.
        unlisted = built_in if before is not None else {}
        renewed_for = definition(before, {**renewed, **unlisted, **other_text(before, fingerprint, evidence)})
        build = LastBuild(
            started_at=started_at,
            ended_at=ended_at,
            fingerprint=fingerprint,
            consumed=consumed,
            data_version=view_version(code_digest(fingerprint, evidence), consumed, renewed_for)
            if node.is_view
            else data_version(
                build_kind(node, evidence, self._project.graph, self._builds),
                code_digest(fingerprint, evidence),
                consumed,
                run_id,
            ),
            run_id=run_id,
            column_signature=column_signature(node, self._project, signatures, renewed_for),
            view_bindings=bindings,
            columns=bound_columns(node, self._project, before, known, is_created=is_created),
            parents_built_in=built_in,
            definition=renewed_for,
            view_leaf_versions=self._as_read(
                self._view_leaf_versions(node), before.view_leaf_versions if before is not None else {}, run_id
            ),
            manifest_code_mark=self._project.manifest_code_mark(unique_id) if is_planned else "",
            evidence=evidence,
            stirred=self._stirred(unique_id, before),
            mended_by=before.mended_by if before and not self._state.is_unknown(unique_id) else attempt_id or run_id,
            replaced_in=run_id if is_replaced or before is None else before.replaced_in,
            attempt_id=attempt_id,
        )
        build = _with_history(build, before)
        self._limited.pop(unique_id, None)
        self._builds[unique_id] = build
        self._left.pop(unique_id, None)
        self._moved.discard(unique_id)
        self._written.add(unique_id)
        self._columns.pop(unique_id, None)
        if not node.is_view:
            self._tables[unique_id] = build.data_version
        return build

    def moved_in_run(self, tokens: Mapping[str, str], alterations: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """Return for each node the parents that moved since it was built, with the versions that they have now.

        `tokens` and `alterations` are what was found of sources and of nodes at the end of the run. What other runs built
        meanwhile is left out: their builds have causes of their own.
        """
        self._is_own = None
        self.unknown(tokens)
        for uid, alteration in alterations.items():
            self._tables[uid] = altered_version(self._builds[uid].data_version, alteration)
        known: dict[str, str | None] = {}
        return {
            uid: {
                parent: version
                for parent, version in self._parent_versions(self._project.graph.nodes[uid], known).items()
                if captured_version(build.consumed.get(parent, "")) != version
            }
            for uid, build in self._builds.items()
            if uid in self._project.graph.nodes
        }

    def _stirred(self, unique_id: str, before: LastBuild | None) -> dict[str, int]:
        """Return the parents that moved only during the run of the build before, each with how many times in a row."""
        if before is None:
            return {}
        moved, captured = self._moved_in_run.get(unique_id, {}), self.consumed(unique_id)
        return {
            parent: before.stirred.get(parent, 0) + 1
            for parent, version in moved.items()
            if captured.get(parent) == version
        }

    def _as_read(self, versions: Mapping[str, str], before: Mapping[str, str], run_id: str) -> dict[str, str]:
        """Return captured versions as a build or test read them, with a mark on each that moved meanwhile, also below a view."""
        read = dict(versions)
        for uid in read if self._moved else ():
            if self.has_moved(uid):
                last = before.get(uid, "")
                times = times_moved(last) if captured_version(last) == read[uid] else 0
                read[uid] = moved_version(read[uid], run_id, times + 1)
        return read

    def has_moved(self, unique_id: str) -> bool:
        """Return whether a source or node moved after its version was captured, or a view reads one that did."""
        graph = self._project.graph
        node = graph.nodes.get(unique_id)
        if unique_id in self._moved or node is None or not node.is_view:
            return unique_id in self._moved  # what a table consumed is part of its own version
        return not self._moved.isdisjoint(read_with_views(node, graph))

    def _parent_versions(self, node: Node, known: dict[str, str | None]) -> dict[str, str]:
        return {parent: version for parent in node.parents if (version := self._version(parent, known)) is not None}

    def _version(self, unique_id: str, known: dict[str, str | None]) -> str | None:
        if unique_id in self._limited:
            return self._limited[unique_id]
        if unique_id in self._left:
            return self._left[unique_id]
        node = self._project.graph.nodes.get(unique_id)
        if node is not None and self._is_own is not None and unique_id not in self._is_own:
            return self._elsewhere
        if node is None or not node.is_view or unique_id in self._sources:
            return self._tables.get(unique_id)
        if unique_id not in known:
            built = self._builds.get(unique_id)
            code, renewed_for = (built.code, built.definition) if built else (None, "")
            consumed = {**self._parent_versions(node, known), **self._functions_of(node)}
            version = view_version(code, consumed, renewed_for)
            if unique_id not in self._written:
                policy = self._project.policy(unique_id)
                version = stored_version(unique_id, version, policy, self._state, is_read=True)
            known[unique_id] = version
        return known[unique_id]

    def _functions_of(self, view: Node) -> Mapping[str, str]:
        if not view.functions:
            return {}
        return self._functions_of_views.get(view.unique_id) or function_versions(view.functions, self._functions)

    def _view_bindings(self, node: Node, signatures: Mapping[str, str]) -> Mapping[str, str]:
        replaced_in = {p: self._builds[p].replaced_in for p in node.parents if p in self._builds}
        return view_bindings(node, self._project, signatures, replaced_in)

    def _parents_built_in(self, node: Node, known: Mapping[str, str]) -> Mapping[str, str]:
        """Return the other runs that had built the parents of a stored definition, of which the columns are not known."""
        if not has_definition(node, self._project):
            return {}
        others = (p for p in node.parents if p in self._builds and p not in known and self._is_of_another_run(p))
        return {p: self._builds[p].run_id for p in others}

    def _is_of_another_run(self, parent: str) -> bool:
        """Return whether what this run reads of a node is certainly what the node's last build left, in another run."""
        # A node that is among the sources too is read from another environment.
        is_read = parent not in self._written and parent not in self._sources
        return is_read and not (self.has_moved(parent) or self._state.is_unknown(parent))

    def _view_leaf_versions(self, node: Node) -> Mapping[str, str]:
        if self._project.policy(node.unique_id).lag_tolerance is None:
            return {}
        return {leaf: self._tables[leaf] for leaf in view_leaves(node, self._project.graph) if leaf in self._tables}


def _with_history(build: LastBuild, before: LastBuild | None) -> LastBuild:
    history: VersionHistory = before.history if before else ()
    if not history or history[-1][0] != build.data_version:
        history = (*history, (build.data_version, build.ended_at))[-_REMEMBERED_VERSIONS:]
    return replace(build, history=history)
