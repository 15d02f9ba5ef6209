"""The `dagster-sao` command: what would be built now, and why. Reads only."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType

import click
import dagster as dg
from rich.console import Console
from rich.table import Table

from dagster_sao.core.decide import Decision
from dagster_sao.core.errors import DagsterSaoError
from dagster_sao.core.plan import Plan, make_plan
from dagster_sao.orchestration.automation_sensor import StateAwareAutomationSensor
from dagster_sao.orchestration.project import OrchestratedProject
from dagster_sao.orchestration.snapshot import take_snapshot

_STYLES = {"build": "green", "reuse": "dim", "hold": "yellow", "skip": "yellow"}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dagster-sao")
def main() -> None:
    """State-aware orchestration for dbt on Dagster."""


@main.command()
@click.option(
    "-f", "--python-file", type=click.Path(path_type=Path), help="The file that holds the Dagster definitions."
)
@click.option("-m", "--module-name", help="The module that holds the Dagster definitions.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def plan(python_file: Path | None, module_name: str | None, output: str) -> None:
    """Show what the automation sensor would build now, with the reason for each model.

    Reads the state from the Dagster instance in DAGSTER_HOME. Builds nothing and writes nothing.
    """
    try:
        definitions = _definitions(python_file, module_name)
        projects = list(_projects(definitions))
        with _instance() as instance:
            plans = [(project, _plan(project, instance)) for project in projects]
    except (DagsterSaoError, dg.DagsterError) as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    if not plans:
        msg = "These definitions hold no state-aware dbt project. Add one with build_state_aware_definitions."
        raise click.ClickException(msg)
    for project, made in plans:
        _print_json(made) if output == "json" else _print_table(project, made)


def _definitions(python_file: Path | None, module_name: str | None) -> dg.Definitions:
    if (python_file is None) == (module_name is None):
        msg = "Name the Dagster definitions with either --python-file or --module-name."
        raise click.UsageError(msg)
    module = _module_of_file(python_file) if python_file else importlib.import_module(str(module_name))
    found = [value for value in vars(module).values() if isinstance(value, dg.Definitions)]
    if not found:
        msg = f"{python_file or module_name} holds no dagster.Definitions object."
        raise click.ClickException(msg)
    return found[-1]


def _module_of_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        msg = f"There is no Python file {path}."
        raise click.ClickException(msg)
    # As Dagster does for a python_file: what lies beside it can be imported.
    sys.path.insert(0, str(path.parent.resolve()))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _projects(definitions: dg.Definitions) -> Iterator[OrchestratedProject]:
    for sensor in definitions.get_repository_def().sensor_defs:
        if isinstance(sensor, StateAwareAutomationSensor):
            yield sensor.project


def _instance() -> dg.DagsterInstance:
    try:
        return dg.DagsterInstance.get()
    except dg.DagsterInvariantViolationError as error:
        msg = f"There is no Dagster instance to read the state from: {' '.join(str(error).split())}"
        raise click.ClickException(msg) from error


def _plan(project: OrchestratedProject, instance: dg.DagsterInstance) -> Plan:
    now = datetime.now(timezone.utc)
    state = take_snapshot(instance, project, now)
    return make_plan(project.load().project, state, now=now)


def _print_json(made: Plan) -> None:
    rows = [_as_json(uid, decision) for uid, decision in made.decisions.items()]
    click.echo(json.dumps({"waves": made.waves, "decisions": rows}, indent=2))


def _as_json(unique_id: str, decision: Decision) -> Mapping[str, object]:
    return {
        "unique_id": unique_id,
        "action": decision.action.value,
        "reason": decision.reason.value,
        "message": decision.message,
        "parents": list(decision.parents),
        "eligible_at": decision.eligible_at.isoformat() if decision.eligible_at else None,
    }


def _print_table(project: OrchestratedProject, made: Plan) -> None:
    table = Table(title=f"{project.name}: {len(made.builds)} of {len(made.decisions)} to build", title_justify="left")
    for heading in ("model", "decision", "reason"):
        table.add_column(heading)
    for uid, decision in made.decisions.items():
        action = decision.action.value
        table.add_row(made.graph.label(uid), f"[{_STYLES[action]}]{action}[/]", decision.message)
    Console().print(table)
