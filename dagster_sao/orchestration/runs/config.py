"""The options of a run, defined once: launchpad, jobs, Python and command line derive from `RunOptions`."""

# No `from __future__ import annotations` here: Dagster reads the annotations of a config at run time.
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import dagster as dg
from dagster.components.resolved.model import Resolver
from pydantic import Field, ValidationError, create_model

from dagster_sao.core.manifest.policy import EfficientTesting


class TestStrategy(str, Enum):
    """When the tests of what is built are run."""

    __test__ = False  # pytest takes it for a test otherwise

    IMMEDIATE = "immediate"
    """In dbt's order: a failed test of error severity stops what is below the model."""
    DEFERRED = "deferred"
    """After all models are built, so that none waits for a test."""
    SKIP = "skip"
    """Never."""


@dataclass(frozen=True, slots=True)
class _Details:
    """The properties of an option that its type does not show."""

    least: float | None = None
    most: float | None = None
    needs: str = ""
    """Another option that this one requires."""
    is_dbts: bool = False
    """Whether it is one of `dbt build`'s own flags, by the same name."""
    flags: tuple[str, ...] = ()
    """Its names on the command line, where `--its-name` is not the only one or not the right one."""


@dataclass(kw_only=True)
class RunOptions:
    """The options of a run. Each is defined here and nowhere else: its name, type, default and description."""

    state_aware: Annotated[
        bool,
        Resolver.default(
            description="Build only what needs it and report the rest as reused. If false, build everything selected."
        ),
    ] = True
    select: Annotated[
        str,
        Resolver.default(
            description="What to build, in dbt's selection syntax. Empty: everything.",
            examples=["tag:nightly", "+orders"],
        ),
        _Details(flags=("-s", "--select", "--models")),
    ] = ""
    exclude: Annotated[
        str,
        Resolver.default(description="What to leave out, in dbt's selection syntax.", examples=["tag:slow"]),
    ] = ""
    selector: Annotated[
        str, Resolver.default(description="The name of a YAML selector, instead of `select` and `exclude`.")
    ] = ""
    full_refresh: Annotated[
        bool,
        Resolver.default(description="Rebuild everything selected from scratch, incremental models too."),
        _Details(is_dbts=True),
    ] = False
    force: Annotated[
        list[str],
        Resolver.default(
            description="What to build even if nothing changed, in dbt's selection syntax.", examples=[["tag:finance"]]
        ),
    ] = field(default_factory=list)
    refresh_sources: Annotated[
        bool, Resolver.default(description="Probe the sources above the selection for new data first.")
    ] = True
    test_strategy: Annotated[
        TestStrategy,
        Resolver.default(
            description="When to run tests: `immediate` (in dbt's order), `deferred` (after all models) or `skip`."
        ),
    ] = TestStrategy.IMMEDIATE
    efficient_testing: Annotated[
        EfficientTesting | None,
        Resolver.default(
            description="How to save queries of data tests: `off`, `reuse` (proofs), `aggregate` (several tests in one query) or"
            " `all`. By default the project's setting."
        ),
    ] = None
    retries: Annotated[
        int,
        Resolver.default(description="How often to retry failed nodes within the run."),
        _Details(least=0, most=100),
    ] = 0
    retry_delay_seconds: Annotated[
        float,
        Resolver.default(description="Seconds before the first retry. Each later retry waits twice as long."),
        _Details(least=0, most=86_400, flags=("--retry-delay",)),
    ] = 30.0
    fail_fast: Annotated[
        bool,
        Resolver.default(description="Start no more models after the first failure."),
        _Details(is_dbts=True, flags=("-x", "--fail-fast")),
    ] = False
    observe_reused: Annotated[
        bool,
        Resolver.default(
            description="Write an observation for each reused model to its asset. By default only the run reports them, all in"
            " one event."
        ),
    ] = False
    vars: Annotated[
        dict[str, Any],
        Resolver.default(
            description="Values of `var()`, which override the project's.", examples=[{"day": "2026-01-01"}]
        ),
    ] = field(default_factory=dict)
    target: Annotated[
        str | None, Resolver.default(description="The target of the dbt profile."), _Details(flags=("-t", "--target"))
    ] = None
    threads: Annotated[
        int | None,
        Resolver.default(description="How many models dbt builds at once. By default the number in the profile."),
        _Details(least=1, most=1000, is_dbts=True),
    ] = None
    state: Annotated[
        str | None,
        Resolver.default(
            description="A folder with another environment's manifest, for `state:` selection and `defer`."
        ),
    ] = None
    defer: Annotated[
        bool,
        Resolver.default(description="Read parents that are not built here from the environment of `state`."),
        _Details(needs="state", is_dbts=True),
    ] = False
    favor_state: Annotated[
        bool,
        Resolver.default(description="With `defer`: read them from there even if they exist here."),
        _Details(needs="defer", is_dbts=True),
    ] = False


_Choices = type[Enum] | None


@dataclass(frozen=True, slots=True)
class RunOption:
    """One option of a run, as each surface needs it."""

    name: str
    type: Any
    default: Any
    description: str
    least: float | None
    most: float | None
    needs: str
    is_dbts: bool
    flags: tuple[str, ...]

    @property
    def choices(self) -> _Choices:
        """The enum of its values, None where it takes any of its type."""
        kinds = (self.type, *get_args(self.type))
        return next((one for one in kinds if isinstance(one, type) and issubclass(one, Enum)), None)


def _read(one: Any) -> RunOption:  # noqa: ANN401 (a field of a dataclass has a type of its own kind)
    annotated, *notes = get_args(one.type)
    description = next(note.description for note in notes if isinstance(note, Resolver))
    details = next((note for note in notes if isinstance(note, _Details)), _Details())
    default = one.default if one.default_factory is MISSING else one.default_factory()
    return RunOption(
        one.name,
        annotated,
        default,
        str(description),
        least=details.least,
        most=details.most,
        needs=details.needs,
        is_dbts=details.is_dbts,
        flags=details.flags,
    )


RUN_OPTIONS: Mapping[str, RunOption] = {one.name: _read(one) for one in fields(RunOptions)}
"""The options of a run by name, in the order in which they are shown."""


def _launchpad_field(option: RunOption) -> tuple[Any, Any]:
    has_own_copy = isinstance(option.default, (list, dict))
    default: dict[str, Any] = {"default_factory": type(option.default)} if has_own_copy else {"default": option.default}
    return option.type, Field(**default, description=option.description, ge=option.least, le=option.most)


if TYPE_CHECKING:

    class _LaunchpadOptions(RunOptions, dg.Config):
        """The options as fields of a config."""

else:
    _LaunchpadOptions = create_model(
        "_LaunchpadOptions",
        __base__=dg.Config,
        __module__=__name__,
        **{option.name: _launchpad_field(option) for option in RUN_OPTIONS.values()},
    )


class StateAwareRunConfig(_LaunchpadOptions):
    """The config of a run of a project's models: `RunOptions`, where being state-aware may follow from who starts it."""

    state_aware: bool | None = Field(  # type: ignore[assignment]  # None only here, see the description
        default=None,
        description=(
            f"{RUN_OPTIONS['state_aware'].description} By default true in a run of a sensor or a state-aware job, and"
            " false in a run that you start by hand."
        ),
    )

    @property
    def state_path(self) -> Path | None:
        """The folder of another environment's manifest."""
        return Path(self.state) if self.state else None


def problem_of(error: ValidationError) -> str:
    """Return the first option that a config refused, as a sentence."""
    first = error.errors()[0]
    return f"`{first['loc'][0]}` is {first['input']!r}. {first['msg']}."


def read_run_config(context: dg.AssetExecutionContext) -> StateAwareRunConfig:
    """Return the config of a run, the defaults where its assets take another one."""
    given = context.op_execution_context.op_config
    return StateAwareRunConfig(**given) if isinstance(given, dict) and "state_aware" in given else StateAwareRunConfig()


def with_job_config(context: dg.AssetExecutionContext, config: StateAwareRunConfig) -> StateAwareRunConfig:
    """Return the config of a run with its job's values for what the run was not told.

    Dagster takes the job's config only where a run is told nothing at all: else the rest would be the op's defaults,
    and a state-aware job that is started with no more than a `full_refresh` would not be state-aware.
    """
    op = context.op_execution_context
    job = dg.validate_run_config(context.job_def, {}) if context.job_def.run_config else {}
    default = _op_config(job, op.op_def.name)
    given = _op_config(context.run.run_config, op.op_handle.name)
    missing = {
        name: default[name] for name in StateAwareRunConfig.model_fields if name in default and name not in given
    }
    return StateAwareRunConfig(**{**config.model_dump(), **missing})


def _op_config(run_config: Mapping[str, Any], op: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = run_config.get("ops", {}).get(op, {}).get("config") or {}
    return found


def with_dbt_arguments(config: StateAwareRunConfig, arguments: Sequence[Any]) -> StateAwareRunConfig:
    """Return the config of a run, completed by the options of its dbt command."""
    # Of dbt's commands that build, only `build` runs tests.
    strategy = config.test_strategy if list(arguments[:1]) == ["build"] else TestStrategy.SKIP
    full_refresh = config.full_refresh or "--full-refresh" in arguments
    return config.model_copy(update={"test_strategy": strategy, "full_refresh": full_refresh})
