"""What somebody who drives a project from Python or the command line can have got wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_sao.core.errors import DagsterSaoError

if TYPE_CHECKING:
    from dagster_sao.api.results.values import BuildResults


class ConflictingOptionsError(DagsterSaoError):
    """Options that exclude each other, or one without another that it needs."""


class NoInstanceError(DagsterSaoError):
    """There is no Dagster instance that the state could be read from."""


class DbtBuildFailed(DagsterSaoError):  # noqa: N818 (what callers of dbt's other orchestrators catch)
    """A node or a test failed, or the run did. `results` says what became of each."""

    def __init__(self, message: str, results: BuildResults) -> None:
        super().__init__(message)
        self.results = results
