"""What a run says of what it did not build, and of all it did in the end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg

from dagster_sao.core.decide import Action, Decision
from dagster_sao.core.durations import format_duration
from dagster_sao.core.graph import ProjectGraph
from dagster_sao.core.plan import Plan
from dagster_sao.core.state import FailedAttempt, LastBuild
from dagster_sao.orchestration.private import last_completed_check_evaluations
from dagster_sao.orchestration.project import AssetKeys
from dagster_sao.orchestration.records import (
    DECISION_KEY,
    FAILURE_KEY,
    REASON_CODE_KEY,
    REASON_KEY,
    SECONDS_SAVED_KEY,
    failure_to_json,
)

_LONGEST_TABLE = 500
_NAMED = 5
_PAST = {Action.BUILD: "built", Action.REUSE: "reused", Action.HOLD: "held", Action.SKIP: "skipped"}


@dataclass
class RunReport:
    """The events of a run that dbt does not cause, and what became of each node."""

    log: Any
    graph: ProjectGraph
    keys: AssetKeys
    environment: str = ""
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What became of each node, and why: built, failed, reused, held, skipped."""
    seconds_saved: float = 0.0

    def not_built(self, uid: str, decision: Decision, last_build: LastBuild | None) -> dg.AssetObservation:
        """Return what the run says of a node that it does not build."""
        said = "reused" if decision.action is Action.REUSE else decision.action.value
        metadata: dict[str, Any] = {
            DECISION_KEY: said,
            REASON_CODE_KEY: decision.reason.value,
            REASON_KEY: decision.message,
        }
        if last_build is not None:
            metadata[SECONDS_SAVED_KEY] = last_build.seconds
            if decision.action is Action.REUSE:
                self.seconds_saved += last_build.seconds
        self.outcomes[uid] = _PAST[decision.action], decision.message
        return self._observation(uid, decision.message, metadata)

    def planned(self, plan: Plan, builds: Collection[str], waiting: Collection[str]) -> None:
        """Log the decisions of a round, each with its reason."""
        known = {*builds, *waiting}
        others = [uid for uid in plan.decisions if uid not in known]
        waits = f", {len(waiting)} waiting" if waiting else ""
        lines = [f"{len(builds)} to build, {len(others)} not{waits}, of {len(plan.decisions)} selected."]
        decided = [*builds, *others]
        for uid in decided[:_LONGEST_TABLE]:
            decision = plan.decisions[uid]
            said = "to build" if decision.builds else _PAST[decision.action]
            lines.append(f"{self.graph.label(uid)}: {said}. {decision.message}")
        if len(decided) > _LONGEST_TABLE:
            lines.append(f"… and {len(decided) - _LONGEST_TABLE} more")
        # One message: each is stored by itself, which for hundreds of models takes seconds.
        self.log.info("\n".join(lines))

    def not_started(self, uid: str, message: str) -> dg.AssetObservation:
        """Return what the run says of a node that it did not come to."""
        self.outcomes[uid] = "skipped", message
        return self._observation(uid, message, {DECISION_KEY: Action.SKIP.value, REASON_KEY: message})

    def waits(self, uid: str, message: str) -> dg.AssetObservation:
        """Return what the run says of a node that it cannot build yet."""
        self.log.info(f"{self.graph.label(uid)}: {message}")
        return self._observation(uid, message, {DECISION_KEY: "waits", REASON_KEY: message})

    def starts(self, uid: str) -> dg.AssetObservation:
        """Return what the run says of a node that it waited for, when it builds it after all."""
        message = "Starts after waiting"
        return self._observation(uid, message, {DECISION_KEY: "starts", REASON_KEY: message})

    def failed(self, uid: str, failure: FailedAttempt, message: str) -> dg.AssetObservation:
        """Return what the run says of a node that failed."""
        self.outcomes[uid] = "failed", message
        record = dg.MetadataValue.json(failure_to_json(failure, self.environment))
        return self._observation(uid, message, {DECISION_KEY: "failed", REASON_KEY: message, FAILURE_KEY: record})

    def stuck(self) -> str:
        """Return a sentence about what an earlier failure keeps from being built, empty when there is nothing."""
        stuck = [
            f"{self.graph.label(uid)} is {what} ({why})"
            for uid, (what, why) in self.outcomes.items()
            if what in {_PAST[Action.HOLD], _PAST[Action.SKIP]}
        ]
        if not stuck:
            return ""
        more = [f"and {len(stuck) - _NAMED} more"] if len(stuck) > _NAMED else []
        return f"Not built because of an earlier failure: {'; '.join(stuck[:_NAMED] + more)}."

    def built(self, uid: str, message: str) -> None:
        """Note that a node was built."""
        self.outcomes[uid] = "built", message

    def summary(self, seconds: float) -> tuple[str, Mapping[str, Any]]:
        """Return the end of the run's log: the counts, and as metadata also seconds saved and the table of decisions."""
        counts = dict.fromkeys(("built", "reused", "failed", "held", "skipped"), 0)
        for what, _ in self.outcomes.values():
            counts[what] += 1
        text = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        if self.seconds_saved:
            text += f"; about {format_duration(timedelta(seconds=self.seconds_saved))} of building saved"
        return f"{text}.", {
            # First: the UI shows the beginning of an event.
            "decisions": dg.MetadataValue.md(self._table()),
            **counts,
            "seconds": round(seconds, 3),
            "seconds_saved": round(self.seconds_saved, 3),
        }

    def _table(self) -> str:
        # What happened first: in a large project most is reused.
        order = {"failed": 0, "skipped": 1, "held": 2, "built": 3, "reused": 4}
        rows = sorted(self.outcomes.items(), key=lambda item: order[item[1][0]])
        lines = ["| model | decision | reason |", "|---|---|---|"]
        for uid, (what, why) in rows[:_LONGEST_TABLE]:
            reason = why.replace("|", "\\|")
            lines.append(f"| {self.graph.label(uid)} | {what} | {reason} |")
        if len(rows) > _LONGEST_TABLE:
            lines.append(f"| … and {len(rows) - _LONGEST_TABLE} more | | |")
        return "\n".join(lines)

    def _observation(self, uid: str, message: str, metadata: Mapping[str, Any]) -> dg.AssetObservation:
        return dg.AssetObservation(self.keys.by_unique_id[uid], description=message, metadata=metadata)


def reused_checks(
    instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield the last result of each check again: one that is planned and not reported would be replaced by `skipped`.

    It remains the result of the materialization that was tested. A new AssetCheckResult would also read the asset's
    records and store a step output, which cost more than all else that a run with nothing to build does.
    """
    for last in last_completed_check_evaluations(instance, checks):
        yield dg.AssetCheckEvaluation(
            asset_key=last.asset_key,
            check_name=last.check_name,
            passed=last.passed,
            severity=last.severity,
            description=last.description,
            target_materialization_data=last.target_materialization_data,
            metadata={
                **last.metadata,
                DECISION_KEY: Action.REUSE.value,
                REASON_KEY: "Skipped due to model reuse",
            },
        )
