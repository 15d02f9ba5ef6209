"""The code that dbt itself read in one command, and the evidence of each build and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dagster_sao.core.code.evidence import UNSEEN, Evidence
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.read_evidence import EvidenceReader
from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.orchestration.dbt.process import DbtProcess
from dagster_sao.orchestration.project.dbt_arguments import flags_in
from dagster_sao.orchestration.project.loaded import LoadedProject, read_code
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.read_files import read_manifest, read_variables
from dagster_sao.orchestration.project.surroundings import Moment, moment_of


class Sightings:
    """The code and evidence of one dbt process, read once its first node has ended: by then dbt has written its manifest."""

    def __init__(  # noqa: PLR0913 (what a process was given)
        self,
        process: DbtProcess,
        project: OrchestratedProject,
        loaded: LoadedProject,
        unique_ids: Sequence[str],
        *,
        seed_checksums: Mapping[str, str],
        before: Moment | None,
        files: Callable[[], bool],
    ) -> None:
        """Take the process, the project as planned, and the nodes and tests that the process was given.

        `files` returns whether the project's files are the ones of the plan.
        `seed_checksums` are the checksums of the seed files that dbt loads, and `before` is what code consists of beside
        the manifest, both from before it started.
        """
        self._process = process
        self._project, self._loaded = project, loaded
        self._planned = loaded.project.graph
        self._seed_checksums = seed_checksums
        self._before = before
        self._unique_ids = unique_ids
        self._files = files

    def __call__(self, unique_id: str) -> tuple[Fingerprint | None, Evidence]:
        """Return the code of a node or test that ended (None where it is not known), and its evidence."""
        fingerprint = self._fingerprints.get(unique_id)
        if self._code is None or self._reader is None or fingerprint is None:
            return fingerprint, UNSEEN
        trace, compiled = self._process.trace(unique_id), self._process.compiled_sql(unique_id)
        graph = self._code.graph
        if unique_id in graph.nodes:
            return fingerprint, self._reader.of_node(graph.nodes[unique_id], fingerprint, trace, compiled)
        test = graph.tests[unique_id]
        if test.is_unit_test:  # whose answer depends on code alone
            return fingerprint, UNSEEN
        return fingerprint, self._reader.of_test(test, fingerprint, trace, compiled)

    @property
    def failed_start(self) -> str:
        """The hook of `on-run-start` that failed, empty where all succeeded."""
        return self._process.failed_start

    def code(self, unique_id: str) -> Fingerprint | None:
        """Return the code of a node, test or function that dbt read, None where it is not known."""
        return self._fingerprints.get(unique_id)

    def moved(self, unique_id: str) -> list[str]:
        """Return what dbt wrote, read or called for a node, test or function under another name than the plan has.

        By unique id. A relation that only one of the two has is a change of code, and counts as that.
        """
        if self._code is None:
            return []
        found, planned = self._code.graph, self._planned
        involved = {unique_id} | (_involved(planned, unique_id) & _involved(found, unique_id))
        return [uid for uid in sorted(involved) if _relation(found, uid) != _relation(planned, uid)]

    @cached_property
    def is_of_planned_files(self) -> bool:
        """Whether dbt read the files of the plan: no file was written since, not even one that was written back."""
        return self._files() and self._now == self._before

    @cached_property
    def _manifest(self) -> Mapping[str, Any] | None:
        return manifest_of_dbt(self._process.invocation.target_path)

    @cached_property
    def _now(self) -> Moment | None:
        return read_moment(self._project, self._loaded, self._manifest) if self._manifest is not None else None

    @cached_property
    def _code(self) -> Fingerprinter | None:
        return self._code_at(self._now)

    def _code_at(self, moment: Moment | None) -> Fingerprinter | None:
        return code_read_by_dbt(self._manifest, self._project, moment, self._seed_checksums)

    @cached_property
    def _fingerprints(self) -> Mapping[str, Fingerprint]:
        if self._code is None or self._now is None:
            return {}
        found = self._code.fingerprints(self._unique_ids)
        if self._now == self._before:
            return found
        # What dbt reads beside its manifest was written since it started: there is no telling which of the two it read.
        before = self._code_at(self._before.before(self._now)) if self._before is not None else None
        then = before.fingerprints(self._unique_ids) if before is not None else {}
        mark = f"moved in {self._process.invocation.target_path.name}"
        return {uid: one.unlike(then.get(uid, Fingerprint({})), mark) for uid, one in found.items()}

    @cached_property
    def _reader(self) -> EvidenceReader | None:
        if self._code is None:
            return None
        hooks = [hook.unique_id for hook in self._code.start_hooks]
        return EvidenceReader(self._code, {hook: self._process.trace(hook) for hook in hooks})


def manifest_of_dbt(target_path: Path) -> Mapping[str, Any] | None:
    """Return the manifest that a dbt command wrote, None where it wrote none (`--no-write-json`)."""
    try:
        return read_manifest(target_path / "manifest.json")
    except (OSError, ValueError, DagsterSaoError):
        return None


def read_moment(project: OrchestratedProject, loaded: LoadedProject, manifest: Mapping[str, Any]) -> Moment | None:
    """Return what code consists of now beside a manifest; None where it cannot be read."""
    try:
        # The values of variables may be newer than the plan, as the rest of the code may.
        variables = read_variables(project.dbt_project.project_dir, loaded.variables.command_line)
        return moment_of(project.dbt_project, variables, manifest, flags_in(project.dbt_args))
    except (OSError, ValueError, DagsterSaoError):
        return None


def code_read_by_dbt(
    manifest: Mapping[str, Any] | None,
    project: OrchestratedProject,
    moment: Moment | None,
    seed_checksums: Mapping[str, str] | None = None,
) -> Fingerprinter | None:
    """Return the fingerprinter of the code that dbt read, which may be newer than the manifest of the plan.

    `manifest` is dbt's own, and `moment` what the code consists of beside it: without them, only the manifest of the plan is
    known. `seed_checksums` are the checksums of the seed files from before dbt started; without them the files are read now.
    """
    if manifest is None or moment is None:
        return None
    try:
        return read_code(project.dbt_project, manifest, moment, project.selection, checksums=seed_checksums)
    except (OSError, ValueError, DagsterSaoError):
        return None


def _involved(graph: ProjectGraph, unique_id: str) -> set[str]:
    if (node := graph.nodes.get(unique_id)) is not None:
        return {*node.parents, *node.functions}
    test = graph.tests.get(unique_id)
    return {*test.about, *test.reads, *test.functions} if test is not None else set()


def _relation(graph: ProjectGraph, unique_id: str) -> str | None:
    one = graph.nodes.get(unique_id) or graph.sources.get(unique_id) or graph.functions.get(unique_id)
    return one.relation_name if one is not None else None
