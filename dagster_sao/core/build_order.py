"""Which path dbt should build first: the longest one by the last durations, where no rows can depend on the order."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dagster_sao.core.code.evidence import untracked_inputs
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import LastBuild, StateSnapshot, Verdict

_HOOKS = ("config: pre-hook", "config: post-hook")
_MATERIALIZATION = "macro: materialization_"


def seconds_of_builds(
    project: Project, state: StateSnapshot, nodes: Collection[str], tests: Collection[str]
) -> Mapping[str, float]:
    """Return how long each of `nodes` is predicted to take in a dbt command with `tests`; empty where dbt keeps its own order.

    dbt starts what is ready by its depth in the graph, and a project may rely on that without knowing: a model that reads
    another one without a `ref`, or a hook that fills a table that others read. So dbt keeps its order unless all reads and
    writes of all nodes and tests of the command are known to be in the graph.
    """
    graph, builds = project.graph, {}
    for uid in nodes:
        build = state.builds.get(uid)
        node = graph.nodes[uid]
        # The batches of a microbatch model are threads of their own.
        is_plain = node.language == "sql" and node.settings.batches is None
        if build is None or not is_plain or not _is_known(project, uid, build):
            return {}
        builds[uid] = max(0.0, build.seconds)
    for uid in tests:
        verdict = state.verdicts.get(uid)
        if not graph.tests[uid].is_unit_test and (verdict is None or not _is_known(project, uid, verdict)):
            return {}
    return builds


def _is_known(project: Project, uid: str, record: LastBuild | Verdict) -> bool:
    """Return whether the next build or test reads and writes what the graph has of it, and nothing else."""
    fingerprint, evidence = project.fingerprints[uid], record.evidence
    return (
        evidence.reads is not None
        and evidence.reads.tell_of(parents_changed=True)
        and not untracked_inputs(fingerprint, evidence)
        and not any(part in _HOOKS or part.startswith(_MATERIALIZATION) for part in fingerprint.parts)
        and not project.code_changes(uid, record, parents_changed=True)
    )
