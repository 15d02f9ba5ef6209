"""A dbt project taken the whole way, step by step: sensors, run, real dbt. Runs in an environment of its own.

Needs nothing of pytest.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtProject

from dagster_sao import build_state_aware_definitions

Execute = Callable[[str], list[tuple[Any, ...]]]

SETUP = """
create schema raw; create table raw.orders (id int, item int); create table raw.items (id int);
create table raw.prices (item int, price int, loaded_at timestamp);
insert into raw.orders values (1, 1); insert into raw.items values (1);
insert into raw.prices values (1, 10, '2026-01-01 10:00:00')
"""
STEPS = {
    "first": SETUP,
    "unchanged": "select 1",
    "orders": "insert into raw.orders values (2, 1)",
    "after orders": "select 1",
    "prices": "insert into raw.prices values (1, 5, '2026-01-02 10:00:00')",
    "dropped model": "drop table shop.order_count",
    "after dropped model": "select 1",
    "dropped view": "drop view shop.all_orders",
    "dropped source": "drop table raw.items",
    "after dropped source": "insert into raw.orders values (3, 1)",
}
RELATIONS = "all_orders", "item_count", "order_count", "order_value"


class _Warnings(logging.Handler):
    """Keeps the warnings of a tick."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


class DrivenProject:
    """What the sensors of one code server say and ask for, and what comes of the runs."""

    def __init__(self, folder: Path, target: str, instance: dg.DagsterInstance, **options: Any):
        # dagster-dbt finds dbt as a shell does.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.instance = instance
        self.definitions = build_state_aware_definitions(DbtProject(folder, target=target), **options)
        self.repository = self.definitions.get_repository_def()
        self.cursors: dict[str, str | None] = {}
        self.warnings = _Warnings()

    def look(self) -> dict[str, Any]:
        """Tick the freshness sensor, then the automation sensor, and execute the runs that it asks for."""
        self.warnings.said = []
        freshness = self._tick("freshness_sensor")
        for event in freshness.asset_events:
            self.instance.report_runless_asset_event(event)
        automation = self._tick("automation_sensor")
        reasons = {e.key.path[-1]: e.child_evaluations[0] for e in automation.automation_condition_evaluations}
        asked = [sorted(key.path[-1] for key in request.asset_selection) for request in automation.run_requests]
        noticed = [event for event in freshness.asset_events if isinstance(event, dg.AssetObservation)]
        return {
            "said": freshness.skip_message,
            "warnings": self.warnings.said,
            "noticed": {event.asset_key.path[-1]: event.description for event in noticed},
            "asked": asked,
            "reasons": {name: reasons[name].condition_snapshot.name for names in asked for name in names},
            "runs": [self._run(request) for request in automation.run_requests],
        }

    def _tick(self, name: str) -> Any:
        sensor = next(sensor for sensor in self.repository.sensor_defs if sensor.name.endswith(name))
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursors.get(name), repository_def=self.repository
        )
        context.log.addHandler(self.warnings)
        result = sensor.evaluate_tick(context)
        self.cursors[name] = result.cursor
        return result

    def _run(self, request: dg.RunRequest) -> dict[str, Any]:
        result = dg.materialize(
            list(self.definitions.assets),
            selection=dg.AssetSelection.assets(*request.asset_selection),
            resources=self.definitions.resources,
            instance=self.instance,
            tags=request.tags,
            raise_on_error=False,
        )
        built = [event.asset_key.path[-1] for event in result.get_asset_materialization_events()]
        return {"success": result.success, "built": sorted(built)}


def drive(folder: Path, target: str, execute: Execute, answers: Path) -> None:
    """Take every step in the warehouse and write what Dagster made of it, and what the relations then hold."""
    seen: dict[str, Mapping[str, Any]] = {}
    with dg.DagsterInstance.ephemeral() as instance:
        project = DrivenProject(folder, target, instance)
        for step, statements in STEPS.items():
            for statement in statements.split(";"):
                execute(statement)
            looked = project.look()
            seen[step] = {**looked, "rows": {name: execute(f"select * from shop.{name}") for name in RELATIONS}}
    answers.write_text(json.dumps(seen, default=str))
