"""The component of a state-aware dbt project, for `defs.yaml`."""

# No `from __future__ import annotations` here: Dagster reads the annotations of a component at run time.
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
from dagster.components.resolved.context import ResolutionContext
from dagster.components.resolved.model import Resolver
from dagster.components.scaffold.scaffold import scaffold_with
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, DbtProject, DbtProjectComponent

from dagster_sao.orchestration.definitions.assembly import assemble, execute, orchestrate
from dagster_sao.orchestration.definitions.settings import StateAwareSettings
from dagster_sao.orchestration.definitions.translator import SpecMemory
from dagster_sao.orchestration.private.dagster_internals import (
    DbtProjectComponentScaffolder,
    DbtProjectManager,
    RemoteGitDbtProjectManager,
    forget_translations,
)
from dagster_sao.orchestration.project.dbt_arguments import settings_of
from dagster_sao.orchestration.project.loaded import Selection
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.parsing import is_stale, prepare_manifest
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, read_run_config


@scaffold_with(DbtProjectComponentScaffolder)
@dataclass
class StateAwareDbtProjectComponent(DbtProjectComponent):
    """Expose a dbt project as assets that are rebuilt only when their code or upstream data changed.

    Takes the attributes of `dagster_dbt.DbtProjectComponent`, and a block `state_aware`.

    Example:

        .. code-block:: yaml

            # defs.yaml

            type: dagster_sao.StateAwareDbtProjectComponent
            attributes:
              project: "{{ project_root }}/path/to/dbt_project"
              state_aware:
                sensors_enabled: true
                freshness_interval_seconds: 60
                jobs:
                  - {name: nightly, select: "tag:nightly", schedule: "0 2 * * *"}
    """

    state_aware: Annotated[
        StateAwareSettings,
        Resolver.default(
            description="How often the project's sensors run, which sources they do not probe, and the project's jobs.",
            examples=[{"sensors_enabled": True, "freshness_interval_seconds": 60}],
        ),
    ] = field(default_factory=StateAwareSettings)

    @property
    def config_cls(self) -> type[dg.Config] | None:
        """The config of a run: this package's, unless the user set `op_config_schema`."""
        return super().config_cls or StateAwareRunConfig

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        """Return the spec of a dbt resource, with condition."""
        with self._translation.of(manifest) as made:
            spec = super().get_asset_spec(manifest, unique_id, project)
            return made.state_aware(spec, self.get_resource_props(manifest, unique_id))

    def build_defs_from_state(self, context: dg.ComponentLoadContext, state_path: Path | None) -> dg.Definitions:
        """Return the assets, the sources, the two sensors and the jobs of the project."""
        # Templates in the arguments are values at run time; those that do not need a run have theirs now.
        vars(self)["_known_cli_args"] = [_resolved(arg, context.resolution_context) for arg in self.cli_args]
        return assemble(
            self._orchestrated_project,
            self.state_aware,
            lambda _: (
                super(StateAwareDbtProjectComponent, self).build_defs_from_state(context, state_path).assets or ()
            ),
            have_conditions=True,
            config=self.config_cls or dg.Config,
            runs_are_ours=self._runs_are_ours(),
        )

    def _runs_are_ours(self) -> bool:
        """Return whether runs do what this package expects: a subclass may change it, and an argument may depend on the run."""
        own, ours = type(self), StateAwareDbtProjectComponent
        are_known = not any("{{" in str(arg) for arg in self._known_cli_args)
        return are_known and own.execute is ours.execute and own.get_cli_args is ours.get_cli_args

    def execute(self, context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
        """Build what is to be built of the selected assets, and report the rest as reused."""
        yield from execute(
            context,
            dbt,
            self._orchestrated_project,
            self.state_aware,
            args=self.get_cli_args(context),
            config=read_run_config(context),
            include_metadata=self.include_metadata,
        )

    @cached_property
    def dbt_project(self) -> DbtProject:
        """The dbt project as its runs build it: with their variables, target and profile."""
        return self._orchestrated_project.dbt_project

    @cached_property
    def _orchestrated_project(self) -> OrchestratedProject:
        return orchestrate(
            self._given_project,
            self.translator,
            arguments=("cli_args", self._known_cli_args),
            others={"the `project`": settings_of(self._given_project)},
            selection=Selection(self.select, self.exclude, self.selector),
            probe_target=self.state_aware.probe_target,
        )

    @cached_property
    def _project_manager(self) -> DbtProjectManager:
        # dagster-dbt would run dbt in a copy, which an edit does not reach before the code location is loaded again.
        manager = super()._project_manager
        return (
            manager
            if isinstance(manager, RemoteGitDbtProjectManager)
            else _InPlace(self._given_project.name, lambda: self._orchestrated_project)
        )

    @cached_property
    def _given_project(self) -> DbtProject:
        return super()._project_manager.get_project(None)

    @cached_property
    def _translation(self) -> "_Translation":
        return _Translation(self.translator)

    @cached_property
    def _known_cli_args(self) -> list[Any]:
        return list(self.cli_args)


class _Translation:
    """Lets a component's translator keep the specs of one manifest only, where dagster-dbt would keep all for ever."""

    def __init__(self, translator: DagsterDbtTranslator) -> None:
        self._translator = translator
        self._lock = threading.RLock()
        self._manifest: Mapping[str, Any] | None = None
        self._made = SpecMemory()

    @contextmanager
    def of(self, manifest: Mapping[str, Any]) -> Iterator[SpecMemory]:
        # The specs of what is upstream are made within, and sensors tick in threads.
        with self._lock:
            if manifest is not self._manifest:
                forget_translations(self._translator)
                self._manifest = manifest
                self._made = SpecMemory()
            yield self._made


class _InPlace(DbtProjectManager):
    """A project that is parsed and built where it is."""

    def __init__(self, name: str, project: Callable[[], OrchestratedProject]) -> None:
        self._name = name
        self._project = project

    @property
    def defs_state_discriminator(self) -> str:
        """The identity of the project among others."""
        return self._name

    def sync(self, state_path: Path) -> None:
        """Parse the project, where that was not done."""
        del state_path
        project = self._project()
        if is_stale(project.dbt_project, project.variables):
            prepare_manifest(project.dbt_project, project.variables)

    def get_project(self, state_path: Path | None) -> DbtProject:
        """Return the project."""
        del state_path
        return self._project().dbt_project


def _resolved(value: Any, context: ResolutionContext) -> Any:  # noqa: ANN401 (an argument is text or a mapping)
    """Return an argument of dbt with its templates filled in, as far as they can be without a run."""
    if isinstance(value, dict):
        return {name: _resolved(one, context) for name, one in value.items()}
    try:
        return context.resolve_value(value)
    except Exception:  # noqa: BLE001 (what a template lacks, such as the partition of a run, raises errors of many kinds)
        return value
