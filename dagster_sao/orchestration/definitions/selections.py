"""Notices a dbt project that is defined in parts, which Dagster then refuses without saying what to do."""

from __future__ import annotations

from weakref import WeakSet

import dagster as dg

from dagster_sao.orchestration.project.orchestrated import OrchestratedProject

_LOG = dg.get_dagster_logger("dagster_sao")
_defined: WeakSet[OrchestratedProject] = WeakSet()


def warn_of_other_selections(project: OrchestratedProject) -> None:
    """Warn when this process also has definitions of another part of the same project and environment.

    A warning, since they may be meant for another code location than these, as in tests and notebooks.
    """
    others = {
        _text(other)
        for other in _defined
        if other.dbt_project.project_dir == project.dbt_project.project_dir
        and other.state_name == project.state_name
        and other.selection != project.selection
    }
    if others:
        _LOG.warning(
            f"The dbt project {project.name} is defined with {_text(project)} and with {' and with '.join(sorted(others))}."
            " Its state is one, so Dagster cannot load them together: define the project once, and its parts as jobs"
            " (`build_state_aware_job`)."
        )
    _defined.add(project)


def _text(project: OrchestratedProject) -> str:
    selection = project.selection
    if selection.selector:
        return f"selector='{selection.selector}'"
    excluded = f", exclude='{selection.exclude}'" if selection.exclude else ""
    return f"select='{selection.select}'{excluded}"
