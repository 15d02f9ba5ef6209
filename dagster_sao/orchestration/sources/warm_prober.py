"""The session of a project with its warehouse, kept from one tick to the next."""

from __future__ import annotations

from dagster_sao.orchestration import clock
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.probed_sources import open_session
from dagster_sao.orchestration.project.read_files import profile_stamp
from dagster_sao.warehouse.probes.registry import SourceProber


class WarmProber:
    """An open session, opened anew when the manifest or the profile changed. On DuckDB it keeps no file open."""

    def __init__(self, project: OrchestratedProject) -> None:
        """Open nothing yet."""
        self._project = project
        self._prober: SourceProber | None = None
        self._opened_for: tuple[LoadedProject, object] | None = None

    def of(self, loaded: LoadedProject) -> SourceProber:
        """Return a prober for a manifest of the project. Raises WarehouseError when there can be none."""
        profile = profile_stamp(self._project.dbt_project)
        if self._prober is None or self._opened_for != (loaded, profile):
            if self._prober is not None:
                self._prober.session.close()
            self._prober = SourceProber(open_session(self._project, loaded), now_ns=clock.now_ns)
            self._opened_for = loaded, profile
        return self._prober

    def forget(self) -> None:
        """Open a new session the next time: the warehouse could not be queried, and perhaps the environment changed."""
        self._prober = None
