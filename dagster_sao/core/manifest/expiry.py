"""When a build expires, by how old the sources above it may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta

from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.manifest.policy import Policy, SettingWarning, SourcePolicy


def with_expiry(
    policies: Mapping[str, Policy], graph: ProjectGraph, sources: Mapping[str, SourcePolicy]
) -> dict[str, Policy]:
    """Return the policies with the `rebuild_every` that `expire_with_sources` asks for.

    It is the smallest threshold of all sources above the node, directly or not. The threshold of a source is its
    `error_after`, else its `warn_after`. A shorter `rebuild_every` of the node's own stays.
    """
    thresholds = _thresholds(graph, sources)
    return {uid: _expiring(policy, thresholds.get(uid)) for uid, policy in policies.items()}


def expiry_warnings(policies: Mapping[str, Policy], graph: ProjectGraph) -> Iterator[SettingWarning]:
    """Yield a warning for each node that expires with sources, none of which ever expires."""
    for uid, policy in policies.items():
        if policy.expire_with_sources and policy.rebuild_every is None:
            node = graph.nodes[uid]
            yield SettingWarning(
                node.label,
                node.file,
                "`meta.dagster_sao.expire_with_sources` has no effect: no source above it has an `error_after` or `warn_after`.",
            )


def _expiring(policy: Policy, threshold: timedelta | None) -> Policy:
    if not policy.expire_with_sources or threshold is None:
        return policy
    return replace(policy, rebuild_every=min(policy.rebuild_every or threshold, threshold))


def _thresholds(graph: ProjectGraph, sources: Mapping[str, SourcePolicy]) -> Mapping[str, timedelta]:
    found = {uid: policy.expires_after for uid, policy in sources.items()}
    smallest = {uid: threshold for uid, threshold in found.items() if threshold}
    for uid, node in graph.nodes.items():
        above = [smallest[parent] for parent in node.parents if parent in smallest]
        if above:
            smallest[uid] = min(above)
    return smallest
