"""The events of a run that dbt does not cause, and the summary at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg

from dagster_sao.core.decision.decide import Action, Decision
from dagster_sao.core.decision.decide_functions import FunctionAction
from dagster_sao.core.decision.decide_tests import TestAction, TestDecision
from dagster_sao.core.decision.plan import Plan
from dagster_sao.core.durations import format_duration
from dagster_sao.core.manifest.graph import ProjectGraph
from dagster_sao.core.state.state import FailedAttempt, LastBuild, Verdict, VerdictStatus
from dagster_sao.orchestration.events.event_schema import (
    HOW_KEY,
    Outcome,
    ResultOfTest,
    ReusedNode,
    decided_metadata,
    decided_test_metadata,
    failure_metadata,
    outcome_metadata,
    reused_metadata,
    run_end_metadata,
    verdict_metadata,
)
from dagster_sao.orchestration.project.loaded import AssetKeys
from dagster_sao.warehouse.adapters import traits_of
from dbt_dagster_sao.data_tests.handover import AnsweredTest, How

_LONGEST_TABLE = 500
_NAMED = 5
_PAST_OF_FUNCTIONS = {FunctionAction.HOLD: "held", FunctionAction.SKIP: "skipped"}
_PAST = {Action.BUILD: "built", Action.REUSE: "reused", Action.HOLD: "held", Action.SKIP: "skipped"}


_REUSED = "reused"
_SPARED = frozenset({How.MERGED.value, How.PROVEN.value})
_SEVERITIES = {VerdictStatus.WARN: dg.AssetCheckSeverity.WARN}


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """The outcome of a test in a run."""

    __test__ = False  # pytest takes it for a test otherwise

    what: str
    """pass, warn, fail or error as in dbt, or else reused or skipped."""
    why: str
    verdict: Verdict | None = None
    """The verdict that stands, None where there is none or it may no longer be true."""

    @property
    def is_failing(self) -> bool:
        """Whether its verdict is that it fails."""
        return self.verdict is not None and self.verdict.is_failing

    def to_json(self) -> ResultOfTest:
        """Return it as JSON."""
        if self.verdict is None:
            return {"result": self.what, "reason": self.why}
        of_run: ResultOfTest = {
            "result": self.what,
            "reason": self.why,
            "status": self.verdict.status.value,
            "failures": self.verdict.failures,
            "how": self.how,
        }
        return {**of_run, "proof": self.verdict.proof} if self.verdict.proof else of_run

    @property
    def how(self) -> str:
        """How the verdict that stands was found, empty where there is none."""
        if self.verdict is None:
            return ""
        return self.what if self.what == _REUSED else self.verdict.how.value


@dataclass
class RunReport:
    """The events of a run that dbt does not cause, and the outcome of each node and test as a reader sees it."""

    log: Any
    graph: ProjectGraph
    keys: AssetKeys
    environment: str = ""
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The outcome of each node, and why: built, failed, reused, held, skipped."""
    tests: dict[str, TestOutcome] = field(default_factory=dict)
    functions: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The outcome of each function that was due, and why: created, failed, held, skipped."""
    seconds_saved: float = 0.0
    verified: dict[str, bool] = field(default_factory=dict)
    """The proven tests that were run all the same, each with whether its answer contradicts the proof."""
    is_untraced: bool = False
    """Whether dbt built something without recording its reads."""
    source_problems: Sequence[str] = ()
    """A sentence for each source that could not be probed or is not tracked."""

    @property
    def has_anything(self) -> bool:
        """Whether there is an outcome of any node, test or function."""
        return bool(self.outcomes or self.tests or self.functions)

    def sources_had(self, problems: Sequence[str]) -> None:
        """Note a sentence for each source that could not be probed or is not tracked."""
        self.source_problems = tuple(problems)

    def untraced(self) -> None:
        """Note that dbt built something without recording its reads."""
        self.is_untraced = True

    def functions_were(self, what: str, functions: Iterable[str], why: str) -> None:
        """Note the outcome of functions: created or failed."""
        self.functions.update(dict.fromkeys(functions, (what, why)))

    def not_built(self, uid: str, decision: Decision, last_build: LastBuild | None) -> dg.AssetObservation:
        """Return the event of a node that is not built."""
        seconds = last_build.seconds if last_build is not None else None
        metadata = decided_metadata(Outcome.of(decision.action), decision, seconds_saved=seconds)
        self.outcomes[uid] = _PAST[decision.action], decision.message
        return self._observation(uid, decision.message, metadata)

    def reused(self, reused: Mapping[str, Decision], builds: Mapping[str, LastBuild]) -> tuple[str, Mapping[str, Any]]:
        """Return the event by which the run reports all the nodes that it reuses: its message and metadata.

        One event, since Dagster keeps events for good, and a run of a large project reuses nearly all of it.
        """
        nodes = []
        for uid, decision in reused.items():
            seconds = builds[uid].seconds if uid in builds else 0.0
            nodes.append(ReusedNode(uid, decision.reason.value, decision.message, seconds))
            self.outcomes[uid] = _REUSED, decision.message
            self.seconds_saved += seconds
        models = "model" if len(nodes) == 1 else "models"
        return f"Reuses {len(nodes)} {models}.", reused_metadata(nodes)

    def planned(self, plan: Plan, builds: Collection[str], waiting: Collection[str], tests: Sequence[str]) -> None:
        """Log the decisions of a round, each with its reason."""
        known = {*builds, *waiting}
        others = [uid for uid in plan.decisions if uid not in known]
        waits = f", {len(waiting)} waiting" if waiting else ""
        tested = f" {len(tests)} of {len(plan.tests)} tests to run." if plan.tests else ""
        lines = [f"{len(builds)} to build, {len(others)} not{waits}, of {len(plan.decisions)} selected.{tested}"]
        decided = [*builds, *others]
        for uid in decided[:_LONGEST_TABLE]:
            decision = plan.decisions[uid]
            said = "to build" if decision.builds else _PAST[decision.action]
            said += f" ({decision.how})" if decision.how else ""
            lines.append(f"{self.graph.label(uid)}: {said}. {decision.message}")
        if len(decided) > _LONGEST_TABLE:
            lines.append(f"… and {len(decided) - _LONGEST_TABLE} more")
        lines += [f"{self.graph.label(uid)}: to run. {plan.tests[uid].message}" for uid in tests[:_LONGEST_TABLE]]
        for uid, due in plan.functions.items():
            if due.creates:
                lines.append(f"{self.graph.label(uid)}: to create. {due.message}")
            elif due.action is not FunctionAction.REUSE:
                lines.append(f"{self.graph.label(uid)}: {_PAST_OF_FUNCTIONS[due.action]}. {due.message}")
                self.functions[uid] = _PAST_OF_FUNCTIONS[due.action], due.message
        # One message: each is stored by itself, which for hundreds of models takes seconds.
        self.log.info("\n".join(lines))

    def not_started(self, uid: str, message: str) -> dg.AssetObservation:
        """Return the event of a node that the run did not reach."""
        self.outcomes[uid] = "skipped", message
        return self._observation(uid, message, outcome_metadata(Outcome.SKIPPED, message))

    def lost(self, uid: str, message: str) -> dg.AssetObservation:
        """Return the event of a node whose lease expired: this run cannot know its outcome."""
        self.outcomes[uid] = "skipped", message
        return self._observation(uid, message, outcome_metadata(Outcome.LOST, message))

    def answered(
        self, uid: str, verdict: Verdict, decision: TestDecision | None, answered: AnsweredTest | None = None
    ) -> None:
        """Note dbt's answer about a test. A test without a decision ran with another of its name."""
        why = decision.message if decision is not None else "dbt ran it with others"
        if answered is not None and answered.is_verified:
            self.verified[uid] = answered.is_contradicted
        self.tests[uid] = TestOutcome(verdict.status.value, why, verdict)

    def not_run(self, uid: str, decision: TestDecision, verdict: Verdict | None) -> None:
        """Note that a test is not run, and the verdict that stands."""
        if decision.action is TestAction.REUSE and verdict is not None:
            self.tests[uid] = TestOutcome(_REUSED, decision.message, verdict)
        else:
            self.tests[uid] = TestOutcome("skipped", decision.message)

    def waits(self, uid: str, message: str) -> dg.AssetObservation:
        """Return the event of a node that the run cannot build yet."""
        self.log.info(f"{self.graph.label(uid)}: {message}")
        return self._observation(uid, message, outcome_metadata(Outcome.WAITS, message))

    def starts(self, uid: str) -> dg.AssetObservation:
        """Return the event of a node that the run builds after it has waited."""
        message = "Starts after waiting"
        return self._observation(uid, message, outcome_metadata(Outcome.STARTS, message))

    def failed(self, uid: str, failure: FailedAttempt, message: str) -> dg.AssetObservation:
        """Return the event of a node that failed."""
        self.outcomes[uid] = "failed", message
        record = failure_metadata(failure, self.environment)
        return self._observation(uid, message, {**outcome_metadata(Outcome.FAILED, message), **record})

    def limited(self, uid: str, failure: FailedAttempt, decision: Decision) -> dg.AssetObservation:
        """Return the event of a node that was built with a part of its rows."""
        message = (
            f"Built with {failure.limited_by}, so with a part of its rows. Not its last build: the next run without it builds"
            " it again"
        )
        self.outcomes[uid] = "built", message
        record = failure_metadata(failure, self.environment)
        return self._observation(uid, message, {**decided_metadata(Outcome.BUILT, decision, message), **record})

    def stuck(self, selected: AbstractSet[str]) -> str:
        """Return one sentence about the nodes that an earlier failure holds, and one about tests that still fail; empty without either.

        Of the nodes, those that are `selected`: nobody asked the run for the views that it builds beside them.
        """
        outcomes = {uid: outcome for uid, outcome in self.outcomes.items() if uid in selected}
        stuck = [
            f"{self.graph.label(uid)} is {what} ({why})"
            for uid, (what, why) in (*outcomes.items(), *self.functions.items())
            if what in {_PAST[Action.HOLD], _PAST[Action.SKIP]}
        ]
        failing = [
            f"{self.graph.label(uid)} ({outcome.why})"
            for uid, outcome in self.tests.items()
            if outcome.what == _REUSED and outcome.is_failing
        ]
        sentences = []
        if stuck:
            sentences.append(f"Not built because of an earlier failure: {_first_of(stuck)}.")
        if failing:
            sentences.append(f"Still failing: {_first_of(failing)}.")
        return " ".join(sentences)

    def built(self, uid: str, message: str) -> None:
        """Note that a node was built."""
        self.outcomes[uid] = "built", message

    def summary(self, seconds: float) -> tuple[str, Mapping[str, Any]]:
        """Return the end of the run's log: the counts, and as metadata also seconds saved and the table of decisions."""
        counts = dict.fromkeys(("built", "reused", "failed", "held", "skipped"), 0)
        for what, _ in self.outcomes.values():
            counts[what] += 1
        text = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "No models"
        if self.seconds_saved:
            text += f"; about {format_duration(timedelta(seconds=self.seconds_saved))} of building saved"
        if self.functions:
            found = Counter(what for what, _ in self.functions.values())
            text += f"; functions: {', '.join(f'{count} {what}' for what, count in sorted(found.items()))}"
        if self.tests:
            text += f"; tests: {self._counted_tests()}"
        if self.source_problems:
            text += f"; new data may not be detected in sources: {_first_of(self.source_problems).rstrip('.')}"
        if self.is_untraced:
            text += ". dbt did not record its reads, so everything that its templates may read counts as code"
            if traits_of(self.graph.adapter_type).is_embedded:
                text += ". A change of its DuckDB file that was undone right before or after dbt would go unseen"
        return f"{text}.", {
            # First: the UI shows the beginning of an event.
            "decisions": dg.MetadataValue.md(self._table()),
            **counts,
            **run_end_metadata(self.source_problems, {uid: one.to_json() for uid, one in self.tests.items()}),
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
        return "\n".join([*lines, *self._table_of_functions(), *self._table_of_tests()])

    def _table_of_functions(self) -> list[str]:
        if not self.functions:
            return []
        lines = ["", "| function | result | reason |", "|---|---|---|"]
        for uid, (what, why) in [*self.functions.items()][:_LONGEST_TABLE]:
            reason = why.replace("|", "\\|")
            lines.append(f"| {self.graph.label(uid)} | {what} | {reason} |")
        return lines

    def _table_of_tests(self) -> list[str]:
        if not self.tests:
            return []
        order = ("error", "fail", "warn", "skipped", "pass", "reused")
        rows = sorted(self.tests.items(), key=lambda item: order.index(item[1].what))
        lines = ["", "| test | result | how | reason |", "|---|---|---|---|"]
        for uid, outcome in rows[:_LONGEST_TABLE]:
            proof = outcome.verdict.proof if outcome.verdict is not None and outcome.how == How.PROVEN else ""
            reason = ". ".join(filter(None, (outcome.why, proof))).replace("|", "\\|")
            lines.append(f"| {self.graph.label(uid)} | {outcome.what} | {outcome.how} | {reason} |")
        if len(rows) > _LONGEST_TABLE:
            lines.append(f"| … and {len(rows) - _LONGEST_TABLE} more | | | |")
        return lines

    def _counted_tests(self) -> str:
        found = Counter(outcome.what for outcome in self.tests.values())
        text = ", ".join(f"{count} {what}" for what, count in sorted(found.items()))
        spared = Counter(outcome.how for outcome in self.tests.values() if outcome.how in _SPARED)
        if spared:
            text += f" ({', '.join(f'{count} {how}' for how, count in sorted(spared.items()))})"
        if self.verified:
            wrong = sum(self.verified.values())
            text += f"; verified proofs: {len(self.verified)}, contradicted: {wrong}"
        return text

    def _observation(self, uid: str, message: str, metadata: Mapping[str, Any]) -> dg.AssetObservation:
        return dg.AssetObservation(self.keys.by_unique_id[uid], description=message, metadata=metadata)


def _first_of(found: Sequence[str]) -> str:
    more = [f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return "; ".join([*found[:_NAMED], *more])


def verdict_evaluation(
    check: dg.AssetCheckKey, verdict: Verdict, metadata: Mapping[str, Any], description: str | None = None
) -> dg.AssetCheckEvaluation:
    """Return a verdict as the result of a check: what the test answered, when and in which run."""
    return dg.AssetCheckEvaluation(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=verdict.status is VerdictStatus.PASS,
        severity=_SEVERITIES.get(verdict.status, dg.AssetCheckSeverity.ERROR),
        description=description,
        metadata=verdict_metadata(verdict, metadata),
    )


def reused_checks(
    checks: Mapping[str, dg.AssetCheckKey], decisions: Mapping[str, TestDecision], verdicts: Mapping[str, Verdict]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield the verdict of each reused test again: Dagster shows a check that is planned and not reported as skipped.

    It is what the test answered when it was run, and says so. No materialization is named as tested: the latest may hold the
    same rows and yet be another than the one that the test read.
    """
    for uid, check in checks.items():
        decision, verdict = decisions[uid], verdicts.get(uid)
        if verdict is not None:
            metadata = {**decided_test_metadata(decision), HOW_KEY: _REUSED}
            yield verdict_evaluation(check, verdict, metadata, decision.message)
