"""A dbt project as this package sees it: manifest, graph, policies, fingerprints and asset keys, read again when they change."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
import yaml
from click import unstyle
from dagster_dbt import DbtCliResource, DbtProject

from dagster_sao.core.errors import DagsterSaoError, InvalidProjectError
from dagster_sao.core.expiry import expiry_warnings, with_expiry
from dagster_sao.core.fingerprint import Fingerprinter, Variables
from dagster_sao.core.graph import Source, check_manifest_version
from dagster_sao.core.policy import SourcePolicy, read_policy, read_source_policy, read_test_interval
from dagster_sao.core.project import Project
from dagster_sao.core.versions import digest
from dagster_sao.orchestration.private import get_asset_check_key_for_test, select_unique_ids, using_dagster_dev
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.session import default_target

_LONGEST_SENTENCE = 600
_PARSED_VARIABLE = "DAGSTER_SAO_PARSED_MANIFEST"
_Stamp = tuple[int, int, int]
"""A file's inode, size and modification time in nanoseconds."""
_PROCESS_STARTED_AT = time.time()
_CACHE_FILE = "dagster_sao_normal_forms.json"
_LARGE_SEED_CHECKSUM = "path"
# Longer than dbt's process waits for a processor or a disk between two parts of a manifest.
_WRITING_SECONDS = 1.0
_WATCHED_PATHS = (
    "model-paths",
    "macro-paths",
    "seed-paths",
    "snapshot-paths",
    "test-paths",
    "analysis-paths",
    "function-paths",
)
_WATCHED_DEFAULTS = {
    "model-paths": ["models"],
    "macro-paths": ["macros"],
    "seed-paths": ["seeds"],
    "snapshot-paths": ["snapshots"],
}


class Translator(Protocol):
    """What of a DagsterDbtTranslator is needed here."""

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        """Return the spec of a dbt resource."""


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
    warnings: tuple[str, ...]
    variables: Variables
    dbt_project: DbtProject
    translator: Translator

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
            uid: get_asset_check_key_for_test(self.manifest, self.translator, uid, self.dbt_project)  # type: ignore[arg-type]
            for uid in self.project.graph.tests
        }
        return {uid: key for uid, key in found.items() if key is not None}

    def spec(self, unique_id: str) -> dg.AssetSpec:
        """Return the asset spec of a node or source."""
        return self.translator.get_asset_spec(self.manifest, unique_id, self.dbt_project)


class OrchestratedProject:
    """A dbt project in this process. Shared by the assets, the sensors and the conditions of a code location."""

    def __init__(  # noqa: PLR0913 (what a project consists of)
        self,
        dbt_project: DbtProject,
        translator: Translator,
        *,
        variables: Mapping[str, Any] | None = None,
        selection: Selection | None = None,
        loaded_by_dagster: Iterable[dg.AssetKey] = (),
        probe_target: str | None = None,
        environment: str = "",
    ) -> None:
        """Read nothing yet.

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
        self._parsed_stamp: object = None

    @property
    def name(self) -> str:
        """The dbt project's name."""
        return self.dbt_project.name

    @property
    def state_name(self) -> str:
        """What tells the state of this project and environment from that of others."""
        return state_name(self.name, self.environment)

    def variant(self, target: str | None, variables: Mapping[str, Any]) -> OrchestratedProject:
        """Return this project with another target or other variables, parsed for them: itself where they are its own.

        Another target is another environment, with a state of its own. Raises InvalidProjectError when dbt cannot parse it.
        """
        given = {**self.variables, **variables}
        is_other_target = target is not None and target not in (self.dbt_project.target, self._default_target())
        if not is_other_target and given == self.variables:
            return self
        own = self.dbt_project
        target = target if is_other_target else own.target
        key = digest([target or "", json.dumps(given, sort_keys=True, default=str)])
        with self._lock:
            if key not in self._variants:
                dbt_project = DbtProject(
                    project_dir=own.project_dir,
                    target_path=own.target_path / "dagster_sao" / key,
                    profiles_dir=own.profiles_dir,
                    profile=own.profile,
                    target=target,
                )
                self._variants[key] = OrchestratedProject(
                    dbt_project,
                    self._translator,
                    variables=given,
                    selection=self.selection,
                    loaded_by_dagster=self.loaded_by_dagster,
                    probe_target=target if is_other_target else self.probe_target,
                    environment=str(target) if is_other_target else self.environment,
                )
            variant = self._variants[key]
            _parse_if_stale(variant.dbt_project, given, newer_than=own.manifest_path)
            return variant

    def _default_target(self) -> str | None:
        """Return the target of a project that names none: the profile's."""
        own = self.dbt_project
        return own.target or default_target(own.project_dir, own.profiles_dir, own.profile)

    def load(self) -> LoadedProject:
        """Return what the manifest says, read again if the file changed.

        Raises InvalidProjectError or InvalidPolicyError when it cannot be used.
        """
        with self._lock:
            stamp = _stamp(self.dbt_project.manifest_path)
            if self._loaded is None or stamp != self._manifest_stamp:
                manifest = read_manifest(self.dbt_project.manifest_path)
                self._loaded = load_manifest(
                    self.dbt_project, manifest, self._translator, variables=self.variables, selection=self.selection
                )
                self._manifest_stamp = stamp
            return self._loaded

    def refresh(self, log: Any) -> LoadedProject:  # noqa: ANN401 (a logger, Dagster's or Python's)
        """Return what the manifest says; under `dagster dev`, parse the project first if its files changed.

        A project that cannot be parsed keeps its last manifest, with one warning in `log`.
        """
        with self._lock:
            before = self._loaded
            try:
                self._parse_if_edited()
                return self.load()
            except Exception as error:
                if before is None:
                    raise
                log.warning(
                    f"The dbt project {self.name} cannot be read, so its last manifest stays in use: {sentence(error)}"
                )
                return before

    def code_version(self, unique_id: str) -> str | None:
        """Return the digest of a node's fingerprint as it was last loaded, None for what is no node."""
        fingerprint = (self._loaded or self.load()).project.fingerprints.get(unique_id)
        return fingerprint.digest if fingerprint else None

    def _parse_if_edited(self) -> None:
        if not using_dagster_dev():
            return
        stamp = tuple(_watched_files(self.dbt_project))
        is_first = self._parsed_stamp is None
        edited = not _is_newest(self.dbt_project.manifest_path, stamp) if is_first else stamp != self._parsed_stamp
        self._parsed_stamp = stamp
        if edited:
            self.dbt_project.preparer.prepare(self.dbt_project)


def state_name(project_name: str, environment: str) -> str:
    """Return what tells the state of a project and environment from that of others."""
    return f"{project_name}.{environment}" if environment else project_name


def ensure_manifest(dbt_project: DbtProject) -> None:
    """Write the manifest when there is none; under `dagster dev`, once per code server and when a file was edited.

    Raises InvalidProjectError when dbt cannot parse the project.
    """
    path = dbt_project.manifest_path
    if not path.exists() or (using_dagster_dev() and not _is_parsed(dbt_project)):
        prepare_manifest(dbt_project)
    # Runs are children of the code server, with its environment: they need not parse again what it parsed.
    os.environ[_PARSED_VARIABLE] = str(path.resolve())


def prepare_manifest(dbt_project: DbtProject) -> None:
    """Write the manifest. Raises InvalidProjectError when dbt cannot parse the project."""
    try:
        dbt_project.preparer.prepare(dbt_project)
    except Exception as error:
        msg = f"dbt cannot parse the project in {dbt_project.project_dir}: {sentence(error)}"
        raise InvalidProjectError(msg) from error


def newer_than_manifest(dbt_project: DbtProject) -> str | None:
    """Return a file of the project that was written after its manifest, None when the manifest is the newest.

    Without a manifest, all files are newer.
    """
    parsed = _stamp(dbt_project.manifest_path)
    for name, stamp in _watched_files(dbt_project):
        if stamp is not None and (parsed is None or stamp[2] > parsed[2]):
            return name
    return None


def _parse_if_stale(dbt_project: DbtProject, variables: Mapping[str, Any], *, newer_than: Path) -> None:
    """Write the manifest of a variant unless it is newer than the project's files and its own manifest."""
    stamp = _stamp(newer_than)
    files = [*_watched_files(dbt_project), (str(newer_than), stamp)]
    if _is_newest(dbt_project.manifest_path, files):
        return
    arguments = ["parse", "--quiet", "--vars", json.dumps(dict(variables))]
    try:
        DbtCliResource(dbt_project).cli(arguments, target_path=dbt_project.target_path).wait()
    except Exception as error:
        msg = f"dbt cannot parse the project in {dbt_project.project_dir} for this run: {sentence(error)}"
        raise InvalidProjectError(msg) from error


def _is_parsed(dbt_project: DbtProject) -> bool:
    """Whether the manifest was written by this code server and no file is newer."""
    parsed_at = dbt_project.manifest_path.stat().st_mtime
    if parsed_at >= _PROCESS_STARTED_AT:
        return True
    if os.environ.get(_PARSED_VARIABLE) != str(dbt_project.manifest_path.resolve()):
        return False
    return _is_newest(dbt_project.manifest_path, _watched_files(dbt_project))


def _is_newest(manifest_path: Path, files: Iterable[tuple[str, _Stamp | None]]) -> bool:
    """Whether no file was written after the manifest."""
    parsed = _stamp(manifest_path)
    return parsed is not None and all(stamp is None or stamp[2] <= parsed[2] for _, stamp in files)


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
    translator: Translator,
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
        stars=frozenset(uid for uid, node in graph.nodes.items() if fingerprinter.selects_star(node)),
        binds_views=traits_of(graph.adapter_type).binds_views,
        manifest_id=str(manifest["metadata"].get("invocation_id") or ""),
        untracked_intervals={uid: interval for uid, (interval, _) in tests.items() if interval is not None},
    )
    if len(cache) > known:
        _write_cache(_cache_path(dbt_project), cache)
    return LoadedProject(
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
            )
            for warning in warnings
        ),
        variables=values,
        dbt_project=dbt_project,
        translator=translator,
    )


def read_code(
    dbt_project: DbtProject,
    manifest: Mapping[str, Any],
    variables: Variables,
    selection: Selection | None = None,
    cache: MutableMapping[str, str] | None = None,
) -> Fingerprinter:
    """Return what tells the fingerprints of a manifest: the same for the plan and for what dbt read in a run."""
    return Fingerprinter(
        manifest,
        variables,
        os.environ,
        cache=cache,
        seed_checksums=dict(_large_seeds(dbt_project.project_dir, manifest)),
        built=(selection or Selection()).resolve(manifest, dbt_project),
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
    return Variables(command_line=command_line, project=root.get("vars") or {}, packages=packages)


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


def _large_seeds(project_dir: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    # Of a seed over 1 MiB dbt records the path in place of a checksum, and so never sees it change.
    for unique_id, props in manifest["nodes"].items():
        if props["resource_type"] == "seed" and (props.get("checksum") or {}).get("name") == _LARGE_SEED_CHECKSUM:
            path = Path(props.get("root_path") or project_dir) / props["original_file_path"]
            if path.exists():
                with path.open("rb") as file:
                    hashed = hashlib.sha256()
                    for block in iter(lambda: file.read(1 << 20), b""):
                        hashed.update(block)
                yield unique_id, hashed.hexdigest()


def _stamp(path: Path) -> _Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def profile_stamp(dbt_project: DbtProject) -> _Stamp | None:
    """Return what changes when the file with dbt's profiles is written."""
    return _stamp(dbt_project.profiles_dir / "profiles.yml")


def _watched_files(dbt_project: DbtProject) -> Iterator[tuple[str, _Stamp | None]]:
    """Yield the files that a parse reads, each with what changes when it is written."""
    root = dbt_project.project_dir
    settings = _read_yaml(root / "dbt_project.yml")
    for name in ("dbt_project.yml", "packages.yml", "dependencies.yml", "selectors.yml"):
        yield name, _stamp(root / name)
    yield "profiles.yml", profile_stamp(dbt_project)
    for setting in _WATCHED_PATHS:
        for folder in settings.get(setting) or _WATCHED_DEFAULTS.get(setting) or ():
            for path in sorted((root / folder).rglob("*")):
                if path.is_file():
                    yield str(path), _stamp(path)


def known_forms(dbt_project: DbtProject) -> dict[str, str]:
    """Return the normal forms of code, by content, that were computed before for this project."""
    try:
        cache = json.loads(_cache_path(dbt_project).read_bytes())
    except (OSError, ValueError):
        return {}
    return cache if isinstance(cache, dict) else {}


def _cache_path(dbt_project: DbtProject) -> Path:
    return dbt_project.manifest_path.parent / _CACHE_FILE


def _write_cache(path: Path, cache: Mapping[str, str]) -> None:
    # A cache that cannot be written only costs time.
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(cache))
        temporary.replace(path)
    except OSError:
        return


def sentence(error: BaseException) -> str:
    """Return an error as one line for a user: our own errors as they are, of others what dbt or the system said."""
    text = unstyle(str(error))  # dbt's colours are for a terminal
    if isinstance(error, DagsterSaoError):
        return text
    marker = "Errors parsed from dbt logs:"
    if marker in text:
        text = text.split(marker, 1)[1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines)[:_LONGEST_SENTENCE] or type(error).__name__
