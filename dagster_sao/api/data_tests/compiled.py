"""The manifest of a project with the compiled SQL of models and tests, as dbt compiles them now."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dagster_dbt import DbtCliResource

from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.orchestration.environment import temporary_environment
from dagster_sao.orchestration.events.door import dbt_messages_masked, learn_secrets
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.private.dbt_commands import current_folder_kept, lean_resource
from dagster_sao.orchestration.project.dbt_arguments import vars_arguments
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.read_files import read_manifest
from dagster_sao.orchestration.selection.resolve import selection_words
from dagster_sao.orchestration.selection.words import LONGEST_SELECTION
from dagster_sao.warehouse.dbt_private.environment import environment_of_commands, environment_of_dbt, is_imported_dbt


def compiled_manifest(
    project: OrchestratedProject, loaded: LoadedProject, wanted: Collection[str]
) -> Mapping[str, Any]:
    """Return the manifest that `dbt compile` writes for the models and tests that are `wanted`.

    dbt may compile others too. It writes into a folder of its own, which is removed. Raises InvalidProjectError when dbt cannot
    compile one of them.
    """
    own = project.dbt_project
    arguments = ["compile", *vars_arguments(project.variables), *_selection(project, loaded, wanted)]
    given = DbtCliResource(own)
    dbt = lean_resource(given, is_imported=is_imported_dbt(given.dbt_executable), needs_adapter=False)
    changes = environment_of_commands(environment_of_dbt(own.project_dir), dbt.dbt_executable)
    learn_secrets(own, project.variables)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        target = Path(folder)
        try:
            with dbt_messages_masked(), current_folder_kept(), temporary_environment(changes):
                dbt.cli(arguments, target_path=target).wait()
            return read_manifest(target / "manifest.json")
        except Exception as error:  # noqa: BLE001 (dagster-dbt's, and whatever the system has)
            msg = f"dbt cannot compile the project in {own.project_dir}: {sentence(error)}"
            raise InvalidProjectError(msg) from None  # Dagster would show the cause, with all that dbt quotes


def _selection(project: OrchestratedProject, loaded: LoadedProject, wanted: Collection[str]) -> list[str]:
    kinds = {"model", "test"}
    if all(uid in wanted for uid, entry in loaded.manifest["nodes"].items() if entry["resource_type"] in kinds):
        return []
    words = selection_words(project, loaded)
    selected = " ".join(words.word(uid) for uid in sorted(wanted))
    # Without a selection dbt compiles everything: more than is wanted, but never less.
    return ["--select", selected] if len(selected) <= LONGEST_SELECTION else []
