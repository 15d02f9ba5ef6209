"""The complete state of a project for a decision, collected from the places where its parts are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import dagster as dg

from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.state.state import StateSnapshot, Verdict
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.leases.writers import with_writers
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.state.blocked_sources import blocked_sources
from dagster_sao.orchestration.state.event_log import event_log_state
from dagster_sao.orchestration.state.relation_notes import read_columns, read_moved, read_relation_notes
from dagster_sao.orchestration.state.resets import read_resets


@dataclass(frozen=True, slots=True)
class ProjectView:
    """One look at a project: one manifest, and its state in an instance at one time."""

    instance: dg.DagsterInstance
    project: OrchestratedProject
    loaded: LoadedProject
    state: StateSnapshot
    now: datetime

    @property
    def graph(self) -> ProjectGraph:
        """The graph of the manifest."""
        return self.loaded.project.graph


@dataclass(frozen=True, slots=True)
class LiveProject:
    """A project whose state is read anew at each call: one manifest, while runs write."""

    instance: dg.DagsterInstance
    project: OrchestratedProject
    loaded: LoadedProject
    building: Callable[[], Mapping[str, str]]
    """Returns the nodes that other runs are building now, each with the id of its run."""

    def state(self) -> StateSnapshot:
        """Return the state as it is recorded now."""
        return read_state(self.instance, self.project, self.loaded, clock.now())

    def state_and_building(self) -> tuple[StateSnapshot, Mapping[str, str]]:
        """Return the state, and the nodes that other runs are building.

        The runs are read first, so that a build of a run that ends in between cannot be missing from both.
        """
        building = self.building()
        return self.state(), building


def view_project(
    instance: dg.DagsterInstance, project: OrchestratedProject, loaded: LoadedProject, now: datetime
) -> ProjectView:
    """Return a project with its state in an instance."""
    return ProjectView(instance, project, loaded, read_state(instance, project, loaded, now), now)


def read_state(
    instance: dg.DagsterInstance, project: OrchestratedProject, loaded: LoadedProject, now: datetime
) -> StateSnapshot:
    """Return the state of a project in an instance."""
    log_state = event_log_state(instance, project)
    # Read the writers before and after the log: a run that writes in between then counts as under way.
    writers = log_state.writers.read(loaded)
    state = log_state.snapshot(loaded.keys, now)
    state = with_writers(state, writers, partial(log_state.writers.read, loaded), log_state.wipes(loaded.keys))
    state = read_resets(instance, project.state_name).hide(state)
    relations = read_relation_notes(instance, project.state_name)
    state = replace(
        state,
        verdicts=_about(state.verdicts, loaded.database),
        missing_relations=relations.missing(state.builds),
        restored_relations=relations.restored(state.builds),
        altered_relations=relations.altered(state.builds),
        moved_in_run=read_moved(instance, project.state_name).current(state.builds),
        blocked=blocked_sources(instance, project, loaded),
        functions=log_state.functions.read() if loaded.project.graph.functions else {},
    )
    return read_columns(instance, project.state_name).added_to(state, loaded.project)


def _about(verdicts: Mapping[str, Verdict], database: str) -> Mapping[str, Verdict]:
    """Return the verdicts about a database. What a test found in another one of the same name says nothing about it."""
    if not database:
        return verdicts
    return {uid: verdict for uid, verdict in verdicts.items() if verdict.database in {"", database}}
