"""dbt parses in this process, where a test is not about the way in which the package starts dbt for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from dagster_dbt import DbtProject
from dagster_dbt.dbt_project import DagsterDbtProjectPreparer

from dagster_sao.orchestration.private import dagster_internals
from dagster_sao.orchestration.project import parsing
from tests.histories.inprocess_dbt import run_dbt


@contextmanager
def parsing_here() -> Iterator[list[DbtProject]]:
    """Yield the projects that were parsed so far. A parse starts no process, of which dagster-dbt would start two."""
    parsed: list[DbtProject] = []

    def parse(project: DbtProject) -> None:
        parsed.append(project)
        target = ["--target", project.target] if project.target else []
        arguments = [word for word in dagster_internals.prepare_arguments(project) if word != "--quiet"]
        result = run_dbt([*arguments, *target], project.project_dir, project.project_dir / project.target_path)
        if not result.success:
            raise RuntimeError(result.exception)

    with (
        patch.object(DagsterDbtProjectPreparer, "prepare", lambda _, project: parse(project)),
        patch.object(parsing, "_run_parse", parse),
    ):
        yield parsed
