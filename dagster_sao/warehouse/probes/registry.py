"""Which probe answers for which source. A new way of knowing is one more row in `SourceProber`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.errors import WarehouseError, reason
from dagster_sao.warehouse.probes.base import Observation, Probe, ProbeKind
from dagster_sao.warehouse.probes.duckdb_content import DuckDBContentProbe, settled_state
from dagster_sao.warehouse.probes.ducklake import DuckLakeProbe
from dagster_sao.warehouse.probes.files import FileProbe
from dagster_sao.warehouse.probes.last_modified import MetadataProbe
from dagster_sao.warehouse.probes.loaded_at import LoadedAtProbe
from dagster_sao.warehouse.probes.plugins import load_third_party_probes
from dagster_sao.warehouse.probes.postgres_token import PostgresProbe
from dagster_sao.warehouse.probes.settings import place, settings_of
from dagster_sao.warehouse.probes.untracked import OptedOutProbe, UntrackedProbe
from dagster_sao.warehouse.session import WarehouseSession

__all__ = ["Observation", "Probe", "ProbeKind", "SourceProber"]


# Counters, snapshots and times that only go forward: equal tokens prove that nothing happened in between.
_NEVER_RETURNS = frozenset({ProbeKind.DUCKLAKE, ProbeKind.FILE, ProbeKind.METADATA, ProbeKind.POSTGRES})


class SourceProber:
    """Look at sources again and again. Keeps what makes the next look cheap, so keep one per session."""

    def __init__(self, session: WarehouseSession, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.session = session
        third_party, problems = load_third_party_probes(session)
        self.problems: Sequence[str] = tuple(problems)
        """A sentence for each probe of another package that cannot be used."""
        loaded_at = LoadedAtProbe(session, now_ns)
        opted_out = OptedOutProbe()
        files = FileProbe(session, now_ns)
        # DuckLake first: it lies in DuckDB, and its snapshots cost less than a hash of the rows.
        of_adapter: tuple[Probe, ...] = (
            DuckLakeProbe(session),
            DuckDBContentProbe(session, now_ns),
            PostgresProbe(session),
            MetadataProbe(session),
        )
        untracked = UntrackedProbe(session.adapter_type)
        self._witnesses: tuple[Probe, ...] = (files, *(probe for probe in of_adapter if probe.kind in _NEVER_RETURNS))
        # Who answers: the first that claims a source (semantics: Sources without a usable token).
        self._order: tuple[Probe, ...] = (loaded_at, *third_party, opted_out, files, *of_adapter, untracked)
        # Who is asked first: what costs nothing is known even when the warehouse is down or the time is short,
        # and a probe of another package can be slow.
        self._turns: tuple[Probe, ...] = (opted_out, untracked, files, *of_adapter, loaded_at, *third_party)

    def probe_of(self, source: Source) -> Probe:
        """Return the probe that answers for `source`. Asks nobody."""
        return next(probe for probe in self._order if probe.claims(source))

    def can_return(self, source: Source) -> bool:
        """Return whether a source's token may be what it was although its rows were others in between. Asks nobody."""
        return self.probe_of(source).kind not in {*_NEVER_RETURNS, ProbeKind.UNTRACKED}

    def has_witness(self, source: Source) -> bool:
        """Return whether `witnesses` may tell something about a source. Asks nobody."""
        return any(probe.claims(source) for probe in self._witnesses) or self.is_in_file(source)

    def is_in_file(self, source: Source) -> bool:
        """Return whether a source lies in the DuckDB file that dbt builds into. Asks nobody.

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
        """Return what every later write to that file makes another, as dbt records it; empty where nobody can tell.

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
        """Whether nothing can be asked while dbt builds: a DuckDB file has one writer or many readers."""
        return self.session.traits.is_embedded

    def witnesses(self, sources: Iterable[Source]) -> dict[str, str]:
        """Return, by unique id, what cannot return to what it was once a source's rows have changed, where there is such.

        Two equal answers prove that nothing happened in between, which equal tokens of those `can_return` do not.
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
        have not been looked at. Raises WarehouseError when the warehouse cannot be reached, and WarehouseBusyError
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
        """Yield a probe's answers. What goes wrong with one source in a way that nobody foresaw is that source's failure."""
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
