"""A dbt project as the decisions see it: one value with the content of its manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

from dagster_sao.core.code.evidence import code_changes
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.code.versions import digest
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.manifest.policy import Policy, TestPolicy
from dagster_sao.core.manifest.relation_traits import RelationTraits
from dagster_sao.core.state.state import FunctionState, LastBuild, Verdict

_NO_POLICY = Policy()
_NO_TEST_POLICY = TestPolicy()


@dataclass(frozen=True)
class Project:
    """The content of the manifest: the graph, each node's policy, and the fingerprint of each node and test."""

    graph: ProjectGraph
    fingerprints: Mapping[str, Fingerprint]
    policies: Mapping[str, Policy] = field(default_factory=dict)
    selects_star: frozenset[str] = frozenset()
    """Nodes whose columns may follow from their parents' columns (`select *`)."""
    may_ask: frozenset[str] = frozenset()
    """Views whose templates may query the warehouse, so that their SQL follows from the answers."""
    traits: RelationTraits = field(default_factory=RelationTraits)
    """How the database of the project treats relations."""
    manifest_id: str = ""
    """The identity of this manifest; empty where it is not known."""
    files: str = ""
    """The identity of the state of the project's files, which may be newer than the manifest."""
    test_policies: Mapping[str, TestPolicy] = field(default_factory=dict)
    """The policies of the data tests that have one."""

    value: Callable[[str, str], str] = lambda _unique_id, _name: ""
    """Returns the hash of what a node or test reads now under a name such as `var: x`."""

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """The name of every node, source, test and function in messages."""
        graph = self.graph
        found = {
            uid: item.label for items in (graph.nodes, graph.sources, graph.functions) for uid, item in items.items()
        }
        return {**found, **{uid: test.name for uid, test in self.graph.tests.items()}}

    def policy(self, unique_id: str) -> Policy:
        """Return a node's policy."""
        return self.policies.get(unique_id, _NO_POLICY)

    def test_policy(self, unique_id: str) -> TestPolicy:
        """Return a data test's policy."""
        return self.test_policies.get(unique_id, _NO_TEST_POLICY)

    def manifest_code_mark(self, unique_id: str) -> str:
        """Return a marker of a node's or test's code in this very manifest and with these very files.

        Empty where nothing tells manifests apart.
        """
        return digest([self.manifest_id, self.files, self.fingerprints[unique_id].digest]) if self.manifest_id else ""

    def code_changes(
        self, unique_id: str, record: LastBuild | Verdict, *, parents_changed: bool = False
    ) -> tuple[str, ...]:
        """Return the names of the parts of a node's or test's code that differ from its record; empty when none does.

        `parents_changed` tells whether what it reads has other versions now.
        """
        # Until files newer than the manifest are parsed, a build that read them would look like a change at every decision.
        if self.is_from_this_manifest(unique_id, record):
            return ()
        return code_changes(
            self.fingerprints[unique_id],
            record.fingerprint,
            record.evidence,
            value=partial(self.value, unique_id),
            parents_changed=parents_changed,
        )

    def is_current_function(self, unique_id: str, state: FunctionState | None) -> bool:
        """Return whether the warehouse has a function from the code of this manifest, or was meant to have by its plan."""
        if state is None or not state.code:
            return False
        if state.code == self.fingerprints[unique_id].digest:
            return True
        return bool(state.manifest_code_mark) and state.manifest_code_mark == self.manifest_code_mark(unique_id)

    def is_from_this_manifest(self, unique_id: str, record: LastBuild | Verdict) -> bool:
        """Return whether a record was planned from this very manifest and these very files.

        dbt may have read files that are newer than the manifest. As long as they stay, another build would read them again.
        """
        if record.fingerprint.digest == self.fingerprints[unique_id].digest:
            return False  # the same code, whatever it was planned from
        return bool(record.manifest_code_mark) and record.manifest_code_mark == self.manifest_code_mark(unique_id)
