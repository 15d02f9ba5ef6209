"""One manifest, read: graph, policies, fingerprints and asset keys. Immutable."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtProject

from dagster_sao.collector import paused_collector
from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.variables import Variables
from dagster_sao.core.code.versions import digest
from dagster_sao.core.manifest.graph import Source
from dagster_sao.core.manifest.policy import (
    SettingWarning,
    SourcePolicy,
)
from dagster_sao.core.project import Project
from dagster_sao.core.read_project import read_project
from dagster_sao.orchestration.private.dagster_internals import (
    fresh_translator,
    get_asset_check_key_for_test,
    select_unique_ids,
)
from dagster_sao.orchestration.project.python_modules import ImportedModules
from dagster_sao.orchestration.project.read_files import keep_forms, known_forms, read_variables
from dagster_sao.orchestration.project.seed_files import seed_checksums, seed_columns
from dagster_sao.orchestration.project.surroundings import Moment, imported_modules, moment_of, warehouse_of
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.errors import WarehouseError


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a dbt project that becomes assets, in dbt's own syntax."""

    select: str = "fqn:*"
    exclude: str = ""
    selector: str = ""

    def resolve(self, manifest: Mapping[str, Any], dbt_project: DbtProject) -> AbstractSet[str] | None:
        """Return the unique ids that are selected, None for all."""
        if self == Selection():
            return None
        return select_unique_ids(self.select, self.exclude, self.selector, dbt_project, manifest)


@dataclass(frozen=True)
class AssetKeys:
    """Which asset is which dbt resource."""

    by_unique_id: Mapping[str, dg.AssetKey]
    nodes: frozenset[str]
    """The unique ids that are nodes; the others are sources."""
    unique_ids: Mapping[dg.AssetKey, str] = field(init=False)

    def __post_init__(self) -> None:
        """Invert the mapping."""
        object.__setattr__(self, "unique_ids", {key: uid for uid, key in self.by_unique_id.items()})


@dataclass(frozen=True, eq=False)
class LoadedProject:
    """One parsed manifest, immutable. A tick or a run uses a single one, so that dbt rewriting the file cannot mix two versions."""

    manifest: Mapping[str, Any]
    project: Project
    source_policies: Mapping[str, SourcePolicy]
    warnings: tuple[SettingWarning, ...]
    variables: Variables
    dbt_project: DbtProject
    translator: DagsterDbtTranslator
    """Serves this manifest only, so that what it remembers ends with the manifest."""
    imported: Mapping[str, Mapping[str, str]]
    """The texts of the project's own modules, by the code of each Python model."""

    @cached_property
    def keys(self) -> AssetKeys:
        """The asset keys of the project's nodes and sources."""
        graph = self.project.graph
        keys = {uid: self.spec(uid).key for uid in (*graph.nodes, *graph.sources)}
        return AssetKeys(keys, frozenset(graph.nodes))

    @cached_property
    def key_prefix(self) -> tuple[str, ...]:
        """What all nodes have before the asset keys that dagster-dbt itself gives them; empty for nothing.

        Nodes with keys of another kind do not count.
        """
        plain, found = DagsterDbtTranslator(), []
        for uid in self.keys.nodes:
            key, end = self.keys.by_unique_id[uid].path, plain.get_asset_key(self.manifest["nodes"][uid]).path
            if key[-len(end) :] == end:
                found.append(tuple(key[: -len(end)]))
        shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*found, strict=False))
        return tuple(parts[0] for parts in shared)

    @cached_property
    def check_keys(self) -> Mapping[str, dg.AssetCheckKey]:
        """The asset check of each dbt test that has one, by the test's unique id."""
        found = {
            uid: get_asset_check_key_for_test(self.manifest, self.translator, uid, self.dbt_project)
            for uid in self.project.graph.tests
        }
        return {uid: key for uid, key in found.items() if key is not None}

    @cached_property
    def warehouse(self) -> str:
        """An id of the target's warehouse; empty if the profile cannot be read, which any query will report."""
        try:
            return warehouse_of(self.dbt_project, self.variables)
        except WarehouseError:
            return ""

    @property
    def database(self) -> str:
        """An id of the database that verdicts are about; empty where any host shows the same relations."""
        adapter = self.project.graph.adapter_type
        return digest([adapter, self.warehouse]) if self.warehouse and traits_of(adapter).keeps_relations else ""

    @cached_property
    def _modules(self) -> ImportedModules:
        return imported_modules(self.dbt_project, self.variables)

    @property
    def has_other_modules(self) -> bool:
        """Whether a module of the project's own that a Python model imports was written since."""
        return any(self._modules.texts(code) != texts for code, texts in self.imported.items())

    def with_files(self, code: str) -> LoadedProject:
        """Return this manifest with the current state of the project's files: itself where that is the same."""
        return self if self.project.files == code else replace(self, project=replace(self.project, files=code))

    def spec(self, unique_id: str) -> dg.AssetSpec:
        """Return the asset spec of a node or source."""
        return self.translator.get_asset_spec(self.manifest, unique_id, self.dbt_project)


@paused_collector()
def load_manifest(  # noqa: PLR0913 (what the content follows from)
    dbt_project: DbtProject,
    manifest: Mapping[str, Any],
    translator: DagsterDbtTranslator,
    *,
    variables: Mapping[str, Any],
    selection: Selection,
    flags: Mapping[str, Any] | None = None,
) -> LoadedProject:
    """Return the content of a manifest: graph, policies, fingerprints. `flags` are those that dbt's arguments set.

    Raises InvalidProjectError or InvalidPolicyError, naming the node and its file.
    """
    values = read_variables(dbt_project.project_dir, variables)
    cache = known_forms(dbt_project)
    known = len(cache)
    moment = moment_of(dbt_project, values, manifest, flags)
    fingerprinter = read_code(dbt_project, manifest, moment, selection, cache)
    reading = read_project(manifest, fingerprinter, traits_of(fingerprinter.graph.adapter_type).relations)
    if len(cache) > known:
        keep_forms(dbt_project, cache)
    loaded = LoadedProject(
        manifest=manifest,
        project=reading.project,
        source_policies=reading.source_policies,
        warnings=reading.warnings,
        variables=values,
        dbt_project=dbt_project,
        translator=fresh_translator(translator),
        imported=moment.imported,
    )
    return _without_doubles(loaded)


def _without_doubles(loaded: LoadedProject) -> LoadedProject:
    """Return a project without the sources that nothing reads and that have a node's asset key.

    Such a source is the node's table as another target or engine reads it, and Dagster has no asset for it.
    """
    graph = loaded.project.graph
    unread = [uid for uid in graph.sources if not graph.children[uid] and uid not in graph.tests_about]
    keys = loaded.keys.by_unique_id if unread else {}
    nodes = {keys[uid] for uid in graph.nodes} if unread else set()
    doubles = {uid for uid in unread if keys[uid] in nodes}
    if not doubles:
        return loaded
    kept = replace(graph, sources={uid: source for uid, source in graph.sources.items() if uid not in doubles})
    return replace(loaded, project=replace(loaded.project, graph=kept))


def read_code(  # noqa: PLR0913 (what code consists of)
    dbt_project: DbtProject,
    manifest: Mapping[str, Any],
    moment: Moment,
    selection: Selection | None = None,
    cache: MutableMapping[str, str] | None = None,
    *,
    checksums: Mapping[str, str] | None = None,
) -> Fingerprinter:
    """Return what tells the fingerprints of a manifest: the same for the plan and for what dbt read in a run.

    `moment` is what the code consists of beside it. `checksums` are those of the seed files, where they were taken before.
    """
    if checksums is None:
        checksums = dict(seed_checksums(dbt_project.project_dir, manifest))
    forms = cache if cache is not None else {}
    return Fingerprinter(
        manifest,
        moment.surroundings,
        cache=forms,
        seed_checksums=checksums,
        seed_columns=lambda uid: seed_columns(dbt_project.project_dir, manifest, uid, forms),
        built=(selection or Selection()).resolve(manifest, dbt_project),
        imported=moment.texts,
    )


def source_policy(loaded: LoadedProject, source: Source) -> SourcePolicy:
    """Return a source's policy; the default for a node of another project."""
    return loaded.source_policies.get(source.unique_id) or SourcePolicy()
