"""Projects for the tests of the Dagster layer: a manifest as a dict on disk, its definitions, and events by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import (
    AssetObservationData,
    DagsterEvent,
    DagsterEventType,
)
from dagster._core.test_utils import create_run_for_test
from dagster_dbt import DbtProject

from dagster_sao import StateAwareDbtTranslator, build_state_aware_definitions
from dagster_sao.core.code.evidence import Evidence
from dagster_sao.core.decision.run_ledger import Ledger
from dagster_sao.core.state.state import FailedAttempt, FailureKind, LastBuild, StateSnapshot
from dagster_sao.orchestration.events.event_schema import (
    BUILD_KEY,
    DATA_VERSION_TAG,
    DECISION_KEY,
    FAILURE_KEY,
)
from dagster_sao.orchestration.events.record_json import build_to_json, failure_to_json
from dagster_sao.orchestration.project.loaded import LoadedProject
from dagster_sao.orchestration.project.orchestrated import OrchestratedProject
from dagster_sao.orchestration.state.relation_notes import read_columns
from tests.core.manifests import manifest, model, source

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)
ORDERS = "model.shop.orders"
STG = "model.shop.stg"
RAW = "source.shop.raw.orders"


def shop_manifest(**changes: Any) -> dict[str, Any]:
    """Return raw.orders >> stg >> orders, customers."""
    return manifest(
        [model("stg", RAW), model("orders", "stg"), model("customers", "stg")], [source("raw", "orders")], **changes
    )


def write_project(folder: Path, world: Mapping[str, Any] | None) -> DbtProject:
    """Write a dbt project that is nothing but its manifest."""
    (folder / "target").mkdir(parents=True, exist_ok=True)
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\n")
    (folder / "profiles.yml").write_text(
        "shop: {target: dev, outputs: {dev: {type: duckdb, path: ':memory:'}}}\n",
    )
    if world is not None:
        (folder / "target" / "manifest.json").write_text(json.dumps(world))
    return DbtProject(folder)


def load_project(folder: Path, world: Mapping[str, Any]) -> OrchestratedProject:
    """Return the project of a manifest, as definitions would make it."""
    return OrchestratedProject(write_project(folder, world), StateAwareDbtTranslator())


def definitions(folder: Path, world: Mapping[str, Any], **options: Any) -> dg.Definitions:
    """Return the definitions of a manifest."""
    return build_state_aware_definitions(write_project(folder, world), **options)


def project_in(defs: dg.Definitions) -> OrchestratedProject:
    """Return the project behind definitions."""
    (sensor,) = (s for s in defs.sensors if s.name.endswith("automation_sensor"))
    return sensor.project


def write_after_reading(project: OrchestratedProject, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """Let dbt write the manifest anew, or a part of it, in the instant after a sensor has read it."""
    refresh = project.refresh

    def refresh_and_write(log: Any) -> LoadedProject:
        loaded = refresh(log)
        project.dbt_project.manifest_path.write_text(content)
        return loaded

    monkeypatch.setattr(project, "refresh", refresh_and_write)


class Log:
    """Writes what runs and sensors would into an instance's event log."""

    def __init__(self, instance: dg.DagsterInstance, project: OrchestratedProject) -> None:
        self.instance = instance
        self.project = project
        self.runs = 0

    def snapshot(self, now: datetime | None = None) -> StateSnapshot:
        """Return the state as a process that starts now reads it."""
        from dagster_sao.orchestration.state.event_log import EventLogState

        return EventLogState(self.instance, self.project.name).snapshot(
            self.project.load().keys, now or datetime.now(timezone.utc)
        )

    def token(self, token: str, uid: str = RAW) -> None:
        self.materialize(uid, tags={DATA_VERSION_TAG: token})

    def materialize(self, uid: str, **options: Any) -> None:
        key = self.project.load().keys.by_unique_id[uid]
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, **options))

    def build(self, *uids: str, at: datetime | None = None) -> LastBuild:
        """Record builds as a run does; return the last."""
        self.runs += 1
        at = at or datetime.now(timezone.utc)
        state = read_columns(self.instance, self.project.state_name).added_to(
            self.snapshot(), self.project.load().project
        )
        ledger = Ledger(self.project.load().project, state)
        build = None
        for uid in uids or self.project.load().project.graph.nodes:
            build = ledger.record(
                uid,
                started_at=at - timedelta(seconds=7),
                ended_at=at,
                run_id=f"run {self.runs}",
                evidence=Evidence(is_deterministic=True),
            )
            self.materialize(
                uid,
                metadata={BUILD_KEY: dg.MetadataValue.json(build_to_json(build))},
                tags={DATA_VERSION_TAG: build.data_version},
            )
        assert build is not None
        return build

    def fail(
        self,
        uid: str,
        kind: FailureKind = FailureKind.BUILD,
        at: datetime | None = None,
    ) -> FailedAttempt:
        """Record a failed attempt as a run does."""
        loaded = self.project.load().project
        failure = FailedAttempt(
            failed_at=at or datetime.now(timezone.utc),
            attempts=1,
            fingerprint=loaded.fingerprints[uid].digest,
            consumed=Ledger(loaded, self.snapshot()).consumed(uid),
            kind=kind,
        )
        run_id = self.start_run(uid)
        self.say(run_id, uid, {DECISION_KEY: "failed", FAILURE_KEY: dg.MetadataValue.json(failure_to_json(failure))})
        self.end_run(run_id)
        return failure

    def start_run(self, *uids: str) -> str:
        """Create a run that comes so far as to start dbt for these nodes. Returns its id."""
        run_id = create_run_for_test(self.instance, status=dg.DagsterRunStatus.STARTED).run_id
        self.start_dbt(run_id, *uids)
        return run_id

    def start_dbt(self, run_id: str, *uids: str) -> None:
        """Let a run start dbt for these nodes."""
        from dagster_sao.orchestration.state.event_log import EventLogState

        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        loaded, log_state = self.project.load(), EventLogState(self.instance, self.project.name)
        state = log_state.snapshot(loaded.keys, datetime.now(timezone.utc))
        log_state.unsettle(run, loaded.project, uids, state)

    def say(self, run_id: str, uid: str, metadata: Mapping[str, Any]) -> None:
        """Let a run observe a node."""
        observation = dg.AssetObservation(self.project.load().keys.by_unique_id[uid], metadata=metadata)
        event = DagsterEvent(
            DagsterEventType.ASSET_OBSERVATION.value,
            job_name="a job",
            event_specific_data=AssetObservationData(observation),
        )
        self.instance.report_dagster_event(event, run_id)

    def end_run(self, run_id: str) -> None:
        """End a run in failure."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        self.instance.report_run_failed(run)

    def observe(self, uid: str, metadata: Mapping[str, Any]) -> None:
        key = self.project.load().keys.by_unique_id[uid]
        self.instance.report_runless_asset_event(dg.AssetObservation(key, metadata=metadata))

    def wipe(self, uid: str) -> None:
        self.instance.wipe_assets([self.project.load().keys.by_unique_id[uid]])
