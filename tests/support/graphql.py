"""A small client of Dagster's GraphQL API: what the tests ask of a running instance, as values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

# A reload waits for a new code server.
REQUEST_SECONDS = 240

# Asset keys as the UI shows them, their parts joined with a slash.
AssetName = str


class GraphQLError(AssertionError):
    """The server answered with an error."""


@dataclass(frozen=True)
class Tick:
    """One evaluation of a sensor."""

    id: str
    status: str
    timestamp: float
    skip_reason: str | None
    error: str | None
    run_ids: Sequence[str]
    logs: Sequence[tuple[str, str]] = ()
    """Level and message of what the tick logged."""

    @property
    def is_finished(self) -> bool:
        return self.status != "STARTED"


@dataclass(frozen=True)
class Run:
    """One run."""

    id: str
    status: str
    created_at: float
    ended_at: float | None
    assets: frozenset[AssetName]
    tags: Mapping[str, str]

    @property
    def is_finished(self) -> bool:
        return self.status in {"SUCCESS", "FAILURE", "CANCELED"}


@dataclass(frozen=True)
class AssetEvent:
    """One materialization or observation of an asset."""

    run_id: str
    timestamp: float
    description: str | None
    tags: Mapping[str, str]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """One record of an asset's Automation tab."""

    id: int
    requested: bool
    labels: Sequence[str]
    """Of all nodes of the tree, the root first."""
    run_ids: Sequence[str] = field(default=())


class DagsterClient:
    """The API of one webserver, for one code location."""

    def __init__(self, url: str, location: str, repository: str = "__repository__") -> None:
        self.url = url
        self.location = location
        self.selector = {"repositoryName": repository, "repositoryLocationName": location}
        self._session = requests.Session()
        # A proxy of the environment must not stand between the test and its own server.
        self._session.trust_env = False

    def query(self, query: str, **variables: Any) -> Any:
        """Return the `data` of a query's answer."""
        body = {"query": query, "variables": variables}
        response = self._session.post(f"{self.url}/graphql", json=body, timeout=REQUEST_SECONDS)
        answer = response.json()
        if answer.get("errors"):
            raise GraphQLError(json.dumps(answer["errors"], indent=2)[:4000])
        response.raise_for_status()
        return answer["data"]

    # The code location

    def location_errors(self) -> list[str] | None:
        """Return what is wrong with the code location, None while it loads."""
        entries = self.query(_LOCATIONS)["workspaceOrError"]["locationEntries"]
        if not entries or any(entry["loadStatus"] != "LOADED" for entry in entries):
            return None
        return [
            e["locationOrLoadError"]["message"]
            for e in entries
            if e["locationOrLoadError"]["__typename"] == "PythonError"
        ]

    def reload(self) -> None:
        """Reload the code location in a new code server."""
        answer = self.query(_RELOAD, name=self.location)["reloadRepositoryLocation"]
        if answer["__typename"] != "WorkspaceLocationEntry" or answer["locationOrLoadError"].get("message"):
            raise GraphQLError(json.dumps(answer))

    def asset_names(self) -> set[AssetName]:
        """Return the names of all assets that are defined."""
        return {_name(node["assetKey"]) for node in self.query(_ASSET_NODES)["assetNodes"]}

    # Sensors

    def sensor_statuses(self) -> dict[str, str]:
        """Return RUNNING or STOPPED for each sensor."""
        sensors = self.query(_SENSORS, selector=self.selector)["sensorsOrError"]["results"]
        return {sensor["name"]: sensor["sensorState"]["status"] for sensor in sensors}

    def ticks(self, sensor: str, *, after: float = 0, limit: int = 200, with_logs: bool = False) -> list[Tick]:
        """Return the finished ticks of a sensor that started after a moment, the newest first."""
        query = _TICKS.replace("#logs", "logEvents { events { level message } }" if with_logs else "")
        state = self.query(query, selector=self._sensor(sensor), limit=limit, after=after)["sensorOrError"][
            "sensorState"
        ]
        ticks = [
            Tick(
                id=tick["tickId"],
                status=tick["status"],
                timestamp=tick["timestamp"],
                skip_reason=tick["skipReason"],
                error=_error(tick["error"]),
                run_ids=tick["runIds"],
                logs=[(event["level"], event["message"]) for event in (tick.get("logEvents") or {}).get("events", ())],
            )
            for tick in state["ticks"]
        ]
        return [tick for tick in ticks if tick.is_finished and tick.timestamp > after]

    def last_tick(self, sensor: str) -> Tick:
        """Return the latest finished tick of a sensor."""
        return self.ticks(sensor, limit=5)[0]

    def start_sensor(self, sensor: str) -> None:
        self.query(_START_SENSOR, selector=self._sensor(sensor))

    def stop_sensor(self, sensor: str) -> None:
        state = self.query(_TICKS, selector=self._sensor(sensor), limit=1, after=0)["sensorOrError"]["sensorState"]
        self.query(_STOP_SENSOR, id=state["id"])

    def _sensor(self, sensor: str) -> dict[str, str]:
        return {**self.selector, "sensorName": sensor}

    # Runs

    def runs(self, *, after: float = 0) -> list[Run]:
        """Return the runs created after a moment, the oldest first."""
        runs = self.query(_RUNS, filter={"createdAfter": after} if after else {})["runsOrError"]["results"]
        found = [
            Run(
                id=run["runId"],
                status=run["status"],
                created_at=run["creationTime"],
                ended_at=run["endTime"],
                assets=frozenset(_name(key) for key in run["assetSelection"] or ()),
                tags={tag["key"]: tag["value"] for tag in run["tags"]},
            )
            for run in runs
        ]
        return sorted((run for run in found if run.created_at > after), key=lambda run: run.created_at)

    def launch(self, *assets: AssetName) -> str:
        """Materialize assets as the UI does, and return the run's id."""
        return self._launch("__ASSET_JOB", assetSelection=[_key(asset) for asset in assets], assetCheckSelection=[])

    def launch_job(self, job: str, config: Mapping[str, Any] | None = None) -> str:
        """Start a job with its own config or the given one, and return the run's id."""
        return self._launch(job, config)

    def _launch(self, job: str, config: Mapping[str, Any] | None = None, **selected: Any) -> str:
        selector = {**self.selector, "pipelineName": job, **selected}
        answer = self.query(_LAUNCH, params={"selector": selector, "runConfigData": config or {}, "mode": "default"})
        if answer["launchRun"]["__typename"] != "LaunchRunSuccess":
            raise GraphQLError(json.dumps(answer))
        return answer["launchRun"]["run"]["runId"]

    def terminate(self, run_id: str) -> None:
        """Ask a run to end."""
        self.query(_TERMINATE, run=run_id)

    def run_messages(self, run_id: str) -> list[tuple[str, str]]:
        """Return level and message of a run's events, with the error of those that have one."""
        events = self.query(_RUN_LOGS, run=run_id)["logsForRun"]["events"]
        return [(e["level"], " ".join([e["message"], (e.get("error") or {}).get("message", "")])) for e in events]

    # Assets

    def materializations(self, asset: AssetName, *, limit: int = 50) -> list[AssetEvent]:
        """Return an asset's materializations, the newest first."""
        found = self.query(_MATERIALIZATIONS, key=_key(asset), limit=limit)["assetOrError"]
        return [_asset_event(event) for event in found.get("assetMaterializations", ())]

    def observations(self, asset: AssetName, *, limit: int = 50) -> list[AssetEvent]:
        """Return an asset's observations, the newest first."""
        found = self.query(_OBSERVATIONS, key=_key(asset), limit=limit)["assetOrError"]
        return [_asset_event(event) for event in found.get("assetObservations", ())]

    def materialization_counts(self, assets: Iterable[AssetName]) -> dict[AssetName, int]:
        """Return how often each asset was materialized, up to ten."""
        names = sorted(assets)
        nodes = self.query(_COUNTS, keys=[_key(name) for name in names])["assetNodes"]
        return {_name(node["assetKey"]): len(node["assetMaterializations"]) for node in nodes}

    def wipe(self, *assets: AssetName) -> None:
        """Delete the history of assets."""
        ranges = [{"assetKey": _key(asset)} for asset in assets]
        answer = self.query(_WIPE, ranges=ranges)["wipeAssets"]
        if answer["__typename"] != "AssetWipeSuccess":
            raise GraphQLError(json.dumps(answer))

    def evaluations(self, asset: AssetName, *, limit: int = 20) -> list[Evaluation]:
        """Return the records of an asset's Automation tab, the newest first."""
        found = self.query(_EVALUATIONS, key=_key(asset), limit=limit)["assetConditionEvaluationRecordsOrError"]
        return [
            Evaluation(
                id=int(record["evaluationId"]),
                requested=bool(record["numRequested"]),
                labels=[node["userLabel"] or " ".join(node["expandedLabel"]) for node in record["evaluationNodes"]],
                run_ids=record["runIds"],
            )
            for record in (found or {}).get("records", ())
        ]


def _key(name: AssetName) -> dict[str, list[str]]:
    return {"path": name.split("/")}


def _name(key: Mapping[str, Any]) -> AssetName:
    return "/".join(key["path"])


def _error(error: Mapping[str, Any] | None) -> str | None:
    """Return an error with what caused it, which is what says where it comes from."""
    if error is None:
        return None
    causes = [link["error"] for link in error["errorChain"]]
    return "".join(text for cause in (error, *causes) for text in (cause["message"], *cause["stack"]))


def _asset_event(event: Mapping[str, Any]) -> AssetEvent:
    return AssetEvent(
        run_id=event["runId"],
        timestamp=float(event["timestamp"]) / 1000,
        description=event["description"],
        tags={tag["key"]: tag["value"] for tag in event.get("tags", ())},
        metadata={entry["label"]: _metadata_value(entry) for entry in event["metadataEntries"]},
    )


def _metadata_value(entry: Mapping[str, Any]) -> Any:
    kind = entry["__typename"]
    if kind == "JsonMetadataEntry":
        return json.loads(entry["jsonString"])
    return next((entry[name] for name in ("text", "floatValue", "intValue", "timestamp") if name in entry), None)


_METADATA = """
    __typename label
    ... on TextMetadataEntry { text }
    ... on JsonMetadataEntry { jsonString }
    ... on FloatMetadataEntry { floatValue }
    ... on IntMetadataEntry { intValue }
    ... on TimestampMetadataEntry { timestamp }
"""
_LOCATIONS = """
query Locations { workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus locationOrLoadError { __typename ... on PythonError { message } }
} } ... on PythonError { message } } }
"""
_RELOAD = """
mutation Reload($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) {
    __typename ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message } } }
} }
"""
_ASSET_NODES = "query Nodes { assetNodes { assetKey { path } } }"
_SENSORS = """
query Sensors($selector: RepositorySelector!) { sensorsOrError(repositorySelector: $selector) {
    ... on Sensors { results { name sensorState { status } } }
} }
"""
_TICKS = """
query Ticks($selector: SensorSelector!, $limit: Int, $after: Float) { sensorOrError(sensorSelector: $selector) {
    ... on Sensor { sensorState { id status ticks(limit: $limit, afterTimestamp: $after) {
        tickId status timestamp skipReason runIds
        error { message stack errorChain { error { message stack } } }
        #logs
    } } }
} }
"""
_START_SENSOR = """
mutation Start($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
    __typename ... on Sensor { sensorState { status } }
} }
"""
_STOP_SENSOR = """
mutation Stop($id: String!) { stopSensor(id: $id) {
    __typename ... on StopSensorMutationResult { instigationState { status } }
} }
"""
_RUNS = """
query Runs($filter: RunsFilter) { runsOrError(filter: $filter, limit: 100) { ... on Runs { results {
    runId status creationTime endTime assetSelection { path } tags { key value }
} } } }
"""
_LAUNCH = """
mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on InvalidSubsetError { message }
} }
"""
_TERMINATE = "mutation Terminate($run: String!) { terminateRun(runId: $run) { __typename } }"
_RUN_LOGS = """
query Logs($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
    ... on MessageEvent { level message } ... on ErrorEvent { error { message } }
} } } }
"""
_EVENT_FIELDS = f"runId timestamp description metadataEntries {{ {_METADATA} }}"
_MATERIALIZATIONS = f"""
query Materializations($key: AssetKeyInput!, $limit: Int) {{ assetOrError(assetKey: $key) {{ ... on Asset {{
    assetMaterializations(limit: $limit) {{ {_EVENT_FIELDS} tags {{ key value }} }}
}} }} }}
"""
_OBSERVATIONS = f"""
query Observations($key: AssetKeyInput!, $limit: Int) {{ assetOrError(assetKey: $key) {{ ... on Asset {{
    assetObservations(limit: $limit) {{ {_EVENT_FIELDS} }}
}} }} }}
"""
_COUNTS = """
query Counts($keys: [AssetKeyInput!]) { assetNodes(assetKeys: $keys) {
    assetKey { path } assetMaterializations(limit: 10) { runId }
} }
"""
_WIPE = """
mutation Wipe($ranges: [PartitionsByAssetSelector!]!) { wipeAssets(assetPartitionRanges: $ranges) {
    __typename ... on PythonError { message }
} }
"""
_EVALUATIONS = """
query Evaluations($key: AssetKeyInput!, $limit: Int!) {
    assetConditionEvaluationRecordsOrError(assetKey: $key, limit: $limit) {
        ... on AssetConditionEvaluationRecords { records {
            evaluationId numRequested runIds evaluationNodes { userLabel expandedLabel }
        } }
    }
}
"""
