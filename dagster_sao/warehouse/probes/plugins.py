"""Probes that other packages bring through the entry point group `dagster_sao.probes`.

A mistake in one becomes a sentence about it or about the sources that it claims; it never harms other sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points

from dagster_sao.core.manifest.graph import Source
from dagster_sao.warehouse.errors import WarehouseBusyError, WarehouseError, reason
from dagster_sao.warehouse.probes.base import Observation, Probe, ProbeKind
from dagster_sao.warehouse.probes.settings import place
from dagster_sao.warehouse.session import WarehouseSession

_ENTRY_POINT_GROUP = "dagster_sao.probes"


def load_third_party_probes(session: WarehouseSession) -> tuple[list[Probe], list[str]]:
    """Return the installed probes that are for the session's adapter, by name, and a sentence for each broken one."""
    probes: list[Probe] = []
    problems: list[str] = []
    for entry in sorted(entry_points(group=_ENTRY_POINT_GROUP), key=lambda entry: (entry.name, entry.value)):
        try:
            probe = entry.load()(session)
        except Exception as error:  # noqa: BLE001  # another package's code
            problems.append(
                f"The probe {_named(entry)} cannot be loaded: {session.redact(reason(error))}."
                " Its sources are probed in other ways: repair or uninstall it."
            )
        else:
            if probe is not None:
                probes.append(_ThirdPartyProbe(entry, probe, session))
    return probes, problems


class _ThirdPartyProbe:
    """Another package's probe, whose mistakes affect only its own sources."""

    def __init__(self, entry: EntryPoint, probe: Probe, session: WarehouseSession) -> None:
        self.kind = entry.name
        self._name = _named(entry)
        self._probe = probe
        self._redact = session.redact

    def claims(self, source: Source) -> bool:
        """Return whether the probe claims `source`: not if it fails."""
        try:
            return bool(self._probe.claims(source))
        except Exception:  # noqa: BLE001  # another package's code
            return False

    def observe(self, sources: Sequence[Source], expired: Callable[[], bool]) -> Iterator[tuple[str, Observation]]:
        """Yield the probe's answers, and an error for each source that it left without one before the time was up."""
        waiting = {source.unique_id: source for source in sources}
        why = f"is handled by the probe {self._name}, which gave no answer. Repair or uninstall it"
        try:
            for unique_id, answer in self._probe.observe(sources, expired) if sources else ():
                if unique_id in waiting and _is_answer(answer):
                    del waiting[unique_id]
                    yield unique_id, answer
        except WarehouseBusyError:
            return
        except WarehouseError as error:
            why = f"cannot be probed: {reason(error)}"
        except Exception as error:  # noqa: BLE001  # another package's code
            said = self._redact(reason(error))
            why = f"is handled by the probe {self._name}, which failed: {said}. Repair or uninstall it"
        else:
            if expired():
                return
        for unique_id, source in waiting.items():
            yield unique_id, Observation(None, self.kind, error=f"{place(source)} {why}")


def _is_answer(answer: object) -> bool:
    """Return whether it is an answer: without token, error and `untracked` a source would silently count as unchanged."""
    if not isinstance(answer, Observation):
        return False
    return isinstance(answer.token, str) or bool(answer.error) or answer.kind == ProbeKind.UNTRACKED


def _named(entry: EntryPoint) -> str:
    package = f" of {entry.dist.name}" if entry.dist else ""
    return f"'{entry.name}'{package}"
