"""A dbt project with its place in Dagster: its manifest is read again when it changes, and variants are other targets."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtProject

from dagster_sao.orchestration.events.door import learn_secrets
from dagster_sao.orchestration.messages import sentence
from dagster_sao.orchestration.project.dbt_arguments import DbtSettings, flags_in, project_with, with_other
from dagster_sao.orchestration.project.loaded import LoadedProject, Selection, load_manifest
from dagster_sao.orchestration.project.parsing import (
    current_inputs,
    ensure_manifest,
    input_files,
    is_ours_to_parse,
    read_note,
    refuse_other_target,
)
from dagster_sao.orchestration.project.read_files import read_manifest, stamp_of


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
        dbt_args: Sequence[Any] = ("build",),
    ) -> None:
        """Read nothing of the project yet, only which secrets it has.

        `selection` is what of the project becomes assets; the rest is built by somebody else, so it counts as sources.
        `variables` are those that runs pass to dbt with `--vars`. `loaded_by_dagster` are the assets of sources that an
        asset materializes: their state is what that asset records, and they are not probed. `probe_target` is the
        target of the profile that sources are probed with, by default the one that dbt builds with. `environment` names
        the target of a variant whose state is its own. `dbt_args` is the dbt command of its runs, where the definitions
        have it.
        """
        self.dbt_project = dbt_project
        self.loaded_by_dagster = frozenset(loaded_by_dagster)
        self.probe_target = probe_target or dbt_project.target
        self.variables = dict(variables or {})
        self.selection = selection or Selection()
        self.environment = environment
        self.dbt_args = tuple(dbt_args)
        self._variants: dict[str, OrchestratedProject] = {}
        self._translator = translator
        self._lock = threading.RLock()
        self._loaded: LoadedProject | None = None
        self._manifest_stamp: object = None
        self._looked: object = None
        self._reported = ""
        self._parse_problem = self._load_problem = ""
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
        """The name of the state of this project and environment: no other has it."""
        return state_name(self.kept_as, self.environment)

    @property
    def kept_as(self) -> str:
        """The name of its state: the project's, below what is put before its asset keys.

        So the state of another project of this name, or of this one in another code location, is another.
        """
        return "/".join((*(self._loaded or self.load()).key_prefix, self.name))

    @property
    def freshness_sensor_name(self) -> str:
        """The name of the sensor that probes its sources."""
        return f"{self.name}_freshness_sensor"

    @property
    def automation_sensor_name(self) -> str:
        """The name of the sensor that requests its runs."""
        return f"{self.name}_automation_sensor"

    def variant(self, target: str | None, variables: Mapping[str, Any]) -> OrchestratedProject:
        """Return this project with another target or other variables, parsed for them: itself where it has them already.

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
                    dbt_args=self.dbt_args,
                )
            ensure_manifest(dbt_project, given)
            return self._variants[key]

    def load(self) -> LoadedProject:
        """Return the manifest, read again if it, the profile, the values of variables or imported modules changed.

        Raises InvalidProjectError or InvalidPolicyError when it cannot be used.
        """
        learn_secrets(self.dbt_project, self.variables)
        with self._lock:
            files = input_files(self.dbt_project)
            stamp = stamp_of(self.dbt_project.manifest_path), files.settings
            if self._loaded is None or stamp != self._manifest_stamp or self._loaded.has_other_modules:
                refuse_other_target(self.dbt_project)
                manifest = read_manifest(self.dbt_project.manifest_path)
                self._loaded = load_manifest(
                    self.dbt_project,
                    manifest,
                    self._translator,
                    variables=self.variables,
                    selection=self.selection,
                    flags=flags_in(self.dbt_args),
                )
                self._manifest_stamp = stamp
            self._loaded = self._loaded.with_files(files.code)
            return self._loaded

    def refresh(self, log: Any) -> LoadedProject:  # noqa: ANN401 (a logger, Dagster's or Python's)
        """Return the manifest; where parsing is ours, parse the project first if the inputs of a parse changed.

        A project that cannot be parsed keeps its last manifest, with one warning in `log`. So does one that others parse.
        """
        with self._lock:
            before, self._load_problem = self._loaded, ""
            try:
                self._parse_if_edited()
                loaded = self.load()
            except Exception as error:
                if before is None:
                    raise
                self._load_problem = sentence(error)
                log.warning(
                    f"The dbt project {self.name} cannot be read, so its last manifest stays in use: {self._load_problem}"
                )
                return before
            self._report_unparsed(log)
            return loaded

    @property
    def unread(self) -> str:
        """Why the last refresh kept an earlier manifest; empty where the manifest in use is the project as it is."""
        return self._load_problem or self._parse_problem

    def code_version(self, unique_id: str) -> str | None:
        """Return the digest of a node's fingerprint as it was last loaded, None if there is no such node."""
        fingerprint = (self._loaded or self.load()).project.fingerprints.get(unique_id)
        return fingerprint.digest if fingerprint else None

    def _parse_if_edited(self) -> None:
        if not is_ours_to_parse(self.dbt_project):
            return
        # A project that cannot be parsed is not parsed again until it changes. Nor do two processes with other values take turns.
        is_foreign = read_note(self.dbt_project) is None
        inputs = current_inputs(self.dbt_project, self.variables)
        looked = inputs.files.digests, inputs.values, is_foreign and stamp_of(self.dbt_project.manifest_path)
        if looked != self._looked:
            self._looked = looked
            self._parse_problem = f"the dbt project {self.name} cannot be parsed"
            ensure_manifest(self.dbt_project, self.variables)
            self._parse_problem = ""

    def _report_unparsed(self, log: Any) -> None:  # noqa: ANN401
        """Warn once about each change that is not in the manifest, where others parse."""
        if is_ours_to_parse(self.dbt_project):
            return
        note = read_note(self.dbt_project)
        changed = note.difference(current_inputs(self.dbt_project, self.variables)) if note is not None else ""
        if changed and changed != self._reported:
            log.warning(
                f"{changed} after the manifest of the dbt project {self.name} was parsed, so the plan does not include it."
                " Run `dbt parse` when you deploy."
            )
        self._reported = changed


def state_name(project_name: str, environment: str) -> str:
    """Return the name of the state of a project and environment: no other has it."""
    return f"{project_name}.{environment}" if environment else project_name
