"""From a manifest to the project that decisions need, with the policies of its sources and the warnings of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.known_relations import unknown_relation_warnings
from dagster_sao.core.manifest.expiry import expiry_warnings, with_expiry
from dagster_sao.core.manifest.policy import (
    SettingWarning,
    SourcePolicy,
    TestPolicy,
    read_policy,
    read_source_policy,
    read_test_policy,
)
from dagster_sao.core.manifest.relation_traits import RelationTraits
from dagster_sao.core.project import Project


@dataclass(frozen=True, slots=True)
class ProjectReading:
    """A manifest as it was read."""

    project: Project
    source_policies: Mapping[str, SourcePolicy]
    """The policies of sources, by unique id. Nodes of other projects have none."""
    warnings: tuple[SettingWarning, ...]


def read_project(manifest: Mapping[str, Any], fingerprinter: Fingerprinter, traits: RelationTraits) -> ProjectReading:
    """Return the content of a manifest: graph, fingerprints, policies and warnings.

    Raises InvalidProjectError or InvalidPolicyError, naming the node and its file.
    """
    graph = fingerprinter.graph
    nodes = {uid: read_policy(manifest["nodes"][uid]) for uid in graph.nodes}
    sources = {
        uid: read_source_policy(source.definition)
        for uid, source in graph.sources.items()
        if not source.is_external_node
    }
    tests = {uid: read_test_policy(manifest["nodes"][uid]) for uid in graph.tests if uid in manifest["nodes"]}
    source_policies = {uid: policy for uid, (policy, _) in sources.items()}
    policies = with_expiry({uid: reading.policy for uid, reading in nodes.items()}, graph, source_policies)
    project = Project(
        graph=graph,
        fingerprints=fingerprinter.fingerprints(),
        policies=policies,
        selects_star=frozenset(uid for uid, node in graph.nodes.items() if fingerprinter.selects_star(node)),
        may_ask=frozenset(uid for uid, node in graph.nodes.items() if node.is_view and fingerprinter.may_ask(node)),
        traits=traits,
        manifest_id=str(manifest["metadata"].get("invocation_id") or ""),
        test_policies={uid: policy for uid, (policy, _) in tests.items() if policy != TestPolicy()},
        value=fingerprinter.value_now,
    )
    warnings = (
        *(reading.warnings for reading in nodes.values()),
        *(found for _, found in sources.values()),
        *(found for _, found in tests.values()),
        expiry_warnings(policies, graph),
        unknown_relation_warnings(fingerprinter, policies),
    )
    return ProjectReading(project, source_policies, tuple(warning for found in warnings for warning in found))
