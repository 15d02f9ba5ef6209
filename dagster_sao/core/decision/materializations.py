"""The steps that make a relation follow its code and its data, by materialization and the traits of the database. Pure.

dbt's `success` does not prove that it did: dbt refreshes a materialized view with its old SQL, loads a seed's rows under the
old columns, and builds only the latest batches of a microbatch model. This module is the one table of such cases, as in
docs/warehouses.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from dagster_sao.core.code.fingerprint import RELATION_NAME
from dagster_sao.core.manifest.build_settings import Batches, BuildSettings
from dagster_sao.core.manifest.relation_traits import RelationTraits
from dagster_sao.core.state.state import BatchRange, FailedAttempt, FailureKind, LastBuild

_REFRESHED_WITH_OLD_SQL = frozenset({"dynamic_table", "materialized_view"})
"""The materializations whose existing relation dbt refreshes with its old SQL, unless the database's traits differ."""
_APPLIED_ANYWAY = frozenset(
    {
        "file", "config: grants", "config: pre-hook", "config: post-hook", "config: materialized", RELATION_NAME,
        "config: full_refresh", "config: on_configuration_change",
    }
)  # fmt: skip
"""Parts of the code of a seed, or such a view, that dbt applies to a relation that exists."""
_ONLY_AT_CREATION = frozenset(
    {
        "cluster_by", "contract", "dist", "distributed_by", "engine", "file_format", "indexes", "location_root", "order_by",
        "partition_by", "primary_key", "sort", "sort_type", "table_format", "table_type", "transient", "unlogged",
    }
)  # fmt: skip
"""Settings of an incremental model that dbt applies when it creates the table, and never to one that exists."""
_INDIFFERENT_TO_FULL_REFRESH = frozenset({"table", "view", "snapshot", "external"})


@dataclass(frozen=True, slots=True)
class Steps:
    """What a build has to be, beside a plain one, for the relation to follow its code and data."""

    full_refresh: bool = False
    batches_from: datetime | None = None
    """From which event time on a microbatch model is built; None: from where dbt would begin by itself."""
    obstacle: str = ""
    """Why no build can do it, in a sentence."""


@dataclass(frozen=True, slots=True)
class NodeToBuild:
    """A node that is about to be built, as far as the steps of its build depend on it."""

    materialized: str
    traits: RelationTraits
    settings: BuildSettings
    relation_name: str
    now: datetime
    changes: tuple[str, ...] = ()
    """The names of the parts of its code that differ from the last build."""
    last_build: LastBuild | None = None
    failure: FailedAttempt | None = None
    has_other_columns: bool = False
    """Whether what it reads has other columns, or another identity, than when it was created."""
    may_have_other_columns: bool = False
    is_missing: bool = False
    """Whether its relation does not exist."""
    is_foreign: bool = False
    """Whether its relation holds the rows of another node."""
    has_limited_rows: bool = False
    """Whether its relation may hold the rows of a limited attempt."""
    is_copy: bool = False
    """Whether its relation may hold the rows of any earlier build, or of another target's."""
    wants_full_refresh: bool = False
    """Whether a full refresh was requested, such as with `on_code_change`."""

    @property
    def is_unknown_copy(self) -> bool:
        """Whether its relation may hold the rows of any build. In another place, that is a build from before it moved away."""
        return self.is_copy or RELATION_NAME in self.changes

    @property
    def is_limited(self) -> bool:
        """Whether an attempt that was limited to a part of its rows may have left them, also if it or a later one failed."""
        return self.has_limited_rows or (self.failure is not None and self.failure.kind is FailureKind.LIMITED)

    @property
    def has_sql_of_answers(self) -> bool:
        """Whether the SQL of its last build was made from answers of the warehouse, which may be others now."""
        reads = self.last_build.evidence.reads if self.last_build is not None else None
        return reads is not None and (reads.asks_parents or reads.asks_others)


def steps(node: NodeToBuild) -> Steps:
    """Return the steps that the build of a node takes."""
    settings = node.settings
    if node.is_missing:
        return Steps(full_refresh=node.wants_full_refresh)  # dbt creates it
    if node.materialized == "incremental":
        # The rows of a limited build would count as rows that were there before: new ones begin after them.
        must, should = node.is_foreign or (node.is_limited and settings.batches is None), False
    else:
        keeps_old_code = node.materialized == "seed" or is_refreshed_with_old_sql(node.materialized, node.traits)
        must = keeps_old_code and (node.has_other_columns or _is_left_undone(settings, node.changes))
        # A relation that exists may have other columns, or other SQL.
        is_unknown = (
            node.last_build is None or node.failure is not None or node.may_have_other_columns or node.is_unknown_copy
        )
        should = keeps_old_code and (is_unknown or node.has_sql_of_answers)
    if must and settings.refuses_full_refresh:
        return Steps(obstacle=_refused(node))
    # Only then does dbt build all batches, and a full refresh of a part of them would lose the rest.
    always = settings.always_full_refresh and heeds_full_refresh(node.materialized)
    if node.wants_full_refresh or must or should or always:
        return Steps(full_refresh=True)
    if settings.batches is not None:
        return _batches_to_build(node, settings.batches)
    return Steps()


def only_at_creation(materialized: str, changes: Iterable[str]) -> list[str]:
    """Return the changed settings of an incremental model that dbt does not apply to the table that exists.

    >>> only_at_creation("incremental", ["sql", "config: indexes"]), only_at_creation("table", ["config: indexes"])
    (['indexes'], [])
    """
    if materialized != "incremental":
        return []
    names = (change.removeprefix("config: ") for change in changes if change.startswith("config: "))
    return [name for name in names if name in _ONLY_AT_CREATION]


def heeds_full_refresh(materialized: str) -> bool:
    """Return whether `--full-refresh` may change how dbt builds a node."""
    return materialized not in _INDIFFERENT_TO_FULL_REFRESH


def is_refreshed_with_old_sql(materialized: str, traits: RelationTraits) -> bool:
    """Return whether a build of an existing relation runs the SQL that it was created from, bound to columns as they were then."""
    return materialized in _REFRESHED_WITH_OLD_SQL - traits.gets_new_sql


def _is_left_undone(settings: BuildSettings, changes: Iterable[str]) -> bool:
    """Return whether dbt would not apply some of the changes to a relation that exists."""
    left = [change for change in changes if change not in _APPLIED_ANYWAY]
    if settings.fails_on_configuration_change and all(change.startswith("config: ") for change in left):
        return False  # dbt fails, as it was asked to
    return bool(left)


def _refused(node: NodeToBuild) -> str:
    of_incremental = "It has the rows of another model" if node.is_foreign else "Its last build was limited"
    what = {
        "seed": "dbt gives an existing seed other columns only with --full-refresh",
        "incremental": f"{of_incremental}, and dbt builds all rows anew only with --full-refresh",
    }.get(node.materialized, "dbt gives an existing materialized view other SQL or columns only with --full-refresh")
    relation = node.relation_name
    return f"{what}, which `full_refresh: false` refuses. Remove that setting, or drop {relation} and build it"


def _batches_to_build(node: NodeToBuild, batches: Batches) -> Steps:
    """Return from where on the batches of a model are built.

    Those since the last build are, as they would have been with a build for each batch: between them its lookback moved on.
    """
    last_build, failure = node.last_build, node.failure
    if node.is_unknown_copy or (failure is not None and _lost_batches(failure)):
        refuses = node.settings.refuses_full_refresh
        return Steps(batches_from=batches.begin) if refuses else Steps(full_refresh=True)
    starts = [start for start, _ in failure.missing_batches] if failure is not None else []
    if last_build is not None:
        starts.append(batches.start_of(last_build.started_at, batches.lookback))
    first = batches.start_of(min(starts)) if starts else None
    if first is not None and batches.begin is not None:
        first = max(first, batches.start_of(batches.begin))
    if first is None or first >= batches.start_of(node.now, batches.lookback):
        return Steps()
    return Steps(batches_from=first)


def _lost_batches(failure: FailedAttempt) -> bool:
    """Return whether any batch may be missing after a failure."""
    return failure.kind is FailureKind.INTERRUPTED or failure.batches_unknown


def merged(batches: Iterable[BatchRange]) -> tuple[BatchRange, ...]:
    """Return batches with those joined that follow one another.

    >>> from datetime import timezone
    >>> day = [datetime(2026, 1, n, tzinfo=timezone.utc) for n in range(1, 6)]
    >>> [(a.day, b.day) for a, b in merged([(day[3], day[4]), (day[0], day[1]), (day[1], day[2])])]
    [(1, 3), (4, 5)]
    """
    found: list[BatchRange] = []
    for start, end in sorted(batches):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return tuple(found)
