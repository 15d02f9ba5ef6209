"""The code that dbt itself read in one command, and the evidence of each build and test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from dagster_sao.core.code.evidence import UNSEEN, Evidence
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.read_evidence import EvidenceReader
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.orchestration.dbt.process import DbtProcess


class Sightings:
    """The code and evidence of one dbt process, read once its first node has ended: by then dbt has written its manifest."""

    def __init__(
        self,
        process: DbtProcess,
        planned: ProjectGraph,
        unique_ids: Sequence[str],
        seed_checksums: Mapping[str, str],
        files: Callable[[], bool],
    ) -> None:
        """Take the process, the graph of the plan, and the nodes and tests that the process was given.

        `files` returns whether the project's files are the ones of the plan.
        `seed_checksums` are the checksums of the seed files that dbt loads, from before it started.
        """
        self._process = process
        self._planned = planned
        self._seed_checksums = seed_checksums
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
        return self._files()

    @cached_property
    def _code(self) -> Fingerprinter | None:
        return self._process.code(self._seed_checksums)

    @cached_property
    def _fingerprints(self) -> Mapping[str, Fingerprint]:
        return self._code.fingerprints(self._unique_ids) if self._code is not None else {}

    @cached_property
    def _reader(self) -> EvidenceReader | None:
        return EvidenceReader(self._code) if self._code is not None else None


def _involved(graph: ProjectGraph, unique_id: str) -> set[str]:
    if (node := graph.nodes.get(unique_id)) is not None:
        return {*node.parents, *node.functions}
    test = graph.tests.get(unique_id)
    return {*test.about, *test.reads, *test.functions} if test is not None else set()


def _relation(graph: ProjectGraph, unique_id: str) -> str | None:
    one = graph.nodes.get(unique_id) or graph.sources.get(unique_id) or graph.functions.get(unique_id)
    return one.relation_name if one is not None else None
