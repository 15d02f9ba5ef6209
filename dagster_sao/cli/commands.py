"""The commands. Each reads its options, calls the API and shows the result."""

from __future__ import annotations

import functools
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import click
import dagster as dg

from dagster_sao.api import Severity, StateAwareProject
from dagster_sao.api.for_cli import find_dbt
from dagster_sao.api.request import make_request
from dagster_sao.cli.errors import EXIT_FAILED, told_in_one_line
from dagster_sao.cli.open_project import open_project
from dagster_sao.cli.options import Commands, build_options, output_options, project_options, selection_options
from dagster_sao.cli.output import Output, stdout_kept_clean
from dagster_sao.cli.progress import build_progress
from dagster_sao.errors import EmptySelectionError

_PROJECT_OPTIONS = (
    "python_file",
    "module_name",
    "project_name",
    "project_dir",
    "profiles_dir",
    "profile",
    "target",
    "variables",
)
_Body = Callable[..., None]


commands = Commands()
"""All commands, by name."""


def _command(body: _Body) -> _Body:
    """Give a command the project and the output that its options name, and turn errors into exit codes."""

    @functools.wraps(body)
    def run(*, output: str, quiet: bool, debug: bool, **options: Any) -> None:
        out = Output(output, quiet=quiet)
        which = {name: options.pop(name) for name in _PROJECT_OPTIONS}
        with told_in_one_line(debug=debug), _warnings(debug=debug):
            find_dbt()
            with stdout_kept_clean(to_stderr=debug):
                project = open_project(which, out.warn)
            with closing(project):
                body(project, out, debug=debug, **options)

    return output_options(project_options(run))


@contextmanager
def _warnings(*, debug: bool) -> Iterator[None]:
    # Dagster's warnings are for people who write definitions, not for people who run a command.
    with warnings.catch_warnings():
        if not debug:
            for kind in (dg.BetaWarning, dg.PreviewWarning, DeprecationWarning):
                warnings.simplefilter("ignore", kind)
        yield


@commands.command()
@selection_options
@build_options
@_command
def plan(project: StateAwareProject, out: Output, *, debug: bool, **options: Any) -> None:
    """Show what a build with the same options would do now, with the reason for each model and test. Writes nothing.

    \b
    Examples:
      dagster-sao plan
      dagster-sao plan --select orders+ --exclude tag:slow
      dagster-sao plan --select state:modified+ --state prod/ --state-mode semantic -o json
    """
    request = make_request(**options)
    with stdout_kept_clean(to_stderr=debug), _waiting(out, "Planning"):
        made = project.plan_request(request)
    out.show(made)


@commands.command()
@selection_options
@build_options
@_command
def build(project: StateAwareProject, out: Output, *, debug: bool, **options: Any) -> None:
    """Build and test everything that is due, as a Dagster run in this process, and report the rest as reused.

    \b
    Examples:
      dagster-sao build
      dagster-sao build --select +orders customers --threads 8 --retries 2
      dagster-sao build --force tag:finance
      dagster-sao build --select state:modified+ --state prod/ --defer
    """
    request = make_request(**options)
    try:
        count = len(project.select(request.selection, warn=out.warn))
        with (
            _terminated_as_interrupted(),
            build_progress(out, count) as hear,
            stdout_kept_clean(to_stderr=debug),
        ):
            level = "DEBUG" if debug else "CRITICAL"
            results = project.build_request(request, listener=hear, log_level=level)
    except EmptySelectionError as error:
        # As in dbt, nothing to do is not a failure.
        out.warn(f"{error} Nothing to do.")
        if out.is_json:
            out.show_json({"run_id": None, "success": True, "nodes": [], "tests": []})
        return
    for warning in results.warnings:
        out.warn(warning)
    if out.is_json:
        out.show(results)
    else:
        out.line(results.summary())
    if not results.success:
        for problem in results.problems:
            out.err.print(problem, style="red", markup=False, highlight=False)
        raise click.exceptions.Exit(EXIT_FAILED)


@commands.command()
@click.argument("name")
@_command
def explain(project: StateAwareProject, out: Output, name: str, *, debug: bool) -> None:
    """Show why the node or test NAME was last built or run, and the decision about it now.

    For a node: its parents with their versions, its settings, its tests, and the tests that hold it. For a test: its last
    answer with the versions that it read, and the nodes that it gates and holds.

    \b
    Examples:
      dagster-sao explain orders
      dagster-sao explain not_null_orders_id
      dagster-sao explain model.shop.orders -o json
    """
    del debug
    out.show(project.explain(name))


@commands.command()
@click.argument("name", required=False)
@_command
def state(project: StateAwareProject, out: Output, name: str | None, *, debug: bool) -> None:
    """Show the recorded state of the node or test NAME, or of every node.

    \b
    Examples:
      dagster-sao state orders
      dagster-sao state not_null_orders_id
      dagster-sao state -o json
    """
    del debug
    out.show(project.state(name) if name is not None else project.states())


@commands.command()
@selection_options
@click.option("-y", "--yes", is_flag=True, help="Reset everything without asking.")
@_command
def reset(project: StateAwareProject, out: Output, *, yes: bool, debug: bool, **options: Any) -> None:
    """Forget the state of a selection, so that each of its nodes counts as not built before.

    Dagster's history and the tables stay as they are. The next plan, job or sensor tick builds the nodes again.

    \b
    Examples:
      dagster-sao reset --select orders+
      dagster-sao reset --yes
    """
    del debug
    is_all = not (options["select"] or options["exclude"] or options["selector"])
    if is_all and not yes:
        click.confirm(f"Forget the state of all of {project.name}?", abort=True, err=True)
    forgotten = project.reset(**options)
    if out.is_json:
        out.show_json({"forgotten": forgotten})
    else:
        names = [project.orchestrated.load().project.graph.label(uid) for uid in forgotten]
        out.line(
            f"Forgot the state of {len(forgotten)}: {', '.join(names)}" if names else "There was nothing to forget"
        )


@commands.command()
@selection_options
@click.option("--trust-proofs", is_flag=True, help="Let runs prove tests again after a test contradicted a proof.")
@_command
def tests(project: StateAwareProject, out: Output, *, trust_proofs: bool, debug: bool, **options: Any) -> None:
    """Show for each data test what a build would do now, and whether it would need a query of its own after a rebuild.

    The latter assumes `efficient_testing: all`: dbt compiles the selection, and nothing is built or recorded.

    \b
    Examples:
      dagster-sao tests
      dagster-sao tests --select orders+ -o json
      dagster-sao tests --trust-proofs
    """
    if trust_proofs:
        ended = project.trust_proofs()
        out.note(f"Proofs are trusted again. {ended}" if ended else "No test has contradicted a proof of this version.")
    with stdout_kept_clean(to_stderr=debug), _waiting(out, "Compiling"):
        found = project.tests(**options)
    out.show(found)


@commands.command()
@click.option(
    "--probe/--no-probe", default=False, show_default=True, help="Query the warehouse for the current tokens."
)
@_command
def sources(project: StateAwareProject, out: Output, *, probe: bool, debug: bool) -> None:
    """Show the sources: their tokens, the age of their data, and how each is probed.

    \b
    Examples:
      dagster-sao sources
      dagster-sao sources --probe -o json
    """
    with stdout_kept_clean(to_stderr=debug), _waiting(out, "Querying the warehouse" if probe else "Reading"):
        found = project.sources(probe=probe)
    out.show(found)


@commands.command()
@click.argument("names", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--token", default="", help="The version of the data, for a source that is not probed (loaded_by_dagster)."
)
@_command
def notify(project: StateAwareProject, out: Output, names: tuple[str, ...], *, token: str, debug: bool) -> None:
    """Record that each SOURCE was loaded, so that the next tick or job builds what reads it.

    Call it at the end of a load: the source is probed now, and no sensor has to poll it. Exits with 1 if one cannot be probed.

    \b
    Examples:
      dagster-sao notify raw.orders
      dagster-sao notify raw.orders raw.items -o json
      dagster-sao notify files.prices --token "$(sha256sum prices.csv)"
    """
    with stdout_kept_clean(to_stderr=debug), _waiting(out, "Querying the warehouse"):
        notices = project.notify(*names, token=token)
    out.show(notices)
    if not notices.success:
        raise click.exceptions.Exit(EXIT_FAILED)


@commands.command()
@click.option(
    "--probe/--no-probe",
    default=True,
    show_default=True,
    help="Query the warehouse for sources that cannot be tracked.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too, not only for errors.")
@_command
def doctor(project: StateAwareProject, out: Output, *, probe: bool, strict: bool, debug: bool) -> None:
    """Find settings that don't do what they appear to. Writes nothing.

    Exits with 1 when there is an error, with --strict also when there is a warning.

    \b
    Examples:
      dagster-sao doctor
      dagster-sao doctor --strict -o json
    """
    with stdout_kept_clean(to_stderr=debug), _waiting(out, "Examining"):
        findings = project.doctor(probe=probe)
    out.show(findings)
    if findings.has(Severity.ERROR) or (strict and findings.has(Severity.WARNING)):
        raise click.exceptions.Exit(EXIT_FAILED)


@contextmanager
def _waiting(out: Output, what: str) -> Iterator[None]:
    """Show on a terminal that something is going on."""
    if out.quiet or not out.err.is_terminal:
        yield
        return
    with out.err.status(f"{what}…"):
        yield


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end a build as ctrl-c does: the run is then recorded as ended, and dbt is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
