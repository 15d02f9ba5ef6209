"""What a run was asked for explicitly, which it builds in any case."""

from __future__ import annotations

from dagster_sao.core.decision.decide import Request
from dagster_sao.orchestration.project.orchestrated import LoadedProject, OrchestratedProject
from dagster_sao.orchestration.project.selection import NodeSelection, resolve_selection
from dagster_sao.orchestration.runs.config import StateAwareRunConfig


def explicit_requests(
    project: OrchestratedProject,
    loaded: LoadedProject,
    selected: set[str],
    config: StateAwareRunConfig,
    *,
    state_aware: bool,
) -> dict[str, Request]:
    """Return what of `selected` a run with this config builds in any case, by unique id.

    Raises InvalidSelectionError when what it is forced to build has no meaning.
    """
    if config.full_refresh:
        return dict.fromkeys(selected, Request.FULL_REFRESH)
    if not state_aware:
        return dict.fromkeys(selected, Request.BUILD)
    forced = (NodeSelection(select, state=config.state_path) for select in config.force)
    return {
        uid: Request.BUILD
        for selection in forced
        for uid in resolve_selection(project, loaded, selection)
        if uid in selected
    }
