"""A state-aware dbt project, driven from Python."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtProject

from dagster_sao.api.build import Listener, run_build
from dagster_sao.api.data_tests.answers import make_data_test_reports
from dagster_sao.api.data_tests.values import DataTestReports
from dagster_sao.api.doctor.examine import examine
from dagster_sao.api.doctor.findings import Findings, Patient
from dagster_sao.api.dry_run import DryRun, decide_everything, make_dry_run
from dagster_sao.api.errors import ConflictingOptionsError, DbtBuildFailed, NoInstanceError
from dagster_sao.api.explain.explanation import Explanation, explain_node
from dagster_sao.api.explain.explanation_of_tests import TestExplanation, explain_test
from dagster_sao.api.explain.named import find_named
from dagster_sao.api.explain.node_state import NodeState, NodeStates, node_state, node_states
from dagster_sao.api.explain.verdicts import TestState, test_state
from dagster_sao.api.instance import check_schema, open_instance
from dagster_sao.api.location import choose_project, dbt_project, project_definitions, state_aware_projects
from dagster_sao.api.request import BuildOptions, BuildRequest, Names, make_request, make_selection, with_build_options
from dagster_sao.api.results.values import BuildResults
from dagster_sao.api.sources import (
    Look,
    SourceNotices,
    SourceReports,
    ask_warehouse,
    notify_sources,
    source_reports,
)
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.arguments import with_checked_arguments
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.probed_sources import sources_above
from dagster_sao.orchestration.selection.resolve import (
    NodeSelection,
    StateMode,
    resolve_selection,
)
from dagster_sao.orchestration.state.contradictions import found_contradiction, trust_proofs
from dagster_sao.orchestration.state.event_log import event_log_state
from dagster_sao.orchestration.state.read_state import ProjectView, read_state, view_project
from dagster_sao.orchestration.state.resets import reset_nodes

if TYPE_CHECKING:
    from typing_extensions import Unpack

_LOG = logging.getLogger("dagster_sao")


class StateAwareProject:
    """Plan, build and explain the models of a dbt project, with the state that its sensors and jobs share.

    The state is in a Dagster instance: by default the one in DAGSTER_HOME. Builds are Dagster runs in this process,
    by the same code that runs in a deployment.

    Example:
        >>> project = StateAwareProject("path/to/dbt_project")  # doctest: +SKIP
        >>> print(project.plan(select="orders+"))  # doctest: +SKIP
        >>> results = project.build(select="orders+")  # doctest: +SKIP
        >>> results["model.shop.orders"].status  # doctest: +SKIP
        <NodeStatus.SUCCESS: 'success'>
    """

    @with_checked_arguments(ConflictingOptionsError)
    def __init__(  # noqa: PLR0913 (what a project consists of)
        self,
        project: DbtProject | Path | str = ".",
        *,
        instance: dg.DagsterInstance | None = None,
        profiles_dir: Path | str | None = None,
        profile: str | None = None,
        target: str | None = None,
        variables: Mapping[str, Any] | None = None,
        translator: DagsterDbtTranslator | None = None,
    ) -> None:
        """Read the dbt project, and parse it first if its files or variables changed since the last parse.

        Where the project also is in a Dagster code location, use `from_definitions`, or give the same `translator`: the
        state is that of the asset keys.

        Args:
            project: The folder of a dbt project, or a DbtProject.
            instance: The Dagster instance with the state, by default the one in DAGSTER_HOME.
            profiles_dir: The folder of `profiles.yml`; by default where dbt looks for it.
            profile: The profile, by default the one in DBT_PROFILE or the one that the project names.
            target: The target of the profile, by default the one in DBT_TARGET or the one that the profile names. Another
                profile or target is another environment, with a state of its own.
            variables: Values of `var()`, which override the project's.
            translator: How dbt resources become assets.

        Raises:
            InvalidProjectError: There is no dbt project, or dbt cannot parse it.
            InvalidPolicyError: A `freshness`, `state` or `meta.dagster_sao` setting has no meaning.
        """
        if not isinstance(project, DbtProject):
            project = dbt_project(project, profiles_dir=profiles_dir)
        definitions = project_definitions(
            project, profile=profile, target=target, variables=variables, translator=translator
        )
        self._start(definitions, None, instance, None, {})

    @classmethod
    def from_definitions(
        cls,
        definitions: dg.Definitions,
        *,
        name: str | None = None,
        instance: dg.DagsterInstance | None = None,
        target: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> StateAwareProject:
        """Return the state-aware dbt project that definitions hold, the one called `name` where they hold several.

        With another `target` than its own, it has the state of another environment.

        Raises InvalidProjectError when there is none, several and no name, or dbt cannot parse it.
        """
        self = cls.__new__(cls)
        self._start(definitions, name, instance, target, variables or {})
        return self

    def _start(
        self,
        definitions: dg.Definitions,
        name: str | None,
        instance: dg.DagsterInstance | None,
        target: str | None,
        variables: Mapping[str, Any],
    ) -> None:
        self._definitions = definitions
        self._variables = dict(variables)
        self._project = choose_project(state_aware_projects(definitions), name).variant(target, variables)
        self._given_instance = instance
        self._opened_instance: dg.DagsterInstance | None = None
        if instance is not None:
            check_schema(instance)

    @property
    def name(self) -> str:
        """The dbt project's name."""
        return self._project.name

    @property
    def orchestrated(self) -> OrchestratedProject:
        """The project as the sensors and the assets of the definitions know it."""
        return self._project

    @property
    def definitions(self) -> dg.Definitions:
        """The Dagster definitions that the project is part of."""
        return self._definitions

    @property
    def instance(self) -> dg.DagsterInstance:
        """The Dagster instance with the state. Raises NoInstanceError when there is none."""
        if self._given_instance is not None:
            return self._given_instance
        if self._opened_instance is None:
            self._opened_instance = open_instance()
        return self._opened_instance

    def close(self) -> None:
        """Close the instance, when it was opened here. `contextlib.closing` calls this."""
        if self._opened_instance is not None:
            self._opened_instance.dispose()
            self._opened_instance = None

    @with_build_options
    def plan(
        self,
        select: Names = (),
        exclude: Names = (),
        selector: str = "",
        *,
        state_mode: StateMode | str = StateMode.DBT,
        **options: Unpack[BuildOptions],
    ) -> DryRun:
        """Return what `build` with the same arguments would do now. Reads only.

        With `refresh_sources` the sources are probed, and the answer is not recorded; without, the plan is
        made from the recorded state, and its notes name the sources that were never probed.

        Raises:
            InvalidSelectionError: The selection is invalid.
            EmptySelectionError: It selects no node.
            ConflictingOptionsError: Options exclude each other.
            NoInstanceError: There is no Dagster instance.
        """
        request = make_request(select, exclude, selector, state_mode=state_mode, **options)
        return self.plan_request(request)

    def select(self, selection: NodeSelection, *, warn: Callable[[str], None] = _LOG.warning) -> set[str]:
        """Return the unique ids of the selected nodes; `warn` gets a sentence for each criterion that matches nothing.

        Raises InvalidSelectionError or EmptySelectionError.
        """
        return resolve_selection(self._project, self._project.load(), selection, warn=warn)

    def plan_request(self, request: BuildRequest) -> DryRun:
        """Return what a build with this request would do now."""
        return make_dry_run(self._project, self.instance, request)

    @with_build_options
    def build(
        self,
        select: Names = (),
        exclude: Names = (),
        selector: str = "",
        *,
        state_mode: StateMode | str = StateMode.DBT,
        raise_on_failure: bool = True,
        **options: Unpack[BuildOptions],
    ) -> BuildResults:
        """Build everything of a selection that is due, as a Dagster run in this process.

        Args:
            select: What to build, in dbt's selection syntax. Empty: everything.
            exclude: What to leave out, in dbt's selection syntax.
            selector: The name of a YAML selector, instead of `select` and `exclude`.
            state_mode: `dbt` or `semantic`: what counts as modified for `state:modified`.
            **options: The options of a run, see `dagster_sao.StateAwareRunConfig`.
            raise_on_failure: Whether a failure raises an error; otherwise the results show it.

        Returns:
            The result of each node and test, by unique id. `target/run_results.json` has the same for dbt's tools.

        Raises:
            DbtBuildFailed: A node or a test failed, or waits for one that failed earlier, and everything that could be
                built was. It carries the results.
            InvalidSelectionError: The selection is invalid.
            EmptySelectionError: It selects no node.
            ConflictingOptionsError: Options exclude each other.
            NoInstanceError: There is no Dagster instance.
        """
        request = make_request(select, exclude, selector, state_mode=state_mode, **options)
        self.select(request.selection)
        results = self.build_request(request)
        if raise_on_failure and not results.success:
            msg = f"Run {results.run_id} failed. {'; '.join(results.problems)}"
            raise DbtBuildFailed(msg, results)
        return results

    def build_request(
        self, request: BuildRequest, *, listener: Listener | None = None, log_level: str = "INFO"
    ) -> BuildResults:
        """Build as `request` says. `listener` gets the result of each node and asset check as soon as it is known."""
        return run_build(
            self._project,
            self._definitions,
            self.instance,
            request,
            variables=self._variables,
            listener=listener,
            log_level=log_level,
        )

    @with_checked_arguments(ConflictingOptionsError)
    def explain(self, name: str) -> Explanation | TestExplanation:
        """Return why a model, seed or snapshot was last built, or a test run, and the decision about it now.

        Raises UnknownNodeError, with the nearest names, when there is none of that name.
        """
        loaded = self._project.load()
        uid = find_named(loaded, name)
        view = self._view(loaded)
        made = decide_everything(view)
        return explain_test(view, uid, made) if uid in view.graph.tests else explain_node(view, uid, made)

    @with_checked_arguments(ConflictingOptionsError)
    def state(self, name: str) -> NodeState | TestState:
        """Return the recorded state of a model, seed or snapshot and the tests about it, or of one test.

        Raises UnknownNodeError, with the nearest names, when there is none of that name.
        """
        loaded = self._project.load()
        uid = find_named(loaded, name)
        view = self._view(loaded)
        return test_state(view.graph, uid, view.state) if uid in view.graph.tests else node_state(view, uid)

    def states(self) -> NodeStates:
        """Return the recorded state of every model, seed and snapshot, parents first, and of every test."""
        return node_states(self._view())

    def tests(
        self,
        select: Names = (),
        exclude: Names = (),
        selector: str = "",
        *,
        state: Path | str | None = None,
        state_mode: StateMode | str = StateMode.DBT,
    ) -> DataTestReports:
        """Return for each data test of a selection the decision now, and how it would be answered if everything selected were rebuilt.

        The second is what `efficient_testing: all` would do. dbt compiles the selection for it; nothing is built or recorded.

        Raises InvalidProjectError when dbt cannot compile the selection, else as `plan` does.
        """
        selection = make_selection(
            select=select, exclude=exclude, selector=selector, state=state, state_mode=state_mode
        )
        return make_data_test_reports(self._project, self.instance, BuildRequest(selection))

    def trust_proofs(self) -> str:
        """Let runs prove data tests again. Returns the sentence about the contradicted proof that stopped them, empty for none."""
        contradiction = found_contradiction(self.instance, self._project.state_name)
        trust_proofs(self.instance, self._project.state_name)
        return contradiction

    def sources(self, *, probe: bool = False) -> SourceReports:
        """Return the recorded state of every source; with `probe`, also its token in the warehouse now. Records nothing."""
        view = self._view()
        return source_reports(view, self._look(view.loaded, view.graph.nodes) if probe else None)

    @with_checked_arguments(ConflictingOptionsError)
    def notify(self, *sources: str, token: str = "") -> SourceNotices:
        """Record that sources, such as `raw.orders`, have been loaded, and return the result for each.

        A source is probed now, and does not wait for the freshness sensor. One in `loaded_by_dagster` is not probed: it has
        new data, unless `token` is the same as before.

        Raises UnknownNodeError, or ConflictingOptionsError for a token of a source that is probed.
        """
        return notify_sources(self._view(), sources, token)

    def doctor(self, *, probe: bool = True) -> Findings:
        """Return problems to look at, such as settings that don't do what they appear to. Records nothing.

        With `probe` it queries the warehouse for sources that cannot be tracked.
        """
        loaded, now = self._project.load(), clock.now()
        try:
            instance, problem = self.instance, ""
            state = read_state(instance, self._project, loaded, now)
        except NoInstanceError as error:
            instance, problem, state = None, str(error), StateSnapshot()
        look = self._look(loaded, loaded.project.graph.nodes) if probe else None
        return examine(Patient(self._definitions, self._project, loaded, now, state, instance, problem, look))

    def reset(
        self,
        select: Names = (),
        exclude: Names = (),
        selector: str = "",
        *,
        state: Path | str | None = None,
        state_mode: StateMode | str = StateMode.DBT,
    ) -> list[str]:
        """Forget the builds, failures and verdicts of a selection, so that each of its nodes is "Not built before".

        Dagster's history and the relations in the warehouse stay as they are.

        Returns the unique ids of the nodes that had any state, parents first.

        Raises InvalidSelectionError, EmptySelectionError, ConflictingOptionsError or NoInstanceError.
        """
        selection = make_selection(
            select=select, exclude=exclude, selector=selector, state=state, state_mode=state_mode
        )
        loaded = self._project.load()
        selected = resolve_selection(self._project, loaded, selection, warn=_LOG.warning)
        view = self._view(loaded)
        ordered = [uid for uid in view.graph.nodes if uid in selected]
        reset = reset_nodes(self.instance, self._project.state_name, ordered, view.state, view.now)
        about = view.graph.tests_about
        tests = {test for uid in ordered for test in about.get(uid, ()) if test in view.state.verdicts}
        event_log_state(self.instance, self._project).verdicts.forget(tests)
        keys = loaded.keys.by_unique_id
        for uid in reset:
            note = dg.AssetObservation(keys[uid], description="Its state was forgotten: it counts as not built before")
            self.instance.report_runless_asset_event(note)
        return reset

    def _view(self, loaded: LoadedProject | None = None) -> ProjectView:
        """Return the project with its state now. Raises NoInstanceError."""
        return view_project(self.instance, self._project, loaded or self._project.load(), clock.now())

    def _look(self, loaded: LoadedProject, selected: Iterable[str]) -> Look:
        return ask_warehouse(self._project, loaded, sources_above(self._project, loaded, selected))
