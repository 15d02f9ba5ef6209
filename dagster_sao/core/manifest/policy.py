"""What a node or source asks for: `freshness`, `state` and `meta.dagster_sao`, read from the manifest.

Every level of dbt config is already merged in `nodes[*].config`, but not without loss. `unrendered_config` keeps what
dbt-core drops: an explicit `freshness: null`, and an `updates_on` written beside `build_after`.
https://docs.getdbt.com/reference/resource-configs/freshness
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, TypeVar

from dagster_sao.core.durations import LONGEST_DAYS, parse_duration, shown
from dagster_sao.core.errors import InvalidPolicyError
from dagster_sao.core.suggestions import did_you_mean, nearest_names

DEFAULT_UNTRACKED_INTERVAL = timedelta(hours=1)
_PERIODS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_NODE_SETTINGS = frozenset(
    {
        "code_changes",
        "rebuild_every",
        "expire_with_sources",
        "content_fingerprint",
        "untracked_interval",
        "on_code_change",
        "external_changes",
        "trusted_imports",
    }
)
_TEST_SETTINGS = frozenset({"untracked_interval", "efficient_testing"})
_SOURCE_SETTINGS = frozenset({"untracked_interval", "probe_every", "blocking", "trust_metadata"})


class UpdatesOn(str, Enum):
    """How many direct parents must have changed."""

    ANY = "any"
    ALL = "all"


class CodeChanges(str, Enum):
    """Whether a code change waits for `build_after`."""

    IMMEDIATE = "immediate"
    RESPECT_BUILD_AFTER = "respect_build_after"


class OnCodeChange(str, Enum):
    """How an incremental model whose code changed is built."""

    BUILD = "build"
    FULL_REFRESH = "full_refresh"


class EfficientTesting(str, Enum):
    """How a due data test may be answered without a query of its own."""

    OFF = "off"
    REUSE = "reuse"
    """By a proof."""
    AGGREGATE = "aggregate"
    """With other tests of the same relation, in one query."""
    ALL = "all"
    """By a proof, else with others."""

    @classmethod
    def _missing_(cls, value: object) -> EfficientTesting | None:
        return cls.OFF if value is False else None  # YAML reads `off` as false

    def __str__(self) -> str:
        return self.value  # and Dagster's templates in YAML turn that into text

    @property
    def proves(self) -> bool:
        """Whether a proof answers a test."""
        return self in {EfficientTesting.REUSE, EfficientTesting.ALL}

    @property
    def merges(self) -> bool:
        """Whether one query answers several tests."""
        return self in {EfficientTesting.AGGREGATE, EfficientTesting.ALL}


class ExternalChanges(str, Enum):
    """How to treat a relation that something other than Dagster altered."""

    PROPAGATE = "propagate"
    """It is new data for its children."""
    REBUILD = "rebuild"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Policy:
    """When a node wants to be built."""

    build_after: timedelta | None = None
    updates_on: UpdatesOn = UpdatesOn.ANY
    lag_tolerance: timedelta | None = None
    code_changes: CodeChanges = CodeChanges.IMMEDIATE
    rebuild_every: timedelta | None = None
    content_fingerprint: bool = False
    on_code_change: OnCodeChange = OnCodeChange.BUILD
    external_changes: ExternalChanges | None = None
    """None: where alterations can be detected cheaply, `rebuild` for functions of their inputs, `propagate` for others."""
    untracked_interval: timedelta = DEFAULT_UNTRACKED_INTERVAL
    """How often the inputs of the node whose changes cannot be detected count as updated."""
    expire_with_sources: bool = False
    """Whether `rebuild_every` follows from the freshness thresholds of the sources above (`core.expiry`)."""
    trusted_imports: frozenset[str] = frozenset()
    """The libraries that a Python model imports and that read nothing of their own accord."""


@dataclass(frozen=True, slots=True)
class SourcePolicy:
    """The age limits of a source, how often it is probed, and how it counts when its changes cannot be detected."""

    untracked_interval: timedelta = DEFAULT_UNTRACKED_INTERVAL
    warn_after: timedelta | None = None
    error_after: timedelta | None = None
    trust_metadata: bool = False
    """Whether the warehouse's last-modified time is the token even where it is not known to move with every change."""
    probe_every: timedelta | None = None
    """The minimum time between probes."""
    blocking: bool = False
    """Whether nothing is built from it while it is older than `error_after`."""

    @property
    def has_thresholds(self) -> bool:
        """Whether its age matters."""
        return self.warn_after is not None or self.error_after is not None

    @property
    def expires_after(self) -> timedelta | None:
        """The age at which nodes built from it count as old: `error_after`, else `warn_after`."""
        return self.error_after or self.warn_after or None


@dataclass(frozen=True, slots=True)
class TestPolicy:
    """The settings of a data test. None stands for the project's setting."""

    __test__ = False  # pytest takes it for a test otherwise

    untracked_interval: timedelta | None = None
    """How long its answer stays valid when its SQL is volatile."""
    efficient_testing: EfficientTesting | None = None


@dataclass(frozen=True, slots=True)
class SettingWarning:
    """A setting that is understood but has no effect, or should be written differently."""

    label: str
    """The node, source or test that has it."""
    file: str
    text: str

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"{self.label} ({self.file}): {self.text}"


@dataclass(frozen=True, slots=True)
class PolicyReading:
    """A policy, and the warnings about its settings."""

    policy: Policy
    warnings: tuple[SettingWarning, ...] = ()


def read_policy(props: Mapping[str, Any]) -> PolicyReading:
    """Return the policy of a manifest node.

    Raises InvalidPolicyError, naming the node and its file, for a setting that has no meaning.
    """
    return _Reader(props).node_policy()


def read_source_policy(props: Mapping[str, Any]) -> tuple[SourcePolicy, tuple[SettingWarning, ...]]:
    """Return the policy of a manifest source, and its warnings.

    Raises InvalidPolicyError, naming the source and its file, for a setting that has no meaning.
    """
    return _Reader(props).source_policy()


def read_test_policy(props: Mapping[str, Any]) -> tuple[TestPolicy, tuple[SettingWarning, ...]]:
    """Return the policy of a manifest's data test, and its warnings.

    Raises InvalidPolicyError, naming the test and its file, for a setting that has no meaning.
    """
    return _Reader(props).test_policy()


_E = TypeVar("_E", bound=Enum)


def _quoted(value: object) -> str:
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


class _Reader:
    def __init__(self, props: Mapping[str, Any]) -> None:
        self._props = props
        self._warnings: list[SettingWarning] = []
        self._config: Mapping[str, Any] = self._mapping("config", props.get("config"))
        self._unrendered: Mapping[str, Any] = self._mapping("config", props.get("unrendered_config"))

    def node_policy(self) -> PolicyReading:
        settings = self._meta_settings(_NODE_SETTINGS)
        if settings.get("content_fingerprint"):
            self._warn("`meta.dagster_sao.content_fingerprint` is read but has no effect in this release.")
        build_after, updates_on, lag_tolerance = self._waiting()
        policy = Policy(
            build_after=build_after,
            updates_on=updates_on,
            lag_tolerance=lag_tolerance,
            code_changes=self._choice(CodeChanges, "code_changes", settings.get("code_changes"), CodeChanges.IMMEDIATE),
            rebuild_every=self._expiry("rebuild_every", settings.get("rebuild_every")),
            content_fingerprint=self._flag("content_fingerprint", settings.get("content_fingerprint")),
            on_code_change=self._choice(
                OnCodeChange, "on_code_change", settings.get("on_code_change"), OnCodeChange.BUILD
            ),
            external_changes=self._external_changes(settings.get("external_changes")),
            untracked_interval=self._untracked_interval(settings) or DEFAULT_UNTRACKED_INTERVAL,
            expire_with_sources=self._flag("expire_with_sources", settings.get("expire_with_sources")),
            trusted_imports=self._names("trusted_imports", settings.get("trusted_imports")),
        )
        return PolicyReading(policy, tuple(self._warnings))

    def source_policy(self) -> tuple[SourcePolicy, tuple[SettingWarning, ...]]:
        settings = self._meta_settings(_SOURCE_SETTINGS)
        freshness = self._mapping("freshness", self._config.get("freshness") or self._props.get("freshness"))
        policy = SourcePolicy(
            untracked_interval=self._untracked_interval(settings) or DEFAULT_UNTRACKED_INTERVAL,
            warn_after=self._time("warn_after", self._mapping("freshness.warn_after", freshness.get("warn_after"))),
            error_after=self._time("error_after", self._mapping("freshness.error_after", freshness.get("error_after"))),
            probe_every=self._duration("probe_every", settings.get("probe_every")),
            blocking=self._flag("blocking", settings.get("blocking")),
            trust_metadata=self._flag("trust_metadata", settings.get("trust_metadata")),
        )
        return policy, tuple(self._warnings)

    def test_policy(self) -> tuple[TestPolicy, tuple[SettingWarning, ...]]:
        settings = self._meta_settings(_TEST_SETTINGS)
        chosen = settings.get("efficient_testing")
        policy = TestPolicy(
            untracked_interval=self._untracked_interval(settings),
            efficient_testing=None
            if chosen is None
            else self._choice(EfficientTesting, "efficient_testing", chosen, EfficientTesting.AGGREGATE),
        )
        return policy, tuple(self._warnings)

    def _untracked_interval(self, settings: Mapping[str, Any]) -> timedelta | None:
        interval = self._duration("untracked_interval", settings.get("untracked_interval"))
        if interval == timedelta(0):
            raise self._invalid("`untracked_interval` is 0, so it would be due without end; write a longer time")
        return interval

    def _waiting(self) -> tuple[timedelta | None, UpdatesOn, timedelta | None]:
        # Of a config block, dbt 1.12 keeps the text.
        if "freshness" in self._unrendered and str(self._unrendered["freshness"]).strip().lower() == "none":
            return None, UpdatesOn.ANY, None
        freshness = self._mapping("freshness", self._config.get("freshness"))
        build_after = self._mapping("freshness.build_after", freshness.get("build_after"))
        beside = self._updates_on_beside()
        if build_after or beside:
            chosen = beside if beside is not None else build_after.get("updates_on")
            return self._time("build_after", build_after), self._updates_on("updates_on", chosen), None
        state = self._mapping("state", self._config.get("state"))
        return (
            None,
            self._updates_on("require_fresh_data_from", state.get("require_fresh_data_from")),
            self._duration("lag_tolerance", state.get("lag_tolerance")),
        )

    def _updates_on_beside(self) -> object:
        written = self._unrendered.get("freshness")
        if not isinstance(written, Mapping) or "updates_on" not in written:
            return None
        self._warn(
            "`updates_on` is next to `build_after`, where dbt drops it; it is honoured here."
            " Move it into `build_after`."
        )
        return written["updates_on"]

    def _external_changes(self, value: object) -> ExternalChanges | None:
        if value is None:
            return None
        return self._choice(ExternalChanges, "external_changes", value, ExternalChanges.PROPAGATE)

    def _updates_on(self, name: str, value: object) -> UpdatesOn:
        return self._choice(UpdatesOn, name, value, UpdatesOn.ANY)

    def _time(self, name: str, settings: Mapping[str, Any]) -> timedelta | None:
        count, period = settings.get("count"), settings.get("period")
        if count is None and period is None:
            return None
        period = getattr(period, "value", period)
        unit = _PERIODS.get(period) if isinstance(period, str) else None
        if not isinstance(count, int) or isinstance(count, bool) or unit is None:
            raise self._invalid(
                f"`{name}` needs a whole `count` and a `period` of minute, hour or day,"
                f" not {_quoted(count)} {_quoted(period)}"
            )
        if count < 0:
            raise self._invalid(f"`{name}.count` is {shown(count)}, and a count cannot be negative")
        if count > timedelta(days=LONGEST_DAYS) // unit:
            raise self._invalid(f"`{name}` is {shown(count)} {period}s: the longest time is {LONGEST_DAYS} days")
        return count * unit

    def _duration(self, name: str, value: object) -> timedelta | None:
        if value is None:
            return None
        try:
            return parse_duration(value)
        except ValueError as error:
            raise self._invalid(f"`{name}`: {error}") from None

    def _expiry(self, name: str, value: object) -> timedelta | None:
        duration = self._duration(name, value)
        if duration == timedelta(0):
            raise self._invalid(f"`{name}` is {value}, so the model would be built without end; write a longer time")
        return duration

    def _mapping(self, name: str, value: object) -> Mapping[str, Any]:
        if value is None or isinstance(value, Mapping):
            return value or {}
        raise self._invalid(f"`{name}` is a mapping, not {_quoted(value)}")

    def _flag(self, name: str, value: object) -> bool:
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self._invalid(f"`{name}` is true or false, not {_quoted(value)}")

    def _names(self, name: str, value: object) -> frozenset[str]:
        names = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(each, str) for each in names):
            raise self._invalid(f"`{name}` is a list of names, not {_quoted(value)}")
        return frozenset(names)

    def _choice(self, choices: type[_E], name: str, value: object, default: _E) -> _E:
        if value is None:
            return default
        try:
            return choices(getattr(value, "value", value))
        except (ValueError, TypeError):
            allowed = " or ".join(f"`{choice.value}`" for choice in choices)
            raise self._invalid(f"`{name}` is {allowed}, not {_quoted(value)}") from None

    def _meta_settings(self, known: frozenset[str]) -> Mapping[str, Any]:
        metas = (self._props.get("source_meta"), self._props.get("meta"), self._config.get("meta"))
        settings: dict[str, Any] = {}
        for meta in metas:
            found = self._mapping("meta", meta).get("dagster_sao")
            if found is None:
                continue
            if not isinstance(found, Mapping):
                raise self._invalid(f"`meta.dagster_sao` is a mapping of settings, not {_quoted(found)}")
            settings.update(found)
        for name in sorted(map(shown, set(settings) - known)):
            hint = did_you_mean(nearest_names(name, known, most=1), quote="`")
            self._warn(f"`meta.dagster_sao.{name}` is not a setting and has no effect.{hint}")
        return settings

    @property
    def _label(self) -> str:
        name = str(self._props["name"])
        return f"{self._props['source_name']}.{name}" if self._props.get("source_name") else name

    @property
    def _file(self) -> str:
        return str(self._props.get("original_file_path"))

    def _warn(self, text: str) -> None:
        self._warnings.append(SettingWarning(self._label, self._file, text))

    def _invalid(self, problem: str) -> InvalidPolicyError:
        return InvalidPolicyError(f"{self._label} ({self._file}): {problem}.")
