"""What a linter would say of a state-aware project: settings that do not do what their author hopes for.

One function per rule. A rule yields findings, each with its remedy, and is silent when it is not sure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import dagster as dg
import yaml
from dagster_dbt import DbtCliResource
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dagster_sao.api.display import as_text, styled
from dagster_sao.api.sources import Look
from dagster_sao.core.code.evidence import untracked_inputs
from dagster_sao.core.code.known_relations import reads_unknown
from dagster_sao.core.decision.messages import named
from dagster_sao.core.durations import format_duration
from dagster_sao.core.manifest.graph import NodeKind
from dagster_sao.core.manifest.policy import Policy, UpdatesOn
from dagster_sao.core.state.state import StateSnapshot
from dagster_sao.orchestration.automation.condition import is_state_aware, project_behind
from dagster_sao.orchestration.private.dagster_internals import dbt_resource, switched_sensors
from dagster_sao.orchestration.project.orchestrated import LoadedProject, OrchestratedProject, source_policy
from dagster_sao.orchestration.project.parsing import changed_since_parse
from dagster_sao.warehouse.adapters import traits_of
from dagster_sao.warehouse.dbt_private.environment import dbt_state_switch, environment_of_dbt, other_dbt
from dagster_sao.warehouse.queries.soundness import why_unsound

LONG_UNCHANGED = timedelta(days=30)
LONGEST_VIEW_CHAIN = 4
"""More views than this, each reading the one before it, are computed anew by every query of the last."""


class Severity(str, Enum):
    """How bad it is."""

    ERROR = "error"
    """It keeps this package from working."""
    WARNING = "warning"
    """A model is probably not built when its author expects it."""
    INFO = "info"
    """It costs something, or has no effect."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should be looked at."""

    severity: Severity
    rule: str
    """The name of the rule, which does not change."""
    message: str
    remedy: str
    node: str = ""
    file: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON."""
        return {
            "severity": self.severity.value,
            "rule": self.rule,
            "node": self.node,
            "file": self.file,
            "message": self.message,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Findings:
    """What the doctor found, the worst first. Prints as a table."""

    project_name: str
    findings: tuple[Finding, ...]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def has(self, *severities: Severity) -> bool:
        """Return whether there is a finding of one of these severities."""
        return any(finding.severity in severities for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"project": self.project_name, "findings": [finding.to_dict() for finding in self.findings]}

    def __rich__(self) -> RenderableType:
        """Return it as a table."""
        if not self.findings:
            return Text(f"{self.project_name}: nothing found", style="green")
        table = Table(title=f"{self.project_name}: {len(self.findings)} findings", title_justify="left")
        for heading in ("severity", "rule", "where", "what", "remedy"):
            table.add_column(heading)
        for finding in self.findings:
            where = Text("\n".join(part for part in (finding.node, finding.file) if part))
            table.add_row(
                styled(finding.severity.value), finding.rule, where, Text(finding.message), Text(finding.remedy)
            )
        return table

    def __str__(self) -> str:
        return as_text(self)


_OFTEN = 2
"""So many builds in a row for nothing but what the run before moved: once may be chance."""


@dataclass(frozen=True)
class Patient:
    """All that the rules look at."""

    definitions: dg.Definitions
    project: OrchestratedProject
    loaded: LoadedProject
    now: datetime
    state: StateSnapshot = field(default_factory=StateSnapshot)
    instance: dg.DagsterInstance | None = None
    instance_problem: str = ""
    """Why there is no instance."""
    look: Look | None = None
    """What the warehouse says of the sources; None when it was not asked."""


def examine(patient: Patient) -> Findings:
    """Return what all rules find, the worst first."""
    found = [finding for rule in _RULES for finding in rule(patient)]
    order = list(Severity)
    return Findings(patient.project.name, tuple(sorted(found, key=lambda finding: order.index(finding.severity))))


def _no_instance(patient: Patient) -> Iterator[Finding]:
    if patient.instance_problem:
        yield Finding(
            Severity.ERROR,
            "no-instance",
            patient.instance_problem,
            "Without an instance nothing is known of earlier builds, and nothing can be built",
        )


def _other_dbt(patient: Patient) -> Iterator[Finding]:
    resources = [one for one in (patient.definitions.resources or {}).values() if isinstance(one, DbtCliResource)]
    for message in sorted({other_dbt(one.dbt_executable) for one in resources} - {""}):
        yield Finding(
            Severity.WARNING,
            "other-dbt",
            message,
            "Run `dbt --version` where Dagster runs: it must be the dbt that is installed beside dagster-sao",
        )


def _dbt_state(patient: Patient) -> Iterator[Finding]:
    switch = dbt_state_switch(environment_of_dbt(patient.project.dbt_project.project_dir))
    if switch:
        yield Finding(
            Severity.INFO,
            "dbt-state",
            f"dbt State is on ({switch}), and off in the dbt commands of runs: what it reuses would not be built",
            "Nothing has to be done. Your own `dbt build` still reuses, and does not count as a build here",
        )


def _sensors_off(patient: Patient) -> Iterator[Finding]:
    if patient.instance is None:
        return
    switched = switched_sensors(patient.instance)
    own = [f"{patient.project.name}_freshness_sensor", f"{patient.project.name}_automation_sensor"]
    for sensor in patient.definitions.get_repository_def().sensor_defs:
        is_on = switched.get(sensor.name, sensor.default_status is dg.DefaultSensorStatus.RUNNING)
        if sensor.name in own and not is_on:
            yield Finding(
                Severity.INFO,
                "sensor-off",
                f"The sensor {sensor.name} is off",
                "Switch it on in the UI under Automation, or build with a state-aware job on a schedule",
            )


def _not_state_aware(patient: Patient) -> Iterator[Finding]:
    """Yield the dbt models of the code location that nothing builds for new data or code."""
    asset_graph = patient.definitions.get_repository_def().asset_graph
    for key in sorted(asset_graph.materializable_asset_keys):
        asset = asset_graph.get(key)
        resource, project = dbt_resource(asset.metadata), project_behind(asset.metadata)
        if resource is None or is_state_aware(asset.automation_condition):
            continue
        if project is not None and project.state_name != patient.project.state_name:
            continue  # the doctor of that project finds it
        remedy = "Return `state_aware()`, alone or with other conditions, from the translator or `post_processing`"
        if project is None:
            what = "It is loaded by plain `@dbt_assets` or `DbtProjectComponent`"
            remedy = "Load it with `build_state_aware_definitions` or `StateAwareDbtProjectComponent`"
        elif asset.automation_condition is None:
            what = "It has no automation condition"
        else:
            what = "Its automation condition does not contain `state_aware()`"
        yield Finding(
            Severity.WARNING if asset.automation_condition is None else Severity.INFO,
            "not-state-aware",
            f"{what}, so new data and changed code do not build it",
            remedy,
            str(resource["name"]),
            str(resource.get("original_file_path") or ""),
        )


def _old_manifest(patient: Patient) -> Iterator[Finding]:
    changed = changed_since_parse(patient.project.dbt_project, patient.project.variables)
    if changed:
        yield Finding(
            Severity.WARNING,
            "old-manifest",
            f"{changed} after the manifest was parsed, so the plan does not know it",
            "Run `dbt parse` when you deploy, or `project.prepare_if_dev()` in the code location",
            file=str(patient.project.dbt_project.manifest_path),
        )


def _settings_without_meaning(patient: Patient) -> Iterator[Finding]:
    for warning in patient.loaded.warnings:
        yield Finding(
            Severity.WARNING, "setting", warning.text, "See docs/configuration.md", warning.label, warning.file
        )


def _waits_for_the_unchanging(patient: Patient) -> Iterator[Finding]:
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
    """Return why nodes and sources do not change by themselves, by unique id."""
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
            why[uid] = "reads only what does not change" if node.parents else "reads nothing"
    return why


def _untracked(patient: Patient) -> Iterator[Finding]:
    if patient.look is None:
        return
    sources = patient.loaded.project.graph.sources
    if patient.look.problem:
        yield Finding(
            Severity.ERROR,
            "no-warehouse",
            f"The warehouse could not be asked: {patient.look.problem}",
            "Without it new data in the sources is not seen",
        )
    for uid, observation in patient.look.observations.items():
        source = sources[uid]
        if observation.error:
            yield Finding(
                Severity.ERROR,
                "source-fails",
                observation.error,
                "Until it answers, its last state stays and nothing is rebuilt for it",
                source.label,
                source.file,
            )
        elif observation.warning:
            interval = format_duration(source_policy(patient.loaded, source).untracked_interval)
            yield Finding(
                Severity.WARNING,
                "untracked-source",
                observation.warning,
                f"Until then it counts as updated every {interval} (`meta.dagster_sao.untracked_interval`)",
                source.label,
                source.file,
            )


def _untracked_inputs(patient: Patient) -> Iterator[Finding]:
    project = patient.loaded.project
    for uid, node in project.graph.nodes.items():
        build = patient.state.builds.get(uid)
        unknown = untracked_inputs(project.fingerprints[uid], build.evidence) if build else ()
        if unknown:
            interval = format_duration(project.policy(uid).untracked_interval)
            yield Finding(
                Severity.WARNING,
                "untracked-input",
                reads_unknown(unknown),
                f"Until then it counts as updated every {interval} (`meta.dagster_sao.untracked_interval`)",
                node.label,
                node.file,
            )


def _own_effects(patient: Patient) -> Iterator[Finding]:
    project, labels = patient.loaded.project, patient.loaded.project.labels
    for uid, build in patient.state.builds.items():
        node = project.graph.nodes.get(uid)
        stirred = [parent for parent, times in build.stirred.items() if times >= _OFTEN]
        if node is not None and stirred:
            yield Finding(
                Severity.WARNING,
                "own-effects",
                f"{named(stirred, labels)} moves in each run that builds it, so it is built again and again, at most every 6 hours",
                "Let no hook, and no macro that it runs, write to what it reads, or take the ref or source out of its SQL",
                node.label,
                node.file,
            )


def _unsound_metadata(patient: Patient) -> Iterator[Finding]:
    graph = patient.loaded.project.graph
    for source in graph.sources.values():
        if not source_policy(patient.loaded, source).trust_metadata:
            continue
        # Whether the target makes the times sound is known only once dbt's adapter is asked.
        may_be_sound = bool(traits_of(graph.adapter_type).times.sound_if)
        why = why_unsound(source, graph.adapter_type, is_sound_here=may_be_sound)
        if why is not None:
            yield Finding(
                Severity.WARNING,
                "unsound-metadata",
                f"`trust_metadata` is set, and {why}",
                "Give it a `loaded_at_query` that covers what is missed, or accept that such changes are not seen",
                source.label,
                source.file,
            )


def _no_retries(patient: Patient) -> Iterator[Finding]:
    path = patient.project.dbt_project.profiles_dir / "profiles.yml"
    for name, output in _duckdb_outputs(patient):
        if not (output.get("retries") or {}).get("connect_attempts"):
            yield Finding(
                Severity.WARNING,
                "no-retries",
                f"The DuckDB target {name} has no `retries`, so a build fails when the freshness sensor reads the file",
                "Add `retries: {connect_attempts: 6, retryable_exceptions: [IOException]}` to the target",
                file=str(path),
            )


def _duckdb_outputs(patient: Patient) -> Iterator[tuple[str, Mapping[str, Any]]]:
    dbt_project = patient.project.dbt_project
    try:
        profiles = yaml.safe_load((dbt_project.profiles_dir / "profiles.yml").read_text(encoding="utf-8")) or {}
        settings = yaml.safe_load((dbt_project.project_dir / "dbt_project.yml").read_text(encoding="utf-8")) or {}
        profile = profiles[dbt_project.profile or settings["profile"]]
        outputs = dict(profile["outputs"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return
    target = dbt_project.target or profile.get("target")
    for name, output in outputs.items():
        # A target that is given by Jinja may be any of them.
        is_meant = target == name or target not in outputs
        if is_meant and isinstance(output, Mapping) and traits_of(str(output.get("type"))).is_embedded:
            path = str(output.get("path") or ":memory:")
            if not path.startswith((":memory:", "md:", "motherduck:")):
                yield name, output


def _long_view_chains(patient: Patient) -> Iterator[Finding]:
    graph = patient.loaded.project.graph
    depth: dict[str, int] = {}
    for uid, node in graph.nodes.items():
        above = max((depth[parent] for parent in node.parents if parent in depth), default=0)
        depth[uid] = above + 1 if node.is_view else 0
    for uid, length in depth.items():
        is_end = not any(depth.get(child, 0) > length for child in graph.children[uid])
        if length > LONGEST_VIEW_CHAIN and is_end:
            node = graph.nodes[uid]
            yield Finding(
                Severity.INFO,
                "view-chain",
                f"It is the last of {length} views that read each other, and all are computed by each query",
                "Make one in the middle a table: it is then built only when something changed",
                node.label,
                node.file,
            )


def _waiting_views(patient: Patient) -> Iterator[Finding]:
    for uid, node in patient.loaded.project.graph.nodes.items():
        policy = patient.loaded.project.policy(uid)
        paces_tests = policy.build_after is not None and uid in patient.loaded.project.graph.tests_about
        if node.is_view and _waits(policy) and not paces_tests:
            yield Finding(
                Severity.INFO,
                "build-after-on-view",
                "A view is never built for new data and no test reads this one, so its waiting time has no effect",
                "Set it on the tables that read the view, or make this model a table",
                node.label,
                node.file,
            )


def _waits(policy: Policy) -> bool:
    return bool(policy.build_after or policy.lag_tolerance)


def _schedules_as_often_as_models(patient: Patient) -> Iterator[Finding]:
    keys = patient.loaded.keys.unique_ids
    repository = patient.definitions.get_repository_def()
    for schedule in repository.schedule_defs:
        cron = schedule.cron_schedule
        interval = cron_interval(cron) if isinstance(cron, str) else None
        if interval is None or not repository.has_job(schedule.job_name):
            continue
        targets = repository.get_job(schedule.job_name).asset_layer.executable_asset_keys
        for uid in sorted(keys[key] for key in targets if key in keys):
            if patient.loaded.project.policy(uid).build_after == interval:
                node = patient.loaded.project.graph.nodes[uid]
                yield Finding(
                    Severity.INFO,
                    "cron-equals-build-after",
                    f"The schedule {schedule.name} ({cron}) runs just as often as `build_after` lets it be built",
                    "Make build_after shorter, or leave it out: the schedule waits already",
                    node.label,
                    node.file,
                )


def cron_interval(cron: str) -> timedelta | None:
    """Return the time between two ticks of a cron schedule, None where that varies or is not plain to see.

    >>> [str(cron_interval(cron)) for cron in ("*/15 * * * *", "5 * * * *", "0 */6 * * *", "30 4 * * *", "0 9 * * 1")]
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


_RULES: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    _no_instance,
    _not_state_aware,
    _other_dbt,
    _old_manifest,
    _settings_without_meaning,
    _waits_for_the_unchanging,
    _untracked,
    _untracked_inputs,
    _own_effects,
    _unsound_metadata,
    _no_retries,
    _sensors_off,
    _schedules_as_often_as_models,
    _waiting_views,
    _long_view_chains,
    _dbt_state,
)
