"""A dbt project as this package sees it: manifest, graph, policies, fingerprints and asset keys, read again when they change."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster_dbt import DagsterDbtTranslator, DbtProject

from dagster_sao.core.code.fingerprinter import Fingerprinter
from dagster_sao.core.code.known_relations import unknown_relation_warnings
from dagster_sao.core.code.variables import Variables
from dagster_sao.core.errors import InvalidProjectError
from dagster_sao.core.manifest.expiry import expiry_warnings, with_expiry
from dagster_sao.core.manifest.graph import Source
from dagster_sao.core.manifest.policy import (
    SettingWarning,
    SourcePolicy,
    read_policy,
    read_source_policy,
    read_test_interval,
)
from dagster_sao.core.manifest.read_graph import check_manifest_version
from dagster_sao.core.project import Project
from dagster_sao.orchestration.events.door import learn_secrets
from dagster_sao.orchestration.files import write_json
from dagster_sao.orchestration.messages import sentence as sentence  # noqa: PLC0414 (others import it from here)
from dagster_sao.orchestration.private.dagster_internals import (
    fresh_translator,
    get_asset_check_key_for_test,
    select_unique_ids,
)
from dagster_sao.orchestration.project.dbt_arguments import DbtSettings, project_with, with_other
from dagster_sao.orchestration.project.parsing import (
    current_inputs,
    ensure_manifest,
    input_files,
    is_ours_to_parse,
    read_note,
)
from dagster_sao.orchestration.project.seed_files import large_seed_checksums, seed_columns
from dagster_sao.orchestration.project.surroundings import imported_modules, surroundings_of, warehouse_of
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.dbt_private.environment import dbt_version
from dagster_sao.warehouse.errors import WarehouseError

_Stamp = tuple[int, int, int]
"""A file's inode, size and modification time in nanoseconds."""
_CACHE_FILE = "dagster_sao_normal_forms.json"
_READS_VARS_YML = (1, 12)
# Longer than dbt's process waits for a processor or a disk between two parts of a manifest.
_WRITING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a dbt project becomes assets, in dbt's own syntax."""

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
    """One manifest, read. What it says stays as it is when dbt writes another: one look at a project uses one of these."""

    manifest: Mapping[str, Any]
    project: Project
    source_policies: Mapping[str, SourcePolicy]
    warnings: tuple[SettingWarning, ...]
    variables: Variables
    dbt_project: DbtProject
    translator: DagsterDbtTranslator
    """Of this manifest alone, so that what it keeps of the manifest ends with it."""

    @cached_property
    def keys(self) -> AssetKeys:
        """The asset keys of the project's nodes and sources."""
        graph = self.project.graph
        keys = {uid: self.spec(uid).key for uid in (*graph.nodes, *graph.sources)}
        return AssetKeys(keys, frozenset(graph.nodes))

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
        """What tells the target's warehouse from others; empty where the profile cannot be read, as whatever asks it will say."""
        try:
            return warehouse_of(self.dbt_project, self.variables)
        except WarehouseError:
            return ""

    def with_files(self, code: str) -> LoadedProject:
        """Return this manifest beside the files of the project as they are: itself where these are the same."""
        return self if self.project.files == code else replace(self, project=replace(self.project, files=code))

    def spec(self, unique_id: str) -> dg.AssetSpec:
        """Return the asset spec of a node or source."""
        return self.translator.get_asset_spec(self.manifest, unique_id, self.dbt_project)


class OrchestratedProject:
    """A dbt project in this process. Shared by the assets, the sensors and the conditions of a code location."""

    def __init__(  # noqa: PLR0913 (what a project consists of)
        self,
        dbt_project: DbtProject,
        translator: DagsterDbtTranslator,
        *,
        variables: Mapping[str, Any] | None = None,
        selection: Selection | None = None,
        loaded_by_dagster: Iterable[dg.AssetKey] = (),
        probe_target: str | None = None,
        environment: str = "",
    ) -> None:
        """Read nothing of the project yet, only which secrets it has.

        `selection` is what of the project becomes assets; the rest is built by somebody else, so it counts as sources.
        `variables` are those that runs pass to dbt with `--vars`. `loaded_by_dagster` are the assets of sources that an
        asset materializes: their state is what that asset records, and they are not probed. `probe_target` is the
        target of the profile that sources are probed with, by default the one that dbt builds with. `environment` names
        the target of a variant whose state is its own.
        """
        self.dbt_project = dbt_project
        self.loaded_by_dagster = frozenset(loaded_by_dagster)
        self.probe_target = probe_target or dbt_project.target
        self.variables = dict(variables or {})
        self.selection = selection or Selection()
        self.environment = environment
        self._variants: dict[str, OrchestratedProject] = {}
        self._translator = translator
        self._lock = threading.RLock()
        self._loaded: LoadedProject | None = None
        self._manifest_stamp: object = None
        self._looked: object = None
        self._reported = ""
        learn_secrets(dbt_project, self.variables)

    @property
    def name(self) -> str:
        """The dbt project's name."""
        return self.dbt_project.name

    @property
    def translator(self) -> DagsterDbtTranslator:
        """How dbt resources become assets, as the user gave it. A manifest is translated by a copy of its own."""
        return self._translator

    @property
    def state_name(self) -> str:
        """What tells the state of this project and environment from that of others."""
        return state_name(self.name, self.environment)

    def variant(self, target: str | None, variables: Mapping[str, Any]) -> OrchestratedProject:
        """Return this project with another target or other variables, parsed for them: itself where they are its own.

        Another target is another environment, with a state of its own. Raises InvalidProjectError when dbt cannot parse it.
        """
        given = {**self.variables, **variables}
        own = DbtSettings(given, self.dbt_project.target, self.dbt_project.profile)
        settings, environment = with_other(self.dbt_project, own, target=target, profile=None)
        if not environment and given == self.variables:
            return self
        dbt_project = project_with(self.dbt_project, settings)
        key = os.fspath(dbt_project.target_path)
        with self._lock:
            if key not in self._variants:
                self._variants[key] = OrchestratedProject(
                    dbt_project,
                    self._translator,
                    variables=given,
                    selection=self.selection,
                    loaded_by_dagster=self.loaded_by_dagster,
                    probe_target=settings.target if environment else self.probe_target,
                    environment=environment or self.environment,
                )
            ensure_manifest(dbt_project, given)
            return self._variants[key]

    def load(self) -> LoadedProject:
        """Return what the manifest says, read again if the manifest or the values of variables changed.

        Raises InvalidProjectError or InvalidPolicyError when it cannot be used.
        """
        learn_secrets(self.dbt_project, self.variables)
        with self._lock:
            files = input_files(self.dbt_project)
            stamp = _stamp(self.dbt_project.manifest_path), files.settings
            if self._loaded is None or stamp != self._manifest_stamp:
                manifest = read_manifest(self.dbt_project.manifest_path)
                self._loaded = load_manifest(
                    self.dbt_project, manifest, self._translator, variables=self.variables, selection=self.selection
                )
                self._manifest_stamp = stamp
            self._loaded = self._loaded.with_files(files.code)
            return self._loaded

    def refresh(self, log: Any) -> LoadedProject:  # noqa: ANN401 (a logger, Dagster's or Python's)
        """Return what the manifest says; where parsing is ours, parse the project first if what a parse reads changed.

        A project that cannot be parsed keeps its last manifest, with one warning in `log`. So does one that others parse.
        """
        with self._lock:
            before = self._loaded
            try:
                self._parse_if_edited()
                loaded = self.load()
            except Exception as error:
                if before is None:
                    raise
                log.warning(
                    f"The dbt project {self.name} cannot be read, so its last manifest stays in use: {sentence(error)}"
                )
                return before
            self._report_unparsed(log)
            return loaded

    def code_version(self, unique_id: str) -> str | None:
        """Return the digest of a node's fingerprint as it was last loaded, None for what is no node."""
        fingerprint = (self._loaded or self.load()).project.fingerprints.get(unique_id)
        return fingerprint.digest if fingerprint else None

    def _parse_if_edited(self) -> None:
        if not is_ours_to_parse(self.dbt_project):
            return
        # What cannot be parsed is not tried again until it changes. Nor do two processes with other values take turns.
        is_foreign = read_note(self.dbt_project) is None
        inputs = current_inputs(self.dbt_project, self.variables)
        looked = inputs.files.digests, inputs.values, is_foreign and _stamp(self.dbt_project.manifest_path)
        if looked != self._looked:
            self._looked = looked
            ensure_manifest(self.dbt_project, self.variables)

    def _report_unparsed(self, log: Any) -> None:  # noqa: ANN401
        """Warn once of each change that the manifest does not know, where others parse."""
        if is_ours_to_parse(self.dbt_project):
            return
        note = read_note(self.dbt_project)
        changed = note.difference(current_inputs(self.dbt_project, self.variables)) if note is not None else ""
        if changed and changed != self._reported:
            log.warning(
                f"{changed} after the manifest of the dbt project {self.name} was parsed, so the plan does not know it."
                " Run `dbt parse` when you deploy."
            )
        self._reported = changed


def state_name(project_name: str, environment: str) -> str:
    """Return what tells the state of a project and environment from that of others."""
    return f"{project_name}.{environment}" if environment else project_name


def read_manifest(path: Path) -> Mapping[str, Any]:
    """Return the manifest at `path`. Raises InvalidProjectError when there is none that can be read."""
    try:
        manifest = _whole_json(path)
    except FileNotFoundError:
        msg = f"There is no manifest at {path}. Run `dbt parse` in the dbt project, or call `project.prepare_if_dev()`."
        raise InvalidProjectError(msg) from None
    except (OSError, ValueError) as error:
        msg = f"The manifest at {path} cannot be read ({error}). Run `dbt parse` to write a new one."
        raise InvalidProjectError(msg) from None
    if not isinstance(manifest, dict):
        msg = f"The manifest at {path} is no JSON object. Run `dbt parse` to write a new one."
        raise InvalidProjectError(msg)
    check_manifest_version(manifest)
    return manifest


def _whole_json(path: Path) -> Any:  # noqa: ANN401
    """Return the content of a file that dbt may be writing: not in one piece, and for a large project not in an instant."""
    while True:
        stamp = _stamp(path)
        try:
            return json.loads(path.read_bytes())
        except ValueError:
            time.sleep(_WRITING_SECONDS)
            if _stamp(path) == stamp:
                raise


def load_manifest(
    dbt_project: DbtProject,
    manifest: Mapping[str, Any],
    translator: DagsterDbtTranslator,
    *,
    variables: Mapping[str, Any],
    selection: Selection,
) -> LoadedProject:
    """Return what a manifest says: graph, policies, fingerprints.

    Raises InvalidProjectError or InvalidPolicyError, naming the node and its file.
    """
    values = read_variables(dbt_project.project_dir, variables)
    cache = known_forms(dbt_project)
    known = len(cache)
    fingerprinter = read_code(dbt_project, manifest, values, selection, cache)
    graph = fingerprinter.graph
    readings = {uid: read_policy(manifest["nodes"][uid]) for uid in graph.nodes}
    sources = {
        uid: read_source_policy(source.definition)
        for uid, source in graph.sources.items()
        if not source.is_external_node
    }
    source_policies = {uid: policy for uid, (policy, _) in sources.items()}
    policies = with_expiry({uid: reading.policy for uid, reading in readings.items()}, graph, source_policies)
    tests = {uid: read_test_interval(manifest["nodes"][uid]) for uid in graph.tests if uid in manifest["nodes"]}
    project = Project(
        graph=graph,
        fingerprints=fingerprinter.fingerprints(),
        policies=policies,
        selects_star=frozenset(uid for uid, node in graph.nodes.items() if fingerprinter.selects_star(node)),
        traits=traits_of(graph.adapter_type).relations,
        manifest_id=str(manifest["metadata"].get("invocation_id") or ""),
        untracked_intervals={uid: interval for uid, (interval, _) in tests.items() if interval is not None},
        value=fingerprinter.value_now,
    )
    if len(cache) > known:
        # It only saves time.
        with suppress(OSError):
            write_json(_cache_path(dbt_project), cache)
    loaded = LoadedProject(
        manifest=manifest,
        project=project,
        source_policies=source_policies,
        warnings=tuple(
            warning
            for warnings in (
                *(r.warnings for r in readings.values()),
                *(w for _, w in sources.values()),
                *(w for _, w in tests.values()),
                expiry_warnings(policies, graph),
                unknown_relation_warnings(fingerprinter, policies),
            )
            for warning in warnings
        ),
        variables=values,
        dbt_project=dbt_project,
        translator=fresh_translator(translator),
    )
    return _without_doubles(loaded)


def _without_doubles(loaded: LoadedProject) -> LoadedProject:
    """Return a project without the sources that nothing reads and that have a node's asset key.

    They are that node's table as another target or engine reads it, and Dagster knows nothing of them.
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
    variables: Variables,
    selection: Selection | None = None,
    cache: MutableMapping[str, str] | None = None,
    *,
    seed_checksums: Mapping[str, str] | None = None,
) -> Fingerprinter:
    """Return what tells the fingerprints of a manifest: the same for the plan and for what dbt read in a run.

    `seed_checksums` are those of large seed files, where they were taken before.
    """
    if seed_checksums is None:
        seed_checksums = dict(large_seed_checksums(dbt_project.project_dir, manifest))
    forms = cache if cache is not None else {}
    return Fingerprinter(
        manifest,
        surroundings_of(dbt_project, _read_yaml(dbt_project.project_dir / "dbt_project.yml"), variables),
        cache=forms,
        seed_checksums=seed_checksums,
        seed_columns=lambda uid: seed_columns(dbt_project.project_dir, manifest, uid, forms),
        built=(selection or Selection()).resolve(manifest, dbt_project),
        imported=imported_modules(dbt_project, variables).digest,
    )


def source_policy(loaded: LoadedProject, source: Source) -> SourcePolicy:
    """Return a source's policy; the default for a node of another project."""
    return loaded.source_policies.get(source.unique_id) or SourcePolicy()


def read_variables(project_dir: Path, command_line: Mapping[str, Any]) -> Variables:
    """Return the variables that a dbt project and its packages set, beside those of the command line.

    Raises InvalidProjectError when there is no project that can be read.
    """
    root = _read_yaml(project_dir / "dbt_project.yml")
    packages_dir = project_dir / str(root.get("packages-install-path") or "dbt_packages")
    packages = {}
    for path in sorted(packages_dir.glob("*/dbt_project.yml")) if packages_dir.is_dir() else ():
        package = _read_yaml(path)
        packages[str(package.get("name"))] = package.get("vars") or {}
    return Variables(command_line=command_line, project=_variables_of_root(project_dir, root), packages=packages)


def _variables_of_root(project_dir: Path, root: Mapping[str, Any]) -> Mapping[str, Any]:
    # dbt takes one of the two, and refuses both: https://docs.getdbt.com/docs/build/project-variables
    path = project_dir / "vars.yml"
    if dbt_version() >= _READS_VARS_YML and path.is_file():
        return _read_yaml(path).get("vars") or root.get("vars") or {}
    return root.get("vars") or {}


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"There is no dbt project in {path.parent}: it has no {path.name}."
        raise InvalidProjectError(msg) from None
    except (OSError, yaml.YAMLError) as error:
        msg = f"{path} cannot be read: {sentence(error)}"
        raise InvalidProjectError(msg) from None
    return content if isinstance(content, dict) else {}


def _stamp(path: Path) -> _Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def profile_stamp(dbt_project: DbtProject) -> _Stamp | None:
    """Return what changes when the file with dbt's profiles is written."""
    return _stamp(dbt_project.profiles_dir / "profiles.yml")


def known_forms(dbt_project: DbtProject) -> dict[str, str]:
    """Return the normal forms of code, by content, that were computed before for this project."""
    try:
        cache = json.loads(_cache_path(dbt_project).read_bytes())
    except (OSError, ValueError):
        return {}
    return cache if isinstance(cache, dict) else {}


def _cache_path(dbt_project: DbtProject) -> Path:
    return dbt_project.manifest_path.parent / _CACHE_FILE
