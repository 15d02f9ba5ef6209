"""Rules about models: settings without effect, waits that never end, and long chains of views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from dagster_sao.api.doctor.findings import Finding, Patient, Severity
from dagster_sao.core.durations import format_duration
from dagster_sao.core.manifest.graph import NodeKind
from dagster_sao.core.manifest.policy import Policy, UpdatesOn

LONG_UNCHANGED = timedelta(days=30)
_LONGEST_VIEW_CHAIN = 4
"""The longest chain of views without a finding: every query of the last view computes all of them."""


def settings_without_meaning(patient: Patient) -> Iterator[Finding]:
    """Yield the settings that have no effect, or not the effect that they appear to have."""
    for warning in patient.loaded.warnings:
        yield Finding(
            Severity.WARNING, "setting", warning.text, "See docs/configuration.md", warning.label, warning.file
        )


def waits_for_the_unchanging(patient: Patient) -> Iterator[Finding]:
    """Yield the nodes that wait for all parents although one of them never changes by itself."""
    graph = patient.loaded.project.graph
    still = _why_unchanging(patient)
    for uid, node in graph.nodes.items():
        if patient.loaded.project.policy(uid).updates_on is not UpdatesOn.ALL or len(node.parents) < 2:  # noqa: PLR2004 (of one parent, any is all)
            continue
        waits_for = [f"{graph.label(parent)} ({still[parent]})" for parent in node.parents if parent in still]
        if waits_for and not node.is_view:
            yield Finding(
                Severity.WARNING,
                "waits-for-the-unchanging",
                f"`updates_on: all` waits for {', '.join(waits_for)}",
                "Use `updates_on: any`, or set `rebuild_every` in `meta.dagster_sao`",
                node.label,
                node.file,
            )


def _why_unchanging(patient: Patient) -> Mapping[str, str]:
    """Return, by unique id, why nodes and sources do not change by themselves."""
    graph = patient.loaded.project.graph
    why: dict[str, str] = {}
    for uid, source in patient.state.sources.items():
        age = patient.now - source.recorded_at
        if age >= LONG_UNCHANGED:
            why[uid] = f"no new data for {format_duration(age)}"
    for uid, node in graph.nodes.items():
        if node.kind is NodeKind.SEED:
            why[uid] = "a seed"
        elif patient.loaded.project.policy(uid).rebuild_every is None and all(parent in why for parent in node.parents):
            why[uid] = "reads only nodes that do not change" if node.parents else "reads nothing"
    return why


def long_view_chains(patient: Patient) -> Iterator[Finding]:
    """Yield the last view of each long chain of views."""
    graph = patient.loaded.project.graph
    depth: dict[str, int] = {}
    for uid, node in graph.nodes.items():
        above = max((depth[parent] for parent in node.parents if parent in depth), default=0)
        depth[uid] = above + 1 if node.is_view else 0
    for uid, length in depth.items():
        is_end = not any(depth.get(child, 0) > length for child in graph.children[uid])
        if length > _LONGEST_VIEW_CHAIN and is_end:
            node = graph.nodes[uid]
            yield Finding(
                Severity.INFO,
                "view-chain",
                f"It is the last of {length} views that read each other, and each query computes all of them",
                "Make one in the middle a table: it is built only when something changed",
                node.label,
                node.file,
            )


def waiting_views(patient: Patient) -> Iterator[Finding]:
    """Yield the views with a waiting time that has no effect."""
    for uid, node in patient.loaded.project.graph.nodes.items():
        policy = patient.loaded.project.policy(uid)
        paces_tests = policy.build_after is not None and uid in patient.loaded.project.graph.tests_about
        if node.is_view and _waits(policy) and not paces_tests:
            yield Finding(
                Severity.INFO,
                "build-after-on-view",
                "A view is never built for new data, and no test reads this one, so its waiting time has no effect",
                "Set it on the tables that read the view, or make this model a table",
                node.label,
                node.file,
            )


def _waits(policy: Policy) -> bool:
    return bool(policy.build_after or policy.lag_tolerance)


def schedules_as_often_as_models(patient: Patient) -> Iterator[Finding]:
    """Yield the models that a schedule builds exactly as often as their `build_after` allows."""
    keys = patient.loaded.keys.unique_ids
    repository = patient.definitions.get_repository_def()
    for schedule in repository.schedule_defs:
        cron = schedule.cron_schedule
        interval = _cron_interval(cron) if isinstance(cron, str) else None
        if interval is None or not repository.has_job(schedule.job_name):
            continue
        targets = repository.get_job(schedule.job_name).asset_layer.executable_asset_keys
        for uid in sorted(keys[key] for key in targets if key in keys):
            if patient.loaded.project.policy(uid).build_after == interval:
                node = patient.loaded.project.graph.nodes[uid]
                yield Finding(
                    Severity.INFO,
                    "cron-equals-build-after",
                    f"The schedule {schedule.name} ({cron}) runs exactly as often as `build_after` allows a build",
                    "Shorten `build_after`, or remove it: the schedule already sets the pace",
                    node.label,
                    node.file,
                )


def _cron_interval(cron: str) -> timedelta | None:
    """Return the time between two ticks of a cron schedule, None where it varies or cannot be read off.

    >>> [str(_cron_interval(cron)) for cron in ("*/15 * * * *", "5 * * * *", "0 */6 * * *", "30 4 * * *", "0 9 * * 1")]
    ['0:15:00', '1:00:00', '6:00:00', '1 day, 0:00:00', 'None']
    """
    shorthands = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *"}
    fields = shorthands.get(cron.strip(), cron).split()
    if len(fields) != 5 or fields[2:] != ["*", "*", "*"]:  # noqa: PLR2004 (the fields of cron)
        return None
    minute, hour = fields[:2]
    if hour == "*":
        return timedelta(hours=1) if minute.isdecimal() else _step(minute, "minutes", 60)
    if not minute.isdecimal():
        return None
    return timedelta(days=1) if hour.isdecimal() else _step(hour, "hours", 24)


def _step(text: str, unit: str, whole: int) -> timedelta | None:
    if text == "*":
        return timedelta(**{unit: 1})
    count = text.removeprefix("*/")
    if not count.isdecimal() or not int(count) or whole % int(count):
        return None
    return timedelta(**{unit: int(count)})
