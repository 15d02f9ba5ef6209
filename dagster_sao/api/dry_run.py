"""What a build would do now: decisions with reasons, waves, and what it would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import as_text, counted, seconds_text, styled
from dagster_sao.api.errors import ConflictingOptionsError
from dagster_sao.api.explain.verdicts import decision_to_dict
from dagster_sao.api.request import BuildRequest
from dagster_sao.api.sources import ask_warehouse, with_new_tokens
from dagster_sao.core.build_order import seconds_of_builds
from dagster_sao.core.decision.decide import Action, Decision
from dagster_sao.core.decision.decide_functions import FunctionAction, FunctionDecision
from dagster_sao.core.decision.decide_tests import TestAction, TestDecision
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.forecast import Forecast, make_forecast
from dagster_sao.core.project import Project
from dagster_sao.core.state.state import StateSnapshot, Verdict
from dagster_sao.orchestration import clock
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.project.probed_sources import sources_above
from dagster_sao.orchestration.relations.relation_watch import RelationWatch
from dagster_sao.orchestration.runs.config import StateAwareRunConfig, with_dbt_arguments
from dagster_sao.orchestration.runs.run_plan import AskedOfRun, RunInputs, RunPlan, asked_of_run, decide_run
from dagster_sao.orchestration.selection.resolve import resolve_selection
from dagster_sao.orchestration.sources.first_look import FirstLook
from dagster_sao.orchestration.state.documents import unwritten
from dagster_sao.orchestration.state.read_state import LiveProject, ProjectView, read_state, view_project
from dagster_sao.orchestration.state.relation_notes import read_columns
from dagster_sao.orchestration.state.run_activity import run_activity
from dagster_sao.warehouse.profiles import threads_of


@dataclass(frozen=True)
class DryRun:
    """What a build would do now. Finding it out wrote nothing. Prints as a table."""

    project_name: str
    decided: RunPlan
    """The decisions, from the function that a run decides with."""
    forecast: Forecast
    made_at: datetime
    notes: tuple[str, ...] = ()
    """What was not known when the decisions were made, such as sources that were never probed; one sentence each."""

    @property
    def plan(self) -> Plan:
        """The decisions about nodes, tests and functions."""
        return self.decided.plan

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """The last answer of each test that was ever run, by unique id."""
        return self.decided.recorded.verdicts

    @property
    def decisions(self) -> Mapping[str, Decision]:
        """The decision for each selected node, by unique id, parents first."""
        return self.plan.decisions

    @property
    def waves(self) -> list[list[str]]:
        """The nodes that would be built, in groups: each group needs only the groups before it."""
        return self.plan.waves

    @property
    def builds(self) -> list[str]:
        """The nodes that would be built, parents first."""
        return self.plan.builds

    @property
    def reused(self) -> list[str]:
        """The nodes that would be reused."""
        return [uid for uid, decision in self.decisions.items() if decision.action is Action.REUSE]

    @property
    def tests(self) -> Mapping[str, TestDecision]:
        """The decision about each test that a build would decide about, by unique id."""
        return self.plan.tests

    @property
    def test_runs(self) -> list[str]:
        """The tests that would be run."""
        return self.plan.test_runs

    @property
    def functions(self) -> Mapping[str, FunctionDecision]:
        """The decision about each user-defined function that a build would decide about, by unique id."""
        return self.plan.functions

    @property
    def seconds(self) -> float:
        """How long the builds are predicted to take, from how long they took before."""
        return self.forecast.wall_seconds

    @property
    def parallelism(self) -> float:
        """How many threads the builds can keep busy on average."""
        return self.forecast.parallelism

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "project": self.project_name,
            "made_at": self.made_at.isoformat(),
            "waves": self.waves,
            "forecast": {
                "threads": self.forecast.threads,
                "seconds": round(self.seconds, 3),
                "critical_path_seconds": round(self.forecast.critical_path_seconds, 3),
                "saved_seconds": round(self.forecast.saved_seconds, 3),
                "parallelism": round(self.parallelism, 2),
                "widest_wave": self.forecast.widest_wave,
                "guessed": sorted(self.forecast.guessed),
            },
            "decisions": [_decision_to_dict(uid, decision) for uid, decision in self.decisions.items()],
            "tests": [
                decision_to_dict(uid, self.plan.graph.label(uid), decision) for uid, decision in self.tests.items()
            ],
            "functions": [
                {
                    "unique_id": uid,
                    "action": decision.action.value,
                    "reason": decision.reason.value,
                    "message": decision.message,
                }
                for uid, decision in self.functions.items()
            ],
            "order": self.plan.in_order(self.builds, self.test_runs),
            "notes": list(self.notes),
        }

    def summary(self) -> str:
        """Return one line: how much would be built, in how many waves and for how long, and how many tests would be run."""
        text = f"{self.project_name}: {len(self.builds)} of {len(self.decisions)} to build"
        if self.builds:
            about = f"about {seconds_text(self.seconds)}" if self.seconds else "an unknown time"
            text += f" in {counted(len(self.waves), 'wave')}, {about} with {self.forecast.threads} threads"
        if self.forecast.saved_seconds:
            text += f", {seconds_text(self.forecast.saved_seconds)} saved"
        if self.tests:
            text += f"; {len(self.test_runs)} of {counted(len(self.tests), 'test')} to run"
        if created := sum(decision.creates for decision in self.functions.values()):
            text += f"; {counted(created, 'function')} to create"
        return text

    def __rich__(self) -> RenderableType:
        """Return it as a table."""
        wave_of = {uid: number for number, wave in enumerate(self.waves, 1) for uid in wave}
        table = Table(title=self.summary(), title_justify="left")
        for heading in ("node", "decision", "wave", "reason"):
            table.add_column(heading, justify="right" if heading == "wave" else "left")
        for uid, decision in self.decisions.items():
            wave = str(wave_of.get(uid, ""))
            reason = f"{decision.message} ({decision.how})" if decision.how else decision.message
            table.add_row(self.plan.graph.label(uid), styled(decision.action.value), wave, Text(reason))
        return Group(table, *self._functions(), *self._tests(), *(Text(note, style="yellow") for note in self.notes))

    def __str__(self) -> str:
        return as_text(self)

    def _tests(self) -> Iterator[RenderableType]:
        """Yield the tests that would be run or skipped, or still fail, as a table, and how many others there are."""
        shown = {uid: decision for uid, decision in self.tests.items() if self._is_shown(uid, decision)}
        if shown:
            yield self._table("test", shown)
        if rest := len(self.tests) - len(shown):
            yield Text(f"{counted(rest, 'test')} reused", style="dim")

    def _functions(self) -> Iterator[RenderableType]:
        """Yield the functions that would be created, or cannot be, as a table."""
        shown = {uid: d for uid, d in self.functions.items() if d.action is not FunctionAction.REUSE}
        if shown:
            yield self._table("function", shown)

    def _table(self, what: str, decisions: Mapping[str, TestDecision | FunctionDecision]) -> Table:
        table = Table(title=f"{what}s", title_justify="left")
        for heading in (what, "decision", "reason"):
            table.add_column(heading)
        for uid, decision in decisions.items():
            table.add_row(self.plan.graph.label(uid), styled(decision.action.value), Text(decision.message))
        return table

    def _is_shown(self, test: str, decision: TestDecision) -> bool:
        verdict = self.verdicts.get(test)
        return decision.action is not TestAction.REUSE or (verdict is not None and verdict.is_failing)


def _decision_to_dict(unique_id: str, decision: Decision) -> dict[str, Any]:
    return {
        "unique_id": unique_id,
        "action": decision.action.value,
        "reason": decision.reason.value,
        "message": decision.message,
        "parents": list(decision.parents),
        "full_refresh": decision.full_refresh,
        "batches_from": decision.batches_from.isoformat() if decision.batches_from else None,
        "eligible_at": decision.eligible_at.isoformat() if decision.eligible_at else None,
    }


def make_dry_run(
    project: OrchestratedProject,
    instance: dg.DagsterInstance,
    request: BuildRequest,
    loaded: LoadedProject | None = None,
) -> DryRun:
    """Return what a build with this request would do now. `loaded` is a manifest to use instead of the newest.

    Raises ConflictingOptionsError when nothing that is selected is forced, else as `resolve_selection` does.
    """
    loaded, now = loaded or project.load(), clock.now()
    config = with_dbt_arguments(request.run_config(project, {}), project.dbt_args)
    notes: list[str] = []
    selected = resolve_selection(project, loaded, request.selection, warn=notes.append)
    asked = asked_of_run(project, loaded, config, selected, state_aware=bool(config.state_aware))
    if config.force and not asked.requests:
        words = repr(" ".join(config.force))
        msg = f"force={words} matches no selected node. Select the node too, or force another one."
        raise ConflictingOptionsError(msg)
    above = sources_above(project, loaded, selected)
    view = view_project(instance, project, loaded, now)
    state = _state_after_look(view, asked, notes) if config.refresh_sources else view.state
    if unknown := sorted(source.label for source in above if source.unique_id not in state.sources):
        notes.append(f"Never probed, so whether they have new data is not known: {', '.join(unknown)}.")
    decided = decide_run(RunInputs(asked, state, now))
    own = project.dbt_project
    threads = config.threads or threads_of(own.project_dir, own.profiles_dir, own.profile, own.target)
    longest_first = _begins_with_longest(loaded.project, decided.plan, state)
    forecast = make_forecast(decided.plan, state, threads, longest_first=longest_first)
    return DryRun(project.name, decided, forecast, now, tuple(notes))


def _begins_with_longest(project: Project, plan: Plan, state: StateSnapshot) -> bool:
    """Return whether dbt would begin with the longest path, as a run lets it where no rows can depend on the order."""
    creates = any(decision.creates for decision in plan.functions.values())
    return not creates and bool(seconds_of_builds(project, state, plan.builds, plan.test_runs))


def _state_after_look(view: ProjectView, asked: AskedOfRun, notes: list[str]) -> StateSnapshot:
    """Return the state as a run would have it after its first look at the warehouse. Nothing is written."""
    instance, project, loaded, state, now = view.instance, view.project, view.loaded, view.state, view.now

    def building() -> Mapping[str, str]:
        return run_activity(instance, loaded, project.name, None, clock.now()).building

    first = FirstLook(
        LiveProject(instance, project, loaded, building),
        asked.selected,
        refresh=True,
        state_aware=asked.state_aware,
        watch=RelationWatch(project),
        defers=asked.defers,
    )
    with unwritten():
        look = ask_warehouse(
            project, loaded, first.sources(state), lambda prober: first.note_relations(prober, state, now)
        )
        found = with_new_tokens(read_state(instance, project, loaded, now), look, loaded, now)
        # A run reads the columns after it has recorded the tokens.
        found = read_columns(instance, project.state_name).added_to(found, loaded.project)
    said = (observation.error or observation.warning for observation in look.observations.values())
    notes.extend(dict.fromkeys(problem for problem in said if problem))
    if look.problem:
        notes.append(f"The warehouse could not be queried for new data: {look.problem}")
    return found


def decide_everything(view: ProjectView) -> Plan:
    """Return what a state-aware job of the whole project would decide from the state in `view`."""
    config, nodes = StateAwareRunConfig(), view.graph.nodes.keys()
    asked = asked_of_run(view.project, view.loaded, config, nodes, state_aware=True)
    return decide_run(RunInputs(asked, view.state, view.now)).plan
