"""Choose the probe that answers for a source, and run all probes. A new probe is one more row of `_PROBES`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from operator import itemgetter

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.errors import WarehouseError, reason
from dagster_sao.warehouse.probes.base import Observation, Probe, ProbeKind
from dagster_sao.warehouse.probes.duckdb_content import DuckDBContentProbe, settled_state
from dagster_sao.warehouse.probes.ducklake import DuckLakeProbe
from dagster_sao.warehouse.probes.files import FileProbe
from dagster_sao.warehouse.probes.last_modified import MetadataProbe
from dagster_sao.warehouse.probes.loaded_at import LoadedAtProbe
from dagster_sao.warehouse.probes.plugins import load_third_party_probes
from dagster_sao.warehouse.probes.postgres_token import PostgresProbe, has_all_counted
from dagster_sao.warehouse.probes.settings import place, settings_of
from dagster_sao.warehouse.probes.untracked import OptedOutProbe, UntrackedProbe
from dagster_sao.warehouse.session import WarehouseSession

__all__ = ["Observation", "Probe", "ProbeKind", "SourceProber"]


class _Rank(IntEnum):
    """The first probe by rank that claims a source answers for it (docs/probes.md)."""

    OWNER = 1
    OTHER_PACKAGE = 2
    OPTED_OUT = 3
    WAREHOUSE = 4
    NOBODY = 5


class _Price(IntEnum):
    """The cheapest probe runs first: results that cost nothing are there even if the warehouse is down or time is short."""

    NOTHING = 1
    FILES = 2
    CATALOG = 3
    QUERIES = 4
    UNKNOWN = 5


_Make = Callable[[WarehouseSession, Callable[[], int]], Probe]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One probe of this package."""

    make: _Make
    rank: _Rank
    price: _Price
    never_returns: bool = False
    """Whether its tokens only go forward, as counters, snapshots and times do: two equal tokens prove that nothing happened
    in between."""


# Within a rank, the first probe that claims a source answers. DuckLake is in DuckDB, and its snapshots cost less than a hash.
_PROBES = (
    _Entry(LoadedAtProbe, _Rank.OWNER, _Price.QUERIES),
    _Entry(lambda _session, _now: OptedOutProbe(), _Rank.OPTED_OUT, _Price.NOTHING),
    _Entry(FileProbe, _Rank.WAREHOUSE, _Price.FILES, never_returns=True),
    _Entry(lambda session, _now: DuckLakeProbe(session), _Rank.WAREHOUSE, _Price.CATALOG, never_returns=True),
    _Entry(DuckDBContentProbe, _Rank.WAREHOUSE, _Price.CATALOG),
    _Entry(lambda session, _now: PostgresProbe(session), _Rank.WAREHOUSE, _Price.CATALOG, never_returns=True),
    _Entry(lambda session, _now: MetadataProbe(session), _Rank.WAREHOUSE, _Price.CATALOG, never_returns=True),
    _Entry(lambda session, _now: UntrackedProbe(session.adapter_type), _Rank.NOBODY, _Price.NOTHING),
)


class SourceProber:
    """Probes sources repeatedly. It keeps what makes the next time cheap, so use one per session."""

    def __init__(self, session: WarehouseSession, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.session = session
        others, problems = load_third_party_probes(session)
        self.problems: Sequence[str] = tuple(problems)
        """A sentence for each probe of another package that cannot be used."""
        seats: list[tuple[Probe, _Rank, _Price, bool]] = [
            *((entry.make(session, now_ns), entry.rank, entry.price, entry.never_returns) for entry in _PROBES),
            *((probe, _Rank.OTHER_PACKAGE, _Price.UNKNOWN, False) for probe in others),
        ]
        seats.sort(key=itemgetter(1))
        self._order: Sequence[Probe] = [probe for probe, *_ in seats]
        self._turns: Sequence[Probe] = [probe for probe, *_ in sorted(seats, key=itemgetter(2))]
        self._witnesses: Sequence[Probe] = [probe for probe, *_, never_returns in seats if never_returns]

    def probe_of(self, source: Source) -> Probe:
        """Return the probe that answers for `source`, without a statement."""
        return next(probe for probe in self._order if probe.claims(source))

    def can_return(self, source: Source) -> bool:
        """Return whether a source's token may be the old one although its rows changed in between. Sends no statement."""
        probe = self.probe_of(source)
        return probe not in self._witnesses and probe.kind != ProbeKind.UNTRACKED

    def has_witness(self, source: Source) -> bool:
        """Return whether `witnesses` may have a result for a source. Sends no statement."""
        return any(probe.claims(source) for probe in self._witnesses) or self.is_in_file(source)

    def is_in_file(self, source: Source) -> bool:
        """Return whether a source lies in the DuckDB file that dbt builds into. Sends no statement.

        The file is no witness for `witnesses`, as dbt writes it too. But its state as dbt opens it says what dbt read.
        """
        session, settings = self.session, settings_of(source)
        if session.duckdb_file is None or settings.is_external or settings.plugin:
            return False
        return (source.database or session.database).lower() == session.database.lower()

    def is_file(self, path: str) -> bool:
        """Return whether `path`, absolute and without symbolic links, is that file."""
        file = self.session.duckdb_file
        return file is not None and os.path.realpath(file) == path

    def file_state(self) -> str:
        """Return the state of that file as dbt records it, which every later write changes; empty where it cannot be read.

        Waits for the next tick of the file system's clock after a write, for two seconds at most.
        """
        file = self.session.duckdb_file
        return "" if file is None else settled_state(file)

    @property
    def witness_lags(self) -> bool:
        """Whether a witness may show a change some time after its commit: equal witnesses alone prove nothing then."""
        return self.session.traits.has_counters

    @property
    def waits_for_dbt(self) -> bool:
        """Whether no statement can run while dbt builds: a DuckDB file has one writer or many readers."""
        return self.session.traits.is_embedded

    def waits_for_counters(self) -> bool:
        """Return whether tokens may lack something written with our role. Waits until they do not, two seconds at most.

        Raises WarehouseError when the warehouse cannot be reached.
        """
        return self.session.traits.has_counters and not has_all_counted(self.session)

    def witnesses(self, sources: Iterable[Source]) -> dict[str, str]:
        """Return witnesses by unique id: values that never return to an old one after a source's rows changed.

        Two equal answers prove that nothing happened in between. Equal tokens of sources that `can_return` do not prove it.
        Raises WarehouseError and WarehouseBusyError like `observe`.
        """
        by_probe: dict[Probe, list[Source]] = {}
        for source in sources:
            for probe in (probe for probe in self._witnesses if probe.claims(source)):
                by_probe.setdefault(probe, []).append(source)
                break
        found = ((probe.kind, *answer) for probe, group in by_probe.items() for answer in probe.observe(group, _never))
        return {
            uid: f"{kind} {seen.token}"
            for kind, uid, seen in found
            if seen.token is not None and seen.kind != ProbeKind.UNTRACKED
        }

    def observe(self, sources: Sequence[Source], *, deadline: float | None = None) -> Iterator[tuple[str, Observation]]:
        """Yield `(unique id, Observation)` per source as soon as it is known, no connection open meanwhile.

        Ends early, between two statements, once `time.monotonic()` passes `deadline` (seconds): sources not yielded
        have not been probed. Raises WarehouseError when the warehouse cannot be reached, and WarehouseBusyError
        while a writer holds a DuckDB file; what was yielded before stays true.
        """

        def expired() -> bool:
            return deadline is not None and time.monotonic() >= deadline

        by_probe: dict[Probe, list[Source]] = {probe: [] for probe in self._turns}
        for source in sources:
            try:
                by_probe[self.probe_of(source)].append(source)
            except Exception as error:  # noqa: BLE001  # its settings are of any form
                yield source.unique_id, self._unreadable(source, ProbeKind.UNTRACKED, error)
        for probe, group in by_probe.items():
            yield from self._kept_apart(probe, group, expired)

    def _kept_apart(
        self, probe: Probe, group: Sequence[Source], expired: Callable[[], bool]
    ) -> Iterator[tuple[str, Observation]]:
        """Yield a probe's results. An unexpected error counts only against the source that causes it."""
        answered: set[str] = set()
        try:
            for unique_id, observation in probe.observe(group, expired):
                answered.add(unique_id)
                yield unique_id, observation
        except (WarehouseError, GeneratorExit):
            raise
        except Exception as error:  # noqa: BLE001  # drivers, parsers and texts of every kind
            if len(group) == 1:
                yield group[0].unique_id, self._unreadable(group[0], probe.kind, error)
                return
            for source in group:
                if source.unique_id not in answered and not expired():
                    yield from self._kept_apart(probe, [source], expired)

    def _unreadable(self, source: Source, kind: str, error: Exception) -> Observation:
        said = self.session.redact(reason(error)) if str(error) else ""
        what = f"{type(error).__name__}{f': {said}' if said else ''}"
        return Observation(
            None, kind, error=f"{place(source)} cannot be probed: {what}. Correct its settings or its data"
        )


def _never() -> bool:
    return False
