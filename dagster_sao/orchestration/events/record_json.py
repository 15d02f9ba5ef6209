"""The JSON of the records that events and tables carry: builds, failed attempts, verdicts and functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dagster_sao.core.code.evidence import Evidence, StartReads, TracedReads
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.state.state import (
    BatchRange,
    FailedAttempt,
    FailureKind,
    FunctionState,
    LastBuild,
    SourceState,
    Verdict,
    VerdictStatus,
    VersionHistory,
)
from dagster_sao.warehouse.redaction import masked
from dbt_dagster_sao.data_tests.handover import How

_LAYOUT = 1


def build_to_json(build: LastBuild, *, invocation_id: str | None = None, environment: str = "") -> dict[str, Any]:
    """Return a build record as JSON; empty parts are left out."""
    # Keys keep the words under which they were first stored, whatever the attributes are called now.
    record = {
        "layout": _LAYOUT,
        "started_at": build.started_at.isoformat(),
        "ended_at": build.ended_at.isoformat(),
        "fingerprint": dict(build.fingerprint.parts),
        "compiled": build.fingerprint.compiled,
        "consumed": dict(build.consumed),
        "data_version": build.data_version,
        "run_id": build.run_id,
        "shape": build.column_signature,
        "definition_inputs": dict(build.view_bindings),
        "columns": dict(build.columns),
        "parents_built_in": dict(build.parents_built_in),
        "definition": build.definition,
        "leaves": dict(build.view_leaf_versions),
        "planned_code": build.manifest_code_mark,
        "replaced_in": build.replaced_in,
        "evidence": _evidence_to_json(build.evidence),
        "attempt_id": build.attempt_id,
        "stirred": dict(build.stirred),
        "mended_by": build.mended_by,
        "history": history_to_json(build.history),
        "invocation_id": invocation_id,
        "environment": environment,
    }
    return {name: value for name, value in record.items() if value not in (None, "", {}, [])}


def build_from_json(record: object) -> LastBuild | None:
    """Return the build of a record, None for one that this version cannot read: the node then counts as never built."""
    if not isinstance(record, Mapping) or record.get("layout") != _LAYOUT:
        return None
    try:
        return LastBuild(
            started_at=_moment(record["started_at"]),
            ended_at=_moment(record["ended_at"]),
            fingerprint=Fingerprint(_strings(record.get("fingerprint")), record.get("compiled")),
            consumed=_strings(record.get("consumed")),
            data_version=record["data_version"],
            run_id=record["run_id"],
            column_signature=record.get("shape") or "",
            view_bindings=_strings(record.get("definition_inputs")),
            columns=_strings(record.get("columns")),
            parents_built_in=_strings(record.get("parents_built_in")),
            definition=str(record.get("definition") or ""),
            view_leaf_versions=_strings(record.get("leaves")),
            manifest_code_mark=str(record.get("planned_code") or ""),
            replaced_in=str(record.get("replaced_in") or ""),
            evidence=_evidence_from_json(record.get("evidence")),
            attempt_id=str(record.get("attempt_id") or ""),
            stirred={uid: int(times) for uid, times in (record.get("stirred") or {}).items()},
            mended_by=mended_by(record),
            history=_history_from_json(record.get("history")),
        )
    except (KeyError, TypeError, ValueError):
        return None


def environment_of(record: object) -> str:
    """Return the environment of a build or failure record: empty for the one that the project is configured with."""
    return str(record.get("environment") or "") if isinstance(record, Mapping) else ""


def mended_by(record: object) -> str:
    """Return the `LastBuild.mended_by` of a build record."""
    return str(record.get("mended_by") or "") if isinstance(record, Mapping) else ""


def failure_to_json(failure: FailedAttempt, environment: str = "") -> dict[str, Any]:
    """Return a failed attempt as JSON."""
    return {
        "environment": environment,
        "layout": _LAYOUT,
        "failed_at": failure.failed_at.isoformat(),
        "attempts": failure.attempts,
        "fingerprint": failure.fingerprint,
        "consumed": dict(failure.consumed),
        "kind": failure.kind.value,
        **({"limited_by": failure.limited_by} if failure.limited_by else {}),
        **({"missing_batches": _batches_to_json(failure.missing_batches)} if failure.missing_batches else {}),
        **({"batches_unknown": True} if failure.batches_unknown else {}),
        **({"left": failure.left} if failure.left else {}),
        "origin": failure.origin,
        "after": failure.after,
        "sequence": failure.sequence,
    }


def failure_from_json(record: object) -> FailedAttempt | None:
    """Return the failed attempt of a record, None for one that this version cannot read."""
    if not isinstance(record, Mapping) or record.get("layout") != _LAYOUT:
        return None
    try:
        return FailedAttempt(
            failed_at=_moment(record["failed_at"]),
            attempts=int(record["attempts"]),
            fingerprint=record["fingerprint"],
            consumed=_strings(record["consumed"]),
            kind=FailureKind(record["kind"]),
            limited_by=str(record.get("limited_by") or ""),
            missing_batches=tuple((_moment(start), _moment(end)) for start, end in record.get("missing_batches") or ()),
            batches_unknown=bool(record.get("batches_unknown")),
            left=str(record.get("left") or ""),
            origin=str(record.get("origin") or ""),
            after=record.get("after"),
            sequence=int(record.get("sequence") or 0),
        )
    except (KeyError, TypeError, ValueError):
        return None


def verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON; empty parts are left out."""
    record = {
        "layout": _LAYOUT,
        "status": verdict.status.value,
        "at": verdict.at.isoformat(),
        "run_id": verdict.run_id,
        "fingerprint": dict(verdict.fingerprint.parts),
        "versions": dict(verdict.versions),
        "failures": verdict.failures,
        "attempts": verdict.attempts,
        "planned_code": verdict.manifest_code_mark,
        "evidence": _evidence_to_json(verdict.evidence),
        "how": "" if verdict.how is How.RUN else verdict.how.value,
        "proof": verdict.proof,
        "database": verdict.database,
        "limited_by": verdict.limited_by,
    }
    return {name: value for name, value in record.items() if value not in (None, "", {})}


def verdict_from_json(record: object) -> Verdict | None:
    """Return the verdict of a record, None for one that this version cannot read: the test then counts as never run."""
    if not isinstance(record, Mapping) or record.get("layout") != _LAYOUT:
        return None
    try:
        failures = record.get("failures")
        return Verdict(
            status=VerdictStatus(record["status"]),
            at=_moment(record["at"]),
            run_id=record["run_id"],
            fingerprint=Fingerprint(_strings(record.get("fingerprint"))),
            versions=_strings(record.get("versions")),
            failures=int(failures) if failures is not None else None,
            attempts=int(record["attempts"]),
            manifest_code_mark=str(record.get("planned_code") or ""),
            evidence=_evidence_from_json(record.get("evidence")),
            how=How(record.get("how", How.RUN)),
            proof=str(record.get("proof") or ""),
            database=str(record.get("database") or ""),
            limited_by=str(record.get("limited_by") or ""),
        )
    except (KeyError, TypeError, ValueError):
        return None


def function_to_json(state: FunctionState) -> dict[str, Any]:
    """Return the state of a function as JSON."""
    return {
        "layout": _LAYOUT,
        "code": state.code,
        "at": state.at.isoformat(),
        "run_id": state.run_id,
        "planned_code": state.manifest_code_mark,
        "failed_code": state.failed_code,
        "attempts": state.attempts,
    }


def function_from_json(record: object) -> FunctionState | None:
    """Return the state of a function, None for a record that this version cannot read: it counts as never created."""
    if not isinstance(record, Mapping) or record.get("layout") != _LAYOUT:
        return None
    try:
        return FunctionState(
            code=str(record["code"]),
            at=_moment(record["at"]),
            run_id=str(record["run_id"]),
            manifest_code_mark=str(record["planned_code"]),
            failed_code=str(record["failed_code"]),
            attempts=int(record["attempts"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def source_state(token: str, recorded_at: datetime, history: object) -> SourceState:
    """Return a source's state from the parts of its latest event."""
    return SourceState(token, recorded_at, _history_from_json(history))


def _batches_to_json(batches: tuple[BatchRange, ...]) -> list[list[str]]:
    return [[start.isoformat(), end.isoformat()] for start, end in batches]


def _evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    """Return the evidence of a run as JSON, without false and empty parts."""
    reads = evidence.reads
    record: dict[str, Any] = {
        "untracked": [masked(name) for name in evidence.untracked],
        "is_deterministic": evidence.is_deterministic,
        "is_traced": reads is not None,
        "definition": evidence.definition,
    }
    if reads is not None:
        record["reads"] = dict(reads.values)
        record["unseen"] = sorted(reads.unseen)
        record["start"] = _start_to_json(reads.start)
        record["follows_state"] = reads.follows_state
        record["asks_rows"] = reads.asks_rows
        record["asks_columns"] = reads.asks_columns
        record["asks_others"] = reads.asks_others
    return {name: value for name, value in record.items() if value}


def _evidence_from_json(record: object) -> Evidence:
    """Return the evidence of a run. Raises TypeError for a record of another form."""
    if not record:
        return Evidence()
    if not isinstance(record, Mapping):
        raise TypeError
    reads = None
    if record.get("is_traced"):
        reads = TracedReads(
            values=_strings(record.get("reads")),
            unseen=frozenset(record.get("unseen") or ()),
            start=_start_from_json(record.get("start")),
            follows_state=bool(record.get("follows_state")),
            asks_rows=bool(record.get("asks_rows")),
            asks_columns=bool(record.get("asks_columns")),
            asks_others=bool(record.get("asks_others")),
        )
    return Evidence(
        reads,
        tuple(record.get("untracked") or ()),
        bool(record.get("is_deterministic")),
        str(record.get("definition") or ""),
    )


def _start_to_json(start: StartReads) -> dict[str, Any]:
    if not start.parts:
        return {}
    return {"parts": sorted(start.parts), "reads": dict(start.values), "path": dict(start.path)}


def _start_from_json(record: object) -> StartReads:
    if not isinstance(record, Mapping):
        return StartReads()
    return StartReads(frozenset(record.get("parts") or ()), _strings(record.get("reads")), _strings(record.get("path")))


def history_to_json(history: VersionHistory) -> list[list[str]]:
    """Return a history as JSON."""
    return [[version, moment.isoformat()] for version, moment in history]


def _history_from_json(history: object) -> VersionHistory:
    # It only shows how long ago a change was, so an unreadable history counts as none.
    if not isinstance(history, list):
        return ()
    try:
        return tuple((str(version), _moment(moment)) for version, moment in history)
    except (TypeError, ValueError):
        return ()


def _strings(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError
    return value


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return moment
