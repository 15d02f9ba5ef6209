"""A dbt project as the decisions see it: one value that holds all that its manifest says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from dagster_sao.core.fingerprint import Fingerprint
from dagster_sao.core.graph import ProjectGraph
from dagster_sao.core.policy import Policy
from dagster_sao.core.state import LastBuild, Verdict
from dagster_sao.core.versions import digest

_NO_POLICY = Policy()


@dataclass(frozen=True)
class Project:
    """All that the manifest says: the graph, each node's policy, and the fingerprint of each node and test."""

    graph: ProjectGraph
    fingerprints: Mapping[str, Fingerprint]
    policies: Mapping[str, Policy] = field(default_factory=dict)
    stars: frozenset[str] = frozenset()
    """Nodes whose columns may follow from their parents' columns (`select *`)."""
    binds_views: bool = True
    """Whether the columns of a view stay as they were when it was created."""
    manifest_id: str = ""
    """What tells this manifest from any other, empty where nothing does."""
    untracked_intervals: Mapping[str, timedelta] = field(default_factory=dict)
    """Of the tests that have one: how long their answer stands when their SQL is volatile."""

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """The name of every node, source and test in messages."""
        found = {uid: item.label for items in (self.graph.nodes, self.graph.sources) for uid, item in items.items()}
        return {**found, **{uid: test.name for uid, test in self.graph.tests.items()}}

    def policy(self, unique_id: str) -> Policy:
        """Return a node's policy."""
        return self.policies.get(unique_id, _NO_POLICY)

    def planned_code(self, unique_id: str) -> str:
        """Return a marker of a node's or test's code in this very manifest, empty where nothing tells manifests apart."""
        return digest([self.manifest_id, self.fingerprints[unique_id].digest]) if self.manifest_id else ""

    def is_planned_code(self, unique_id: str, record: LastBuild | Verdict) -> bool:
        """Return whether a record was planned from this very manifest and code, though dbt may have read newer files."""
        if record.fingerprint.digest == self.fingerprints[unique_id].digest:
            return False  # whatever was planned, it is the same code
        return bool(record.planned_code) and record.planned_code == self.planned_code(unique_id)
