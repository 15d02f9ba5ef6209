"""The options that limit the builds of a run to a part of the rows: `--empty`, `--sample`, event times.

Such a build is not a last build.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dagster_sao.core.dbt_settings import is_off, setting
from dagster_sao.core.decision.materializations import merged
from dagster_sao.core.manifest.build_settings import in_utc
from dagster_sao.core.state.state import BatchRange, FailedAttempt, FailureKind
from dagster_sao.warehouse.dbt_private.environment import environment_of_file

_EMPTY, _SAMPLE, _START, _END = "empty", "sample", "event-time-start", "event-time-end"
_LIMITS = (_EMPTY, _SAMPLE, _START, _END)


@dataclass(frozen=True, slots=True)
class Limits:
    """The options of a dbt command that limit its builds, by name."""

    given: Mapping[str, str]

    @property
    def text(self) -> str:
        """The options as in a command."""
        return ", ".join(f"--{name}" for name in _LIMITS if name in self.given)

    @property
    def of_all_sql(self) -> str:
        """The option that limits what data tests and functions read too; empty where none does. The others filter in models alone."""
        return f"--{_EMPTY}" if _EMPTY in self.given else ""


def limits_of(arguments: Sequence[str], project_dir: Path) -> Limits | None:
    """Return the limits in the arguments of a dbt command, or in the `.env` that dbt reads. None where there are none.

    dbt gets none from the environment of this process (`settings_of_one_run`), and takes none from the `flags` of a
    project.
    """
    environ = environment_of_file(project_dir)
    found: dict[str, str] = {}
    for name in _LIMITS:
        value = setting(name.replace("-", "_").upper(), environ)
        if not is_off(value):
            found[name] = str(value)
    found.update(_in_arguments(arguments))
    if f"--no-{_EMPTY}" in arguments:
        found.pop(_EMPTY, None)
    return Limits(found) if found else None


def missing_after(limits: Limits, before: FailedAttempt | None, *, is_new: bool) -> tuple[tuple[BatchRange, ...], bool]:
    """Return the batches of a microbatch model that are missing after a limited build, and whether any other may be.

    With `is_new` the build may have created the relation: then all other batches are missing.
    """
    missing = list(before.missing_batches) if before is not None else []
    was_unknown = before is not None and (before.batches_unknown or before.kind is FailureKind.INTERRUPTED)
    if is_new or was_unknown or _SAMPLE in limits.given:
        return merged(missing), True
    if _START in limits.given:
        try:
            start, end = (in_utc(datetime.fromisoformat(limits.given[name])) for name in (_START, _END))
        except (KeyError, ValueError):
            return merged(missing), True
        missing.append((start, end))
    return merged(missing), False


def _in_arguments(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for index, argument in enumerate(arguments):
        name, _, value = str(argument).partition("=")
        if name.removeprefix("--") in _LIMITS and name.startswith("--"):
            following = str(arguments[index + 1]) if index + 1 < len(arguments) else ""
            yield name.removeprefix("--"), value or following
