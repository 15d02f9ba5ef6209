"""Small projects for tests, spelled as arrows: `graph("src.orders >> view:stg_orders >> orders")`.

A name with a dot is a source. `view:`, `table:`, `incremental:`, `snapshot:`, `seed:`, `python:`, `random:` and `matview:`
say once what a node is (a table unless said). Commas stand for several; lines and semicolons separate chains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Protocol

from dagster_sao.core.code.evidence import Evidence
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.decision.decide import Decision, Reason, Request
from dagster_sao.core.decision.origins import origins
from dagster_sao.core.decision.plan import Mode, Plan
from dagster_sao.core.decision.plan_tests import TestScope
from dagster_sao.core.decision.planner import make_plan
from dagster_sao.core.decision.run_ledger import Ledger
from dagster_sao.core.decision.view_rules import has_definition, is_bound_to
from dagster_sao.core.manifest.build_settings import BuildSettings
from dagster_sao.core.manifest.expiry import with_expiry
from dagster_sao.core.manifest.gates import find_gates
from dagster_sao.core.manifest.graph import Node, NodeKind, ProjectGraph, ProjectTest, Source
from dagster_sao.core.manifest.policy import Policy, SourcePolicy, TestPolicy
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import (
    FailedAttempt,
    FailureKind,
    LastBuild,
    SourceState,
    StateSnapshot,
    Verdict,
    VerdictStatus,
    Writer,
    interruption,
)
from dagster_sao.warehouse.adapters import traits_of

START = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)

DETERMINISTIC = Evidence(is_deterministic=True)

_KINDS = {
    "view": (NodeKind.VIEW, "view"),
    "table": (NodeKind.DETERMINISTIC, "table"),
    "incremental": (NodeKind.HISTORY_DEPENDENT, "incremental"),
    "snapshot": (NodeKind.HISTORY_DEPENDENT, "snapshot"),
    "matview": (NodeKind.HISTORY_DEPENDENT, "materialized_view"),
    "python": (NodeKind.HISTORY_DEPENDENT, "table"),
    "random": (NodeKind.HISTORY_DEPENDENT, "table"),
    "seed": (NodeKind.SEED, "seed"),
}


def graph(arrows: str, adapter: str = "duckdb") -> ProjectGraph:
    """Return the graph that `arrows` spell, parents first."""
    kinds: dict[str, str] = {}
    parents: dict[str, dict[str, None]] = {}
    for chain in re.split(r"[;\n]", arrows):
        above: list[str] = []
        for step in filter(None, (part.strip() for part in chain.split(">>"))):
            names = []
            for word in (w.strip() for w in step.split(",")):
                kind, _, name = word.rpartition(":")
                names.append(name)
                parents.setdefault(name, {}).update(dict.fromkeys(above))
                if kind:
                    kinds[name] = kind
            above = names
    nodes = {n: _node(n, kinds.get(n, "table"), tuple(p)) for n, p in parents.items() if "." not in n}
    sources = {n: _source(n) for n in parents if "." in n}
    return project_graph(adapter, {n: nodes[n] for n in _parents_first(nodes)}, sources)


def project_graph(
    adapter: str, nodes: Mapping[str, Node], sources: Mapping[str, Source], tests: Iterable[ProjectTest] = ()
) -> ProjectGraph:
    """Return a graph of nodes in topological order, with tests and what they gate."""
    tests = list(tests)
    gates = find_gates(
        nodes,
        {test.unique_id: test.about for test in tests},
        {name: node.parents for name, node in nodes.items()},
        itself={test.unique_id for test in tests if test.is_unit_test},
    )
    return ProjectGraph("shop", adapter, nodes, sources, {test.unique_id: test for test in tests}, gates)


def with_test(graph: ProjectGraph, test: ProjectTest) -> ProjectGraph:
    """Return the graph with one more test."""
    return project_graph(graph.adapter_type, graph.nodes, graph.sources, [*graph.tests.values(), test])


def _node(name: str, kind: str, parents: tuple[str, ...]) -> Node:
    what, materialized = _KINDS[kind]
    return Node(
        unique_id=name,
        name=name,
        resource_type=kind if kind in {"seed", "snapshot"} else "model",
        kind=what,
        materialized=materialized,
        language="python" if kind == "python" else "sql",
        file=f"models/{name}.sql",
        fqn=("shop", name),
        relation_name=f'"db"."main"."{name}"',
        parents=parents,
    )


def _source(name: str) -> Source:
    source_name, table = name.split(".")
    return Source(unique_id=name, source_name=source_name, name=table, file="models/sources.yml")


def _parents_first(nodes: Mapping[str, Node]) -> Iterable[str]:
    done: dict[str, None] = {}
    while len(done) < len(nodes):
        done.update(
            {n: None for n, node in nodes.items() if all(p in done or p not in nodes for p in node.parents)},
        )
    return done


def code(text: str = "1", **parts: str) -> Fingerprint:
    """Return the fingerprint of a node whose SQL is `text`."""
    return Fingerprint({"sql": text, **parts})


class Warehouse(Protocol):
    """What the relations hold, and so what tests answer."""

    def built(self, world: World, node: str) -> None:
        """Replace the content of a node."""

    def answer(self, world: World, test: ProjectTest) -> VerdictStatus:
        """Return what a test finds."""


@dataclass
class World:
    """A project with a past and a clock, which builds what a plan says through the ledger, as a run does."""

    graph: ProjectGraph
    now: datetime = START
    policies: dict[str, Policy] = field(default_factory=dict)
    source_policies: dict[str, SourcePolicy] = field(default_factory=dict)
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    stars: set[str] = field(default_factory=set)
    binds_views: bool = True
    columns: dict[str, str] = field(default_factory=dict)
    """What the columns of relations are that have others than at first."""
    surprises: dict[str, str] = field(default_factory=dict)
    """What the columns of nodes follow from beside their code and what they read."""
    unlisted: set[str] = field(default_factory=set)
    """What the warehouse does not list the columns of."""
    seen: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The columns that the last look saw, each with the run that had built them."""
    tokens: dict[str, SourceState] = field(default_factory=dict)
    builds: dict[str, LastBuild] = field(default_factory=dict)
    failures: dict[str, FailedAttempt] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    restored: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    altered: dict[str, str] = field(default_factory=dict)
    hooks: dict[str, str] = field(default_factory=dict)
    """The source that each run moves at its end which builds a node."""
    moved_in_run: dict[str, dict[str, str]] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    answers: dict[str, VerdictStatus] = field(default_factory=dict)
    """What the tests answer that do not pass."""
    limited_by: str = ""
    """The option that limits what tests read."""
    intervals: dict[str, timedelta] = field(default_factory=dict)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    """What runs see of builds and tests: by default that the SQL is a function of what it reads."""
    values: dict[str, str] = field(default_factory=dict)
    """What dbt's context holds now, by name such as `var: x`."""
    warehouse: Warehouse | None = None
    writers: dict[str, Writer] = field(default_factory=dict)
    attempts: int = 0
    runs: int = 0

    def __post_init__(self) -> None:
        for name in (*self.graph.nodes, *self.graph.tests):
            self.fingerprints.setdefault(name, code(f"select {name}"))
        for name in self.graph.sources:
            if name not in self.tokens:
                self.load(name, "first")

    @property
    def project(self) -> Project:
        policies = with_expiry(self.policies, self.graph, self.source_policies)
        stars, intervals = frozenset(self.stars), dict(self.intervals)
        return Project(
            self.graph,
            self._all_fingerprints(),
            policies,
            stars,
            traits=replace(traits_of(self.graph.adapter_type).relations, binds_views=self.binds_views),
            test_policies={uid: TestPolicy(interval) for uid, interval in intervals.items()},
            value=lambda _, name: self.values.get(name, ""),
        )

    @property
    def state(self) -> StateSnapshot:
        columns = {name: columns for name, (run, columns) in self.seen.items() if run == self._run_of(name)}
        return StateSnapshot(
            builds=dict(self.builds),
            sources={
                name: replace(state, columns=self.seen.get(name, ("", ""))[1]) for name, state in self.tokens.items()
            },
            columns=columns,
            listed=frozenset(self.seen),
            failures=dict(self.failures),
            missing_relations=frozenset(self.missing),
            restored_relations=frozenset(self.restored),
            moved_relations=frozenset(self.moved),
            altered_relations=dict(self.altered),
            moved_in_run=dict(self.moved_in_run),
            blocked=frozenset(self.blocked),
            verdicts=dict(self.verdicts),
            writers=dict(self.writers),
        )

    def _run_of(self, name: str) -> str:
        return self.builds[name].run_id if name in self.builds else ""

    def look(self) -> None:
        """List the columns, and learn what the views are bound to that were created in one run with what they read."""
        there = {*self.graph.sources, *self.builds} - self.unlisted
        self.seen = {name: (self._run_of(name), self.columns.get(name, "at first")) for name in there}
        columns = self.state.columns
        for name, build in self.builds.items():
            if has_definition(self.graph.nodes[name], self.project):
                parents = self.graph.nodes[name].parents
                learned = {p: columns[p] for p in parents if p in columns and is_bound_to(build, p, self.state)}
                self.builds[name] = replace(build, columns={**learned, **build.columns})

    def _all_fingerprints(self) -> dict[str, Fingerprint]:
        found = dict(self.fingerprints)
        for uid, test in self.graph.tests.items():
            if test.is_unit_test:
                found[uid] = Fingerprint({**found[uid].parts, "model": found[test.model].digest})
        return found

    def add_test(self, name: str, *about: str, unit: bool = False, **options: object) -> None:
        """Add a test of nodes and sources, or the unit test of a model."""
        what = {"model": about[0]} if unit else {"reads": about}
        self.graph = with_test(self.graph, ProjectTest(name, name, ("shop", name), "models/s.yml", **what, **options))
        self.fingerprints[name] = code(f"select {name}")

    def load(self, source: str, token: str | None = None) -> None:
        """Let a source say `token`, by default one it never said."""
        before = self.tokens.get(source)
        seen = before.history if before else ()
        history = (*seen, (token or f"token {len(seen) + 1}", self.now))
        self.tokens[source] = SourceState(history[-1][0], self.now, history)

    def edit(self, node: str, **parts: str) -> None:
        """Change the code of `node`: its SQL, or the parts given."""
        self.fingerprints[node] = code(self.fingerprints[node].parts["sql"] + ("" if parts else " -- again"), **parts)

    def continue_on_error(self, node: str) -> None:
        """Let dbt go on with what reads `node` when it failed."""
        nodes = {**self.graph.nodes, node: replace(self.graph.nodes[node], continues_on_error=True)}
        self.graph = replace(self.graph, nodes=nodes)

    def ask(self, node: str, **settings: object) -> None:
        """Change the policy of `node`."""
        self.policies[node] = replace(self.policies.get(node, Policy()), **settings)

    def plan(
        self,
        *,
        mode: Mode = Mode.SENSOR,
        selection: Iterable[str] | None = None,
        requests: Mapping[str, Request] | None = None,
        tests: TestScope | None = None,
        look: bool = True,
    ) -> Plan:
        if look:
            self.look()
        return make_plan(
            self.project,
            self.state,
            now=self.now,
            mode=mode,
            selection=selection,
            requests=requests or {},
            tests=tests,
        )

    def decision(self, node: str, **options: object) -> Decision:
        return self.plan(**options).decisions[node]

    def apply(
        self, plan: Plan, *, taking: timedelta = timedelta(0), failing: Iterable[str] = ()
    ) -> dict[str, LastBuild]:
        """Carry out `plan` as one run of dbt: what fails is recorded, what is below it is left alone."""
        self.runs += 1
        ledger, before = Ledger(self.project, self.state), dict(self.verdicts)
        started, self.now = self.now, self.now + taking
        failed = set(failing) & set(plan.builds)
        ledger.attempt(plan.builds, f"run {self.runs}")
        continuing = {uid for uid in failed if self.graph.nodes[uid].continues_on_error}
        left_alone = self.graph.descendants(failed - continuing)
        recorded = {}
        for uid in plan.in_order(plan.builds, plan.test_runs):
            if uid in self.graph.tests:
                test = self.graph.tests[uid]
                if (left_alone | failed - continuing).isdisjoint(test.about if not test.is_unit_test else ()):
                    self.verdicts[uid] = self._answer(ledger, test, before.get(uid))
                    if self.verdicts[uid].is_failing:
                        left_alone |= set(self.graph.gates.gated_by(uid))
            elif uid in failed - left_alone:
                self._attempt(uid, plan.decisions[uid])
                self._fail(uid, ledger)
            elif uid not in left_alone:
                self._attempt(uid, plan.decisions[uid])
                recorded[uid] = self._build(uid, ledger, started, full_refresh=plan.decisions[uid].full_refresh)
        hooked = {self.hooks[uid] for uid in recorded if uid in self.hooks}
        for source in hooked:
            self.load(source)
        moved = ledger.moved_in_run({source: self.tokens[source].token for source in hooked}, {})
        self.moved_in_run.update({uid: moved[uid] for uid in recorded})
        return recorded

    def _build(self, node: str, ledger: Ledger, started: datetime, *, full_refresh: bool) -> LastBuild:
        run_id = f"run {self.runs}"
        build = ledger.record(
            node,
            started_at=started,
            ended_at=self.now,
            run_id=run_id,
            evidence=self.evidence.get(node, DETERMINISTIC),
            full_refresh=full_refresh,
            attempt_id=self.writers[node].attempt_id,
        )
        self.builds[node] = build
        if self.warehouse is not None:
            self.warehouse.built(self, node)
        self.failures.pop(node, None)
        self.missing.discard(node)
        self.restored.discard(node)
        self.moved.discard(node)
        self.altered.pop(node, None)
        return build

    def _answer(self, ledger: Ledger, test: ProjectTest, before: Verdict | None) -> Verdict:
        status = self.answers.get(test.unique_id, VerdictStatus.PASS)
        if self.warehouse is not None:
            status = self.warehouse.answer(self, test)
        if status is VerdictStatus.FAIL and not test.is_error:
            status = VerdictStatus.WARN
        evidence = self.evidence.get(test.unique_id, DETERMINISTIC)
        run_id, limit = f"run {self.runs}", "" if test.is_unit_test else self.limited_by
        return ledger.verdict(
            test, status, at=self.now, run_id=run_id, evidence=evidence, before=before, limited_by=limit
        )

    def _attempt(self, node: str, decision: Decision) -> None:
        last, is_again = self.writers.get(node), decision.reason is Reason.OVERWRITTEN
        turns = last.turns + 1 if last is not None and is_again else 0
        self._write(node, node, turns=turns, is_on_foreign_rows=self.state.has_foreign_rows(node))

    def _write(self, relation: str, node: str, **options: object) -> None:
        self.attempts += 1
        self.writers[relation] = Writer(f"attempt {self.attempts}", node, f"run {self.runs}", self.now, **options)

    def overwrite(self, node: str, by: str, *, elsewhere: str = "", **options: object) -> None:
        """Let something else write the relation of `node`."""
        self._write(node, by, elsewhere=elsewhere, is_own=False, **options)

    def interrupt(self, node: str) -> None:
        """Let a run end while it builds `node`."""
        self._write(node, node)
        self.failures[node] = FailedAttempt(self.now, 1, kind=FailureKind.INTERRUPTED)

    def limit(self, node: str) -> None:
        """Let a run build `node` with a part of its rows."""
        last = self.failures.get(node)
        attempts = last.attempts + 1 if last is not None and last.kind is FailureKind.LIMITED else 1
        self.failures[node] = FailedAttempt(self.now, attempts, kind=FailureKind.LIMITED, limited_by="--empty")

    def refuse_full_refresh(self, node: str) -> None:
        """Set `full_refresh: false` on `node`."""
        changed = replace(self.graph.nodes[node], settings=BuildSettings(refuses_full_refresh=True))
        self.graph = replace(self.graph, nodes={**self.graph.nodes, node: changed})

    def kill(self, node: str) -> None:
        """The same, by a run that noted what the node follows from."""
        before, origin = self.failures.get(node), origins(self.project, self.state)[node]
        self.failures[node] = interruption(before, self.now, origin)

    def _fail(self, node: str, ledger: Ledger) -> None:
        fingerprint, consumed = self.fingerprints[node].digest, ledger.consumed(node)
        last = self.failures.get(node)
        again = last is not None and last.fingerprint == fingerprint and last.consumed == consumed
        attempts = last.attempts + 1 if last is not None and again else 1
        self.failures[node] = FailedAttempt(self.now, attempts, fingerprint, consumed, left=ledger.left(node))

    def build(self, **options: object) -> list[str]:
        """Plan and carry it out, as a run does, with the views that it drops and skips; return what was built."""
        plan = self.plan(**options)
        built = self.apply(plan)
        skipped = {uid for uid in plan.builds if uid not in built and self.graph.nodes[uid].is_view}
        if skipped:
            decisions = self.plan(selection=skipped, look=False).decisions
            restored = {uid for uid in skipped if decisions[uid].builds and decisions[uid].is_restored}
            built |= self.apply(self.plan(selection=restored, look=False)) if restored else {}
        return list(built)
