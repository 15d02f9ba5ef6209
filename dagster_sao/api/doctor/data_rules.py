"""Rules about data: sources without a usable token, and data that moves unseen or for nothing."""

from __future__ import annotations

from collections.abc import Iterator

from dagster_sao.api.doctor.findings import Finding, Patient, Severity
from dagster_sao.core.code.evidence import untracked_inputs
from dagster_sao.core.code.known_relations import reads_unknown
from dagster_sao.core.decision.messages import named
from dagster_sao.core.durations import format_duration
from dagster_sao.orchestration.project.loaded import source_policy
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.queries.soundness import why_unsound

_OFTEN = 2
"""This many builds in a row only because the run before moved a parent: one may be chance."""


def untracked_sources(patient: Patient) -> Iterator[Finding]:
    """Yield the sources whose new data cannot be detected, or whose probe fails."""
    if patient.look is None:
        return
    sources = patient.loaded.project.graph.sources
    if patient.look.problem:
        yield Finding(
            Severity.ERROR,
            "no-warehouse",
            f"The warehouse could not be probed: {patient.look.problem}",
            "Until it can be reached, new data in the sources is not detected",
        )
    for uid, observation in patient.look.observations.items():
        source = sources[uid]
        if observation.error:
            yield Finding(
                Severity.ERROR,
                "source-fails",
                observation.error,
                "Until its probe succeeds, its last token stays and nothing is rebuilt for it",
                source.label,
                source.file,
            )
        elif observation.warning:
            interval = format_duration(source_policy(patient.loaded, source).untracked_interval)
            yield Finding(
                Severity.WARNING,
                "untracked-source",
                observation.warning,
                f"Until then it counts as updated every {interval} (`meta.dagster_sao.untracked_interval`)",
                source.label,
                source.file,
            )


def nodes_with_untracked_inputs(patient: Patient) -> Iterator[Finding]:
    """Yield the nodes that read something whose changes cannot be detected."""
    project = patient.loaded.project
    for uid, node in project.graph.nodes.items():
        build = patient.state.builds.get(uid)
        unknown = untracked_inputs(project.fingerprints[uid], build.evidence) if build else ()
        if unknown:
            interval = format_duration(project.policy(uid).untracked_interval)
            yield Finding(
                Severity.WARNING,
                "untracked-input",
                reads_unknown(unknown),
                f"Until then it counts as updated every {interval} (`meta.dagster_sao.untracked_interval`)",
                node.label,
                node.file,
            )


def own_effects(patient: Patient) -> Iterator[Finding]:
    """Yield the nodes whose own runs change their inputs, so that they are built again and again."""
    project, labels = patient.loaded.project, patient.loaded.project.labels
    for uid, build in patient.state.builds.items():
        node = project.graph.nodes.get(uid)
        stirred = [parent for parent, times in build.stirred.items() if times >= _OFTEN]
        if node is not None and stirred:
            yield Finding(
                Severity.WARNING,
                "own-effects",
                f"{named(stirred, labels)} moves in each run that builds it, so it is built again and again, with waits of up to 6 hours",
                "Keep its hooks, and the macros that it calls, from writing to a relation that it reads, or remove that ref or source",
                node.label,
                node.file,
            )


def unsound_metadata(patient: Patient) -> Iterator[Finding]:
    """Yield the sources that trust metadata which is known to miss changes."""
    graph = patient.loaded.project.graph
    for source in graph.sources.values():
        if not source_policy(patient.loaded, source).trust_metadata:
            continue
        # Only dbt's adapter can answer whether the target makes the times sound.
        may_be_sound = bool(traits_of(graph.adapter_type).times.sound_if)
        why = why_unsound(source, graph.adapter_type, is_sound_here=may_be_sound)
        if why is not None:
            yield Finding(
                Severity.WARNING,
                "unsound-metadata",
                f"`trust_metadata` is set, and {why}",
                "Give it a `loaded_at_query` that covers these changes, or accept that they go undetected",
                source.label,
                source.file,
            )
