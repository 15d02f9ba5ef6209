"""Small projects for tests, spelled as arrows: `graph("src.orders >> view:stg_orders >> orders")`.

A name with a dot is a source. `view:`, `table:`, `incremental:`, `snapshot:`, `seed:`, `python:`, `random:` and `matview:`
say once what a node is (a table unless said). Commas stand for several; lines and semicolons separate chains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from dagster_sao.core.decide import Decision, Request
from dagster_sao.core.expiry import with_expiry
from dagster_sao.core.fingerprint import Fingerprint
from dagster_sao.core.graph import Node, NodeKind, ProjectGraph, Source
from dagster_sao.core.ledger import Ledger
from dagster_sao.core.plan import Mode, Plan, make_plan
from dagster_sao.core.policy import Policy, SourcePolicy
from dagster_sao.core.project import Project
from dagster_sao.core.state import FailedAttempt, FailureKind, LastBuild, SourceState, StateSnapshot

START = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)

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
    return ProjectGraph("shop", adapter, {n: nodes[n] for n in _parents_first(nodes)}, sources)


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


@dataclass
class World:
    """A project with a past and a clock, which builds what a plan says through the ledger, as a run does."""

    graph: ProjectGraph
    now: datetime = START
    policies: dict[str, Policy] = field(default_factory=dict)
    source_policies: dict[str, SourcePolicy] = field(default_factory=dict)
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    stars: set[str] = field(default_factory=set)
    tokens: dict[str, SourceState] = field(default_factory=dict)
    builds: dict[str, LastBuild] = field(default_factory=dict)
    failures: dict[str, FailedAttempt] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    altered: dict[str, str] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    runs: int = 0

    def __post_init__(self) -> None:
        for name in self.graph.nodes:
            self.fingerprints.setdefault(name, code(f"select {name}"))
        for name in self.graph.sources:
            if name not in self.tokens:
                self.load(name, "first")

    @property
    def project(self) -> Project:
        policies = with_expiry(self.policies, self.graph, self.source_policies)
        return Project(self.graph, dict(self.fingerprints), policies, frozenset(self.stars))

    @property
    def state(self) -> StateSnapshot:
        return StateSnapshot(
            builds=dict(self.builds),
            sources=dict(self.tokens),
            failures=dict(self.failures),
            missing_relations=frozenset(self.missing),
            altered_relations=dict(self.altered),
            blocked=frozenset(self.blocked),
        )

    def load(self, source: str, token: str | None = None) -> None:
        """Let a source say `token`, by default one it never said."""
        before = self.tokens.get(source)
        seen = before.history if before else ()
        history = (*seen, (token or f"token {len(seen) + 1}", self.now))
        self.tokens[source] = SourceState(history[-1][0], self.now, history)

    def edit(self, node: str, **parts: str) -> None:
        """Change the code of `node`: its SQL, or the parts given."""
        self.fingerprints[node] = code(self.fingerprints[node].parts["sql"] + ("" if parts else " -- again"), **parts)

    def ask(self, node: str, **settings: object) -> None:
        """Change the policy of `node`."""
        self.policies[node] = replace(self.policies.get(node, Policy()), **settings)

    def plan(
        self,
        *,
        mode: Mode = Mode.SENSOR,
        selection: Iterable[str] | None = None,
        requests: Mapping[str, Request] | None = None,
    ) -> Plan:
        return make_plan(
            self.project, self.state, now=self.now, mode=mode, selection=selection, requests=requests or {}
        )

    def decision(self, node: str, **options: object) -> Decision:
        return self.plan(**options).decisions[node]

    def apply(
        self,
        plan: Plan,
        *,
        taking: timedelta = timedelta(0),
        failing: Iterable[str] = (),
        failing_tests: Iterable[str] = (),
    ) -> dict[str, LastBuild]:
        """Carry out `plan` as one run: what fails is recorded, what is below it is left alone."""
        self.runs += 1
        ledger = Ledger(self.project, self.state)
        started, self.now = self.now, self.now + taking
        failing, failing_tests = set(failing) & set(plan.builds), set(failing_tests) & set(plan.builds)
        below = self.graph.descendants(failing | failing_tests)
        recorded = {}
        for node in plan.builds:
            if node in below:
                continue
            if node in failing:
                self._fail(node, ledger, FailureKind.BUILD)
                continue
            before = self.builds.get(node)
            build = ledger.record(
                node,
                started_at=started,
                ended_at=self.now,
                run_id=f"run {self.runs}",
                full_refresh=plan.decisions[node].full_refresh,
            )
            if node in failing_tests:
                self._fail(node, ledger, FailureKind.TEST, before)
                continue
            recorded[node] = build
            self.builds[node] = build
            self.failures.pop(node, None)
            self.missing.discard(node)
            self.altered.pop(node, None)
        return recorded

    def interrupt(self, node: str) -> None:
        """Let a run end while it builds `node`."""
        self.failures[node] = FailedAttempt(self.now, 1, kind=FailureKind.INTERRUPTED)

    def _fail(self, node: str, ledger: Ledger, kind: FailureKind, before: LastBuild | None = None) -> None:
        fingerprint, consumed = self.fingerprints[node].digest, ledger.consumed(node)
        last = self.failures.get(node)
        again = last is not None and last.fingerprint == fingerprint and last.consumed == consumed
        attempts = last.attempts + 1 if last is not None and again else 1
        self.failures[node] = FailedAttempt(self.now, attempts, fingerprint, consumed, kind, before)

    def build(self, **options: object) -> list[str]:
        """Plan and carry it out; return what was built."""
        return list(self.apply(self.plan(**options)))
