"""Makes plans: decides about each node of a selection, parents first, and works out the versions that follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property

from dagster_sao.core.code.evidence import UNSEEN, untracked_inputs
from dagster_sao.core.code.versions import (
    data_version,
    function_versions,
    view_version,
)
from dagster_sao.core.decision.decide import Action, Decision, Reason, Request, Situation, decide
from dagster_sao.core.decision.decide_functions import FunctionDecision, decide_functions
from dagster_sao.core.decision.origins import origins
from dagster_sao.core.decision.plan import Mode, Plan
from dagster_sao.core.decision.plan_tests import TestDecisions, TestPlanner, TestScope, failed_among
from dagster_sao.core.decision.view_rules import (
    Relations,
    asked_parents,
    build_kind,
    changed_columns,
    column_signature,
    definition,
    first_change_at,
    is_dropped,
    renewal,
    replaces_relation,
    unlisted_parents,
    view_bindings,
    views_to_renew,
)
from dagster_sao.core.durations import grace_of_job, is_waiting
from dagster_sao.core.manifest.graph import Node, NodeKind
from dagster_sao.core.manifest.policy import Policy
from dagster_sao.core.project import Project
from dagster_sao.core.state.news import changed_parents
from dagster_sao.core.state.relation_versions import stored_version
from dagster_sao.core.state.state import LastBuild, StateSnapshot

# The build id of builds that have not happened: no run has it.
_PLANNED = "planned"


def make_plan(  # noqa: PLR0913 (each is an input of the decision)
    project: Project,
    state: StateSnapshot,
    *,
    now: datetime,
    selection: Iterable[str] | None = None,
    requests: Mapping[str, Request] | None = None,
    mode: Mode = Mode.SENSOR,
    tests: TestScope | None = None,
) -> Plan:
    """Return the decisions for `selection` (all nodes by default) and its tests, given the state and the time.

    Nodes outside the selection keep the version they have. `requests` names the nodes that the user asked for.
    """
    selected = set(project.graph.nodes) if selection is None else set(selection)
    renewed: frozenset[str] = frozenset()
    while True:
        plan = _Planner(project, state, now, selected, requests or {}, mode, tests or TestScope(), renewed).plan()
        found = views_to_renew(project, state, selected, plan.builds)
        if found <= renewed:
            return plan
        renewed |= found


def make_run_plan(  # noqa: PLR0913 (as of make_plan)
    project: Project,
    state: StateSnapshot,
    *,
    now: datetime,
    selection: Iterable[str],
    requests: Mapping[str, Request] | None = None,
    mode: Mode = Mode.SENSOR,
    tests: TestScope | None = None,
) -> Plan:
    """Return the decisions for `selection`, and for the views outside of it that building it drops, to any depth.

    These are built with it, because no other run may do so soon. There are none where replacing a table does not affect
    the views on it.
    """
    graph, selected = project.graph, set(selection)
    below: set[str] = set()
    if project.traits.drops_dependent_views:
        outside = graph.descendants(selected) - selected
        below = {uid for uid in outside if uid in state.builds and is_dropped(uid, graph)}
    scope = (tests or TestScope()).of(selected, graph)
    if requests:
        scope = replace(scope, not_held=frozenset(below))
    plan = make_plan(project, state, now=now, selection=selected | below, requests=requests, mode=mode, tests=scope)
    stranded: set[str] = set()
    for uid in (uid for uid in plan.builds if uid in below):
        if not (stranded | selected).isdisjoint(plan.dropped.get(uid, ())):
            stranded.add(uid)
    if below == stranded:
        return plan
    return make_plan(project, state, now=now, selection=selected | stranded, requests=requests, mode=mode, tests=scope)


class _Planner:
    def __init__(  # noqa: PLR0913, PLR0917
        self,
        project: Project,
        state: StateSnapshot,
        now: datetime,
        selected: set[str],
        requests: Mapping[str, Request],
        mode: Mode,
        tests: TestScope,
        renewed: frozenset[str],
    ) -> None:
        self._project = project
        self._graph = project.graph
        self._state = state
        self._now = now
        self._selected = selected
        self._requests = requests
        self._mode = mode
        self._renewed = renewed
        self._decisions: dict[str, Decision] = {}
        self._versions: dict[str, str] = {uid: source.version for uid, source in state.sources.items()}
        self._signatures: dict[str, str] = {uid: source.columns for uid, source in state.sources.items()}
        self._replaced_in: dict[str, str] = {}
        """By node: the run that will have replaced its relation after this plan."""
        self._code_changes: dict[str, tuple[str, ...]] = {}
        self._untracked: dict[str, tuple[str, ...]] = {}
        """By node: the inputs, through views too, whose changes cannot be detected."""
        self._failed: set[str] = set(state.blocked)
        """The nodes and sources that nothing is built from: they failed, or are held or skipped for a failure."""
        self._relations = Relations(project, state, self._replaced_in)
        self._tests = TestPlanner(
            project,
            state,
            now,
            tests.of(selected, self._graph),
            requests,
            self._decisions,
            self._versions,
            self._failed,
            self._untracked,
            in_job=mode is not Mode.SENSOR,
        )

    def plan(self) -> Plan:
        for unique_id, node in self._graph.nodes.items():
            self._untracked[unique_id] = self._untracked_inputs(node)
            if unique_id in self._selected:
                self._decisions[unique_id] = decide(self._situation(node))
            if self._is_failed(node):
                self._failed.add(unique_id)
            self._relations.decided(node, is_built=self._is_built(unique_id))
            self._replaced_in[unique_id] = self._replaced_after(node)
            self._signatures[unique_id] = self._signature_after(node)
            version = self._version_after(node)
            # A node that is read from another environment has its version there.
            if version is not None and unique_id not in self._state.sources:
                self._versions[unique_id] = version
        tests = self._tests.plan()
        return Plan(self._decisions, self._versions, self._graph, tests, self._decide_functions(tests), self._dropped())

    def _dropped(self) -> Mapping[str, AbstractSet[str]]:
        """Return what this plan drops and builds, each with the relations whose replacement drops it."""
        nodes = (self._graph.nodes[uid] for uid, decision in self._decisions.items() if decision.builds)
        found = {node.unique_id: self._relations.dropped_with(node) for node in nodes}
        return {uid: {parent for parent in parents if self._is_built(parent)} for uid, parents in found.items()}

    def _decide_functions(self, tests: TestDecisions) -> Mapping[str, FunctionDecision]:
        if not self._graph.functions:
            return {}
        builds = [uid for uid, decision in self._decisions.items() if decision.builds]
        # There may be no runs but the sensor's, so these create all functions, whatever they build.
        everything = self._mode is Mode.SENSOR or self._selected >= self._graph.nodes.keys()
        return decide_functions(
            self._project,
            self._state.functions,
            self._now,
            [*builds, *tests.runs],
            self._failed,
            everything=everything,
        )

    def _is_failed(self, node: Node) -> bool:
        """Return whether nothing is built from a node, because no record describes what its relation holds."""
        decision = self._decisions.get(node.unique_id)
        failure = self._state.failures.get(node.unique_id)
        continues = node.continues_on_error and failure is not None and bool(failure.left)
        if decision is not None:
            if continues and decision.reason is Reason.FAILED_UNCHANGED:
                return False
            if decision.is_restored and decision.reason is not Reason.REQUESTED:
                return not self._failed.isdisjoint(node.parents)  # it shows what a failed attempt left
            return decision.action in {Action.HOLD, Action.SKIP}
        if node.unique_id in self._state.sources:
            return False  # read from another environment
        if failure is not None:
            return not continues
        return node.is_view and not self._failed.isdisjoint(node.parents)

    def _situation(self, node: Node) -> Situation:
        uid = node.unique_id
        policy = self._project.policy(uid)
        writer = self._state.other_writer(uid)
        last_build = self._state.builds.get(uid)
        failed_tests = self._tests.holding(uid)
        if last_build is not None:
            changed = any(changed_parents(node.parents, last_build.consumed, self._versions))
            self._code_changes[uid] = self._project.code_changes(uid, last_build, parents_changed=changed)
        columns = self._known_columns(node)
        other_columns = changed_columns(node, self._project, last_build, columns)
        unknown_columns = unlisted_parents(node, self._state) if uid in self._renewed else ()
        return Situation(
            now=self._now,
            policy=policy,
            fingerprint=self._project.fingerprints[uid],
            last_build=last_build,
            code_changes=self._code_changes.get(uid, ()),
            is_view=node.is_view,
            is_incremental=node.materialized == "incremental",
            materialized=node.materialized,
            traits=self._project.traits,
            settings=node.settings,
            relation_name=node.relation_name or node.name,
            relation_missing=uid in self._state.missing_relations,
            relation_restored=uid in self._state.restored_relations,
            relation_moved=uid in self._state.moved_relations,
            relation_altered=uid in self._state.altered_relations,
            is_deterministic=self._build_kind(node) in {NodeKind.DETERMINISTIC, NodeKind.SEED},
            # Its own failed attempt is in `failure`.
            overwritten_by=writer if writer is not None and not (writer.is_own or writer.is_open) else None,
            has_foreign_rows=self._state.has_foreign_rows(uid),
            has_limited_rows=bool(self._state.rows_limited_by(uid)),
            request=self._requests.get(uid),
            failure=self._state.failures.get(uid),
            origin=self._origin(uid),
            failed_tests=failed_tests,
            tests_retry_at=self._retry_at(failed_tests) if failed_tests else None,
            failed_parents=failed_among(node.parents, self._failed, self._decisions, self._graph),
            is_lost=self._relations.is_lost_view(node),
            invalidated_by=self._invalidated_by(node, last_build) if last_build else (),
            changed_columns=tuple(p for p in other_columns if last_build and p in last_build.columns),
            unknown_columns=(
                *(p for p in other_columns if last_build and p not in last_build.columns),
                *unknown_columns,
            ),
            asked_parents=asked_parents(node, self._project, last_build, columns),
            asks_untracked=last_build is not None and last_build.evidence.asks_others,
            parent_versions=self._versions,
            moved_in_run=self._state.moved_in_run.get(uid, {}),
            parents=node.parents,
            untracked=self._untracked[uid],
            untracked_from=self._untracked_from(policy, last_build) if last_build else None,
            first_change_at=self._first_change_at(node, last_build) if policy.lag_tolerance and last_build else None,
            grace=self._grace(policy.build_after),
            expiry_grace=self._grace(policy.rebuild_every),
            labels=self._project.labels,
        )

    def _origin(self, uid: str) -> str:
        """Return what an interrupted node follows from: a sensor asks for it again after a wait, a job builds it now."""
        failure = self._state.failures.get(uid)
        if self._mode is Mode.JOB or failure is None or not failure.origin:
            return ""
        return self._origins[uid]

    @cached_property
    def _origins(self) -> Mapping[str, str]:
        return origins(self._project, self._state)

    def _untracked_inputs(self, node: Node) -> tuple[str, ...]:
        """Return the inputs of a node, through views too, whose changes cannot be detected."""
        last_build = self._state.builds.get(node.unique_id)
        if last_build is None:
            return ()
        own = untracked_inputs(self._project.fingerprints[node.unique_id], last_build.evidence)
        through_views = [label for parent in node.parents if self._is_view(parent) for label in self._untracked[parent]]
        return tuple(dict.fromkeys((*own, *through_views)))

    def _untracked_from(self, policy: Policy, last_build: LastBuild) -> datetime:
        """Return when such inputs count as updated: a job counts them at every run, as it does an untracked source."""
        is_late = not is_waiting(self._now, last_build.started_at, policy.untracked_interval)
        is_counted = self._mode is Mode.JOB or is_late
        return self._now if is_counted else last_build.started_at + policy.untracked_interval

    def _retry_at(self, tests: Iterable[str]) -> datetime:
        return max(self._state.verdicts[test].retry_at for test in tests)

    def _grace(self, interval: timedelta | None) -> timedelta:
        if self._mode is Mode.SENSOR or interval is None:
            return timedelta(0)
        return grace_of_job(interval)

    def _is_built(self, unique_id: str) -> bool:
        decision = self._decisions.get(unique_id)
        return decision is not None and decision.action is Action.BUILD

    def _version_after(self, node: Node) -> str | None:
        uid = node.unique_id
        last_build = self._state.builds.get(uid)
        failure = self._state.failures.get(uid)
        if failure is not None and failure.left and not self._is_built(uid):
            return failure.left
        if node.is_view:
            # New data passes through a view without building it; its old definition stays until it is built.
            stored = last_build.code if last_build else None
            code = self._code_after(uid) if self._is_built(uid) else stored
            consumed = {**self._consumed(node), **self._functions_of(node)}
            version = view_version(code, consumed, self._definition_after(node))
            return version if self._is_built(uid) else self._stored(uid, version)
        if self._is_built(uid):
            return data_version(self._build_kind(node), self._code_after(uid), self._consumed(node), _PLANNED)
        return self._stored(uid, last_build.data_version) if last_build else None

    def _stored(self, uid: str, version: str) -> str:
        return stored_version(uid, version, self._project.policy(uid), self._state)

    def _build_kind(self, node: Node) -> NodeKind:
        """Return what a build does to a node's rows, as far as its last build shows."""
        last_build = self._state.builds.get(node.unique_id)
        evidence = last_build.evidence if last_build is not None else UNSEEN
        return build_kind(node, evidence, self._graph, self._state.builds)

    def _code_after(self, uid: str) -> str:
        """Return the digest of the code of a node that this plan builds: the last build's, if the code is the same."""
        last_build = self._state.builds.get(uid)
        if last_build is not None and not self._code_changes.get(uid):
            return last_build.code
        return self._project.fingerprints[uid].digest

    def _consumed(self, node: Node) -> Mapping[str, str]:
        return {parent: self._versions[parent] for parent in node.parents if parent in self._versions}

    def _functions_of(self, view: Node) -> Mapping[str, str]:
        """Return the code of the functions that a view calls, after this plan: building it creates them."""
        if not view.functions:
            return {}
        if self._is_built(view.unique_id):
            code = {uid: self._project.fingerprints[uid].digest for uid in view.functions}
        else:
            code = {uid: state.code for uid, state in self._state.functions.items()}
        return function_versions(view.functions, code)

    def _signature_after(self, node: Node) -> str:
        if not self._is_built(node.unique_id):
            last_build = self._state.builds.get(node.unique_id)
            return last_build.column_signature if last_build is not None else ""  # as a build on it records it
        return column_signature(node, self._project, self._signatures, self._definition_after(node))

    def _known_columns(self, node: Node) -> Mapping[str, str]:
        """Return the columns of a node's parents. Columns of parents that this plan builds are not known yet."""
        return {p: self._state.columns[p] for p in node.parents if p in self._state.columns and not self._is_built(p)}

    def _definition_after(self, node: Node) -> str:
        last_build = self._state.builds.get(node.unique_id)
        if not self._is_built(node.unique_id):
            return definition(last_build, {})
        renewed = renewal(node, self._project, last_build, self._known_columns(node), self._versions)
        return definition(last_build, renewed)

    def _invalidated_by(self, node: Node, last_build: LastBuild) -> tuple[str, ...]:
        needed = self._view_bindings(node)
        return (
            *(p for p, marker in needed.items() if last_build.view_bindings.get(p) != marker),
            *(uid for uid in (node.functions if node.is_view else ()) if not self._is_current(uid)),
        )

    def _is_current(self, function: str) -> bool:
        return self._project.is_current_function(function, self._state.functions.get(function))

    def _view_bindings(self, node: Node) -> Mapping[str, str]:
        return view_bindings(node, self._project, self._signatures, self._replaced_in)

    def _replaced_after(self, node: Node) -> str:
        last_build, decision = self._state.builds.get(node.unique_id), self._decisions.get(node.unique_id)
        if decision is not None and decision.builds:
            code, bindings = self._project.fingerprints[node.unique_id], self._view_bindings(node)
            if replaces_relation(node, code, last_build, bindings, full_refresh=decision.full_refresh):
                return _PLANNED
        return last_build.replaced_in if last_build else ""

    def _first_change_at(self, node: Node, last_build: LastBuild) -> datetime | None:
        graph, state, versions = self._graph, self._state, self._versions
        return first_change_at(
            node, last_build, graph, state, versions=versions, is_built=self._is_built, now=self._now
        )

    def _is_view(self, unique_id: str) -> bool:
        node = self._graph.nodes.get(unique_id)
        return node is not None and node.is_view
