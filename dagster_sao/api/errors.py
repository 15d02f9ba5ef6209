"""Errors for callers of the Python API and users of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_sao.core.errors import DagsterSaoError

if TYPE_CHECKING:
    from dagster_sao.api.results.values import BuildResults


class ConflictingOptionsError(DagsterSaoError):
    """Options that exclude each other, or one without another that it needs."""


class NoInstanceError(DagsterSaoError):
    """There is no Dagster instance to read the state from."""


class DbtBuildFailed(DagsterSaoError):  # noqa: N818 (what callers of dbt's other orchestrators catch)
    """A node or a test failed, or the run did. `results` holds the result of each."""

    def __init__(self, message: str, results: BuildResults) -> None:
        super().__init__(message)
        self.results = results
