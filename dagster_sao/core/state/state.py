"""The state, as values: last builds, tokens, failed attempts, verdicts. Other modules read it from Dagster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from dagster_sao.core.code.evidence import UNSEEN, Evidence, code_digest
from dagster_sao.core.code.fingerprint import Fingerprint
from dagster_sao.core.code.versions import digest
from dagster_sao.core.durations import doubled, is_waiting
from dbt_dagster_sao.data_tests.handover import How

FIRST_RETRY = timedelta(minutes=5)
_LONGEST_RETRY = timedelta(hours=6)


def retry_wait(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts in vain: 5 minutes, doubling up to 6 hours.

    >>> [str(retry_wait(attempts)) for attempts in (1, 2, 100)]
    ['0:05:00', '0:10:00', '6:00:00']
    """
    return doubled(FIRST_RETRY, attempts, _LONGEST_RETRY)


BatchRange = tuple[datetime, datetime]
"""The event times of one batch, or of several in a row: from the first to before the second."""

VersionHistory = tuple[tuple[str, datetime], ...]
"""The latest data versions with the time each appeared, oldest first."""


@dataclass(frozen=True, slots=True)
class LastBuild:
    """The last successful build of a node in this environment."""

    started_at: datetime
    ended_at: datetime
    fingerprint: Fingerprint
    consumed: Mapping[str, str]
    """The data version of each parent, captured before the build read anything."""
    data_version: str
    run_id: str
    column_signature: str = ""
    """A digest that determines its columns: of its code, and of the signatures of its parents."""
    view_bindings: Mapping[str, str] = field(default_factory=dict)
    """For a view: the markers of the parents that its stored definition is bound to."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """For a view: the signatures of its parents' columns that its stored definition is bound to, where they are known."""
    parents_built_in: Mapping[str, str] = field(default_factory=dict)
    """For a view: the runs that had built those of its parents whose columns were not known, and which its own run did not build."""
    definition: str = ""
    """For a view: the columns that it was created anew for, since its rows may be others from then on."""
    replaced_in: str = ""
    """The run that last replaced its relation, which another run may since have added rows to."""
    view_leaf_versions: Mapping[str, str] = field(default_factory=dict)
    """With `lag_tolerance`: the versions of the nodes and sources that it reads through views."""
    history: VersionHistory = ()
    manifest_code_mark: str = ""
    """The code as the plan knew it (`Project.manifest_code_mark`): dbt may have read newer files than its manifest."""
    evidence: Evidence = UNSEEN
    """The evidence that the run collected."""
    attempt_id: str = ""
    """The id that the relation's `Writer` carries too; empty where none was noted."""
    stirred: Mapping[str, int] = field(default_factory=dict)
    """The parents that moved during the run of the build before it and not since, each with how many times in a row."""
    mended_by: str = ""
    """The id of the latest attempt that restored a relation of unknown content. Projects that only know the node's last build
    may have read that content, and took it for the version of the build before."""

    @property
    def code(self) -> str:
        """The digest of the code that was run, as far as the rows depend on it."""
        return code_digest(self.fingerprint, self.evidence)

    @property
    def seconds(self) -> float:
        """How many seconds it took."""
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class SourceState:
    """A source's latest recorded token."""

    token: str
    recorded_at: datetime
    history: VersionHistory = ()
    columns: str = ""
    """The signature of its columns as they were last seen, empty where they never were."""
    since: str = field(default="", compare=False)
    """The event since which this process has always read this token: it may have been another one before."""

    @property
    def version(self) -> str:
        """Its data version: other columns are new data, also when they come without a new token."""
        return self.version_of(self.token)

    def version_of(self, token: str) -> str:
        """Return the data version that goes with an earlier token."""
        return digest([token, self.columns]) if self.columns else token


class FailureKind(str, Enum):
    """The kind of a failure."""

    BUILD = "build"
    INTERRUPTED = "interrupted"
    """Its run, or dbt, was killed or lost before it could report the build's outcome."""
    LIMITED = "limited"
    """dbt was told to build less than the whole, such as with `--empty`, and did."""
    TERMINATED = "terminated"
    """Somebody terminated its run."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """The latest attempt to build a node, when it came after the last build and failed.

    What it left in the warehouse is not known: an adapter may have replaced the table before the failure.
    """

    failed_at: datetime
    attempts: int
    """How many times in a row with the same code and data, this one included."""
    fingerprint: str = ""
    """Empty when it was interrupted: what it was built from is not known, so it may be tried again at once."""
    consumed: Mapping[str, str] = field(default_factory=dict)
    kind: FailureKind = FailureKind.BUILD
    limited_by: str = ""
    """The option that limited it, such as `--empty`."""
    missing_batches: tuple[BatchRange, ...] = ()
    """Of a microbatch model: the batches that failed, or were not built whole."""
    batches_unknown: bool = False
    """Of a microbatch model: whether any batch may be missing."""
    left: str = ""
    """The data version of the rows that it left, if dbt continues with its children; it equals no other."""
    origin: str = ""
    """When it was interrupted: what the node followed from in the end (`core.origins`), by which a sensor waits."""
    after: str | None = None
    """The id of the last build before it, None where an older version recorded it. Machines have several clocks: an attempt
    came after the last build if it knew that build."""
    sequence: int = 0
    """Which attempt in a row it is since that build, whatever it was built from."""
    run_id: str = field(default="", compare=False)

    @property
    def limited_until(self) -> datetime:
        """Until when nothing is built again because each build was limited: the first time it is at once."""
        return self.failed_at + (retry_wait(self.attempts - 1) if self.attempts > 1 else timedelta(0))

    @property
    def is_incomplete(self) -> bool:
        """Whether it is known to have left the relation with a part of its rows."""
        return self.kind is FailureKind.LIMITED or bool(self.missing_batches)

    def is_newer_than(self, other: FailedAttempt) -> bool:
        """Return whether it came after another attempt since the same build."""
        if self.sequence and other.sequence:
            return self.sequence >= other.sequence
        return self.failed_at >= other.failed_at

    def waits(self, now: datetime) -> bool:
        """Return whether it is too soon to try again with nothing changed."""
        return is_waiting(now, self.failed_at, retry_wait(self.attempts))

    def is_limited_again(self, now: datetime) -> bool:
        """Return whether it is too soon to try once more what was limited more than once in a row."""
        wait = self.limited_until - self.failed_at
        return self.kind is FailureKind.LIMITED and is_waiting(now, self.failed_at, wait)

    @property
    def retry_at(self) -> datetime:
        """When it may be tried again with nothing changed."""
        return self.failed_at + retry_wait(self.attempts)


@dataclass(frozen=True, slots=True)
class Writer:
    """The last writer of a relation. An attempt counts as one from before dbt starts."""

    attempt_id: str
    node: str
    """The unique id of the node, which may belong to another project."""
    run_id: str
    at: datetime
    elsewhere: str = ""
    """The project and environment that it was built in, where these are not the node's."""
    is_own: bool = True
    """Whether it is the node itself, in its own environment."""
    is_neighbour: bool = False
    """Whether it is another node that the project still has, and not one that was renamed."""
    is_open: bool = False
    """Whether the attempt is under way: what comes of it is not known yet."""
    data_version: str = ""
    """The version that it wrote, if equal versions mean equal rows and nothing disturbed it."""
    turns: int = 0
    """How many builds in a row, this one included, were needed only because another writer had overwritten the relation."""
    failure: FailedAttempt | None = None
    """The record of the attempt, if it failed."""
    is_on_foreign_rows: bool = False
    """Whether another node's rows were there before it: if it failed, they may be there still."""
    limited_by: str = ""
    """The option that it was limited by, such as `--empty`, or an attempt before it whose rows may be there still."""

    @property
    def retry_at(self) -> datetime:
        """When the relation may be written again for this: at once, unless two writers take turns."""
        return self.at + retry_wait(self.turns - 1) if self.turns > 1 else self.at

    def waits(self, now: datetime) -> bool:
        """Return whether it is too soon to write the relation again."""
        return is_waiting(now, self.at, self.retry_at - self.at)


def interruption(
    before: FailedAttempt | None, at: datetime, origin: str, kind: FailureKind = FailureKind.INTERRUPTED
) -> FailedAttempt:
    """Return the attempt that was interrupted. `before` is the attempt until then: the wait doubles where nothing changed."""
    is_repeated = (
        kind is FailureKind.INTERRUPTED and before is not None and before.kind is kind and before.origin == origin
    )
    return FailedAttempt(
        at,
        before.attempts + 1 if before is not None and is_repeated else 1,
        kind=kind,
        origin=origin,
    )


class VerdictStatus(str, Enum):
    """The answer of a test, in dbt's words."""

    PASS = "pass"  # noqa: S105 (not a password)
    WARN = "warn"
    FAIL = "fail"
    ERROR = "error"
    """It could not be run."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The last answer of a test in this environment."""

    status: VerdictStatus
    at: datetime
    run_id: str
    fingerprint: Fingerprint
    """The code of the test that dbt ran."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The data version of everything that it reads, captured before dbt started."""
    failures: int | None = None
    """How many rows failed it, if dbt reports it."""
    attempts: int = 1
    """How many times in a row it failed with the same code and data, or was limited, this one included; else 1."""
    manifest_code_mark: str = ""
    """Its code as the plan knew it (`Project.manifest_code_mark`): dbt may have read newer files than its manifest."""
    evidence: Evidence = UNSEEN
    """The evidence that the run collected."""
    how: How = How.RUN
    proof: str = ""
    """Of a proven test: why it finds no failures."""
    database: str = ""
    """An id of the database that it is about; empty where relations are the same from any host, or it is not known."""
    limited_by: str = ""
    """The option by which dbt read no more than a part of the rows, such as `--empty`."""

    @property
    def is_failing(self) -> bool:
        """Whether it holds what the test gates. A failure of `severity: warn` is a warning."""
        return self.status in _FAILING

    @property
    def retry_at(self) -> datetime:
        """When a failing test may be tried again with nothing changed."""
        return self.at + retry_wait(self.attempts)

    def waits(self, now: datetime) -> bool:
        """Return whether it is too soon to try a failing test again with nothing changed."""
        return is_waiting(now, self.at, retry_wait(self.attempts))


_FAILING = frozenset({VerdictStatus.FAIL, VerdictStatus.ERROR})


@dataclass(frozen=True, slots=True)
class FunctionState:
    """The state of a user-defined function in this environment."""

    code: str
    """The digest of the code that the warehouse has it from; empty where that is not known."""
    at: datetime
    run_id: str
    manifest_code_mark: str = ""
    """Its code as the plan knew it (`Project.manifest_code_mark`): dbt may have read newer files than its manifest."""
    failed_code: str = ""
    """The digest of the code that the last attempt could not create; empty when it succeeded."""
    attempts: int = 0
    """How many times in a row the same code could not be created."""

    @property
    def retry_at(self) -> datetime:
        """When it may be tried again with nothing changed."""
        return self.at + retry_wait(max(self.attempts, 1))

    def waits(self, now: datetime) -> bool:
        """Return whether it is too soon to try again with nothing changed."""
        return is_waiting(now, self.at, self.retry_at - self.at)

    def failed(self, code: str, at: datetime, run_id: str) -> FunctionState:
        """Return the state after code could not be created: the code in the warehouse is then unknown."""
        attempts = self.attempts + 1 if self.failed_code == code else 1
        return FunctionState("", at, run_id, failed_code=code, attempts=attempts)


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """The state that decisions depend on, by unique id."""

    builds: Mapping[str, LastBuild] = field(default_factory=dict)
    sources: Mapping[str, SourceState] = field(default_factory=dict)
    failures: Mapping[str, FailedAttempt] = field(default_factory=dict)
    missing_relations: frozenset[str] = frozenset()
    """Nodes whose relation is known not to exist. Unknown is not missing."""
    restored_relations: frozenset[str] = frozenset()
    """Nodes whose relation comes from an older copy of its database, put back since their last build."""
    moved_relations: frozenset[str] = frozenset()
    """Nodes whose last build wrote another database than the one that the target has now."""
    altered_relations: Mapping[str, str] = field(default_factory=dict)
    """Nodes whose rows something else altered since their last build, with an id of the alteration."""
    moved_in_run: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By node: the parents that moved during the run of its last build, each with the version that it had at the run's end."""
    blocked: frozenset[str] = frozenset()
    """Sources and nodes that nothing is to be built from."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """The last answer of each test that was run."""
    functions: Mapping[str, FunctionState] = field(default_factory=dict)
    """The user-defined functions that a run of this package created or tried to create."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The signatures of the columns of sources, and of nodes as their last build left them, where they are known."""
    listed: frozenset[str] = frozenset()
    """Sources and nodes whose columns the warehouse lists. A node that was just built is listed the next time."""
    writers: Mapping[str, Writer] = field(default_factory=dict)
    """Who wrote the relations of nodes last, where anybody noted it."""

    def history(self, unique_id: str) -> VersionHistory:
        """Return the latest versions of a source or a node, oldest first."""
        if unique_id in self.sources:
            source = self.sources[unique_id]
            return tuple((source.version_of(token), moment) for token, moment in source.history)
        build = self.builds.get(unique_id)
        return build.history if build is not None else ()

    def is_copied(self, unique_id: str) -> bool:
        """Return whether a node's relation is in another copy of the database than the one that its last build wrote."""
        return unique_id in self.restored_relations or unique_id in self.moved_relations

    def other_writer(self, unique_id: str) -> Writer | None:
        """Return who has written a node's relation since its last build, None if nobody is known to."""
        build, writer = self.builds.get(unique_id), self.writers.get(unique_id)
        if build is None or writer is None:
            return None
        if writer.attempt_id == build.attempt_id:
            # An asset key may pass on to another node, as when two versions of a model swap their aliases.
            return writer if writer.is_neighbour else None
        # The same code made the same rows of the same data.
        return None if writer.data_version and writer.data_version == build.data_version else writer

    def is_unknown(self, unique_id: str) -> bool:
        """Return whether it is not known what a node's relation holds: another thing than its last build left there."""
        return (
            unique_id in self.failures
            or unique_id in self.altered_relations
            or self.is_copied(unique_id)
            or self.other_writer(unique_id) is not None
        )

    def has_foreign_rows(self, unique_id: str) -> bool:
        """Return whether a node's relation may hold rows of another node, which has written it since the node's last build.

        Or before its first one, if the project still has the other node.
        """
        if unique_id not in self.builds:
            # A node that was renamed goes on with its rows.
            first = self.writers.get(unique_id)
            return first is not None and (first.is_neighbour or first.is_on_foreign_rows)
        writer = self.other_writer(unique_id)
        return writer is not None and (writer.node != unique_id or writer.is_on_foreign_rows)

    def rows_limited_by(self, unique_id: str) -> str:
        """Return the option by which the rows in a node's relation may be a part only, empty if they are its last build's."""
        build, writer = self.builds.get(unique_id), self.writers.get(unique_id)
        if writer is None or (build is not None and build.attempt_id == writer.attempt_id):
            return ""
        return writer.limited_by
