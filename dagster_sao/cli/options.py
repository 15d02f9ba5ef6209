"""The options that commands have in common, named as dbt and Dagster name theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from dagster_sao.orchestration.project.selection import StateMode
from dagster_sao.orchestration.runs.config import LONGEST_RETRY_DELAY, MOST_RETRIES, MOST_THREADS, TestStrategy

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FOLDER = click.Path(path_type=Path, file_okay=False)


class _Seconds(click.FloatRange):
    """A number within a range: `nan` is in every range for click."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 (click's)
        """Return the number. Fails with click's sentence."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


_WHICH_PROJECT = (
    click.option(
        "-f",
        "--python-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The file that holds the Dagster definitions.",
    ),
    click.option("-m", "--module-name", help="The module that holds the Dagster definitions."),
    click.option("--project", "project_name", help="Which dbt project, where the definitions hold several."),
    click.option(
        "--project-dir",
        type=_FOLDER,
        help="The folder of the dbt project, in place of Dagster definitions.  [default: the current one]",
    ),
    click.option("--profiles-dir", type=_FOLDER, help="The folder of profiles.yml.  [default: where dbt looks for it]"),
    click.option("--profile", help="The profile, in place of the one that dbt_project.yml names."),
    click.option("-t", "--target", help="The target of the profile."),
    click.option("--vars", "variables", help="Values of var(), as YAML: '{key: value}'."),
)
_SELECTION = (
    click.option(
        "-s", "--select", "--models", multiple=True, metavar="SELECTION", help="What to select, as for dbt. Repeatable."
    ),
    click.option("--exclude", multiple=True, metavar="SELECTION", help="What of it to leave out. Repeatable."),
    click.option("--selector", default="", help="A yaml selector in their place."),
    click.option("--state", type=_FOLDER, help="A folder with another environment's manifest, for state: and --defer."),
    click.option(
        "--state-mode",
        type=click.Choice([mode.value for mode in StateMode]),
        default=StateMode.DBT.value,
        show_default=True,
        help="What state:modified means: dbt's text comparison, or a change of meaning.",
    ),
)
_BUILD = (
    click.option(
        "--state-aware/--no-state-aware",
        default=True,
        show_default=True,
        help="Build only what needs it, or all that is selected.",
    ),
    click.option(
        "--force", multiple=True, metavar="SELECTION", help="What to build even if nothing changed. Repeatable."
    ),
    click.option("--full-refresh", is_flag=True, help="Build all that is selected anew, incremental models too."),
    click.option(
        "--refresh-sources/--no-refresh-sources",
        default=True,
        show_default=True,
        help="Look first for new data in the sources above the selection.",
    ),
    click.option(
        "--test-strategy",
        type=click.Choice([strategy.value for strategy in TestStrategy]),
        default=TestStrategy.IMMEDIATE.value,
        show_default=True,
        help="When tests are run.",
    ),
    click.option(
        "--retries", type=click.IntRange(min=0, max=MOST_RETRIES), default=0, help="How often to try again what failed."
    ),
    click.option(
        "--retry-delay",
        "retry_delay_seconds",
        type=_Seconds(min=0, max=LONGEST_RETRY_DELAY),
        default=30.0,
        show_default=True,
        help="Seconds before the first retry; each later one waits twice as long.",
    ),
    click.option("-x", "--fail-fast", is_flag=True, help="Start no further model after the first failure."),
    click.option("--threads", type=click.IntRange(min=1, max=MOST_THREADS), help="How many models to build at once."),
    click.option("--defer", is_flag=True, help="Read what is not built here from the environment of --state."),
    click.option("--favor-state", is_flag=True, help="With --defer: also what exists here."),
)
_OUTPUT = (
    click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="The form of the result on stdout.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Show only the result and errors."),
    click.option("--debug", is_flag=True, help="Show all logs, and where an error comes from."),
)


class DbtLikeCommand(click.Command):
    """A command whose repeatable options take all words up to the next option, as dbt's do: `--select orders customers`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of a command line. Returns what is left of them; raises click.UsageError."""
        options = (param for param in self.params if isinstance(param, click.Option) and param.multiple)
        return super().parse_args(ctx, list(_one_value_each(args, {name for one in options for name in one.opts})))


class Commands(click.Group):
    """Commands that read their options as dbt's do."""

    command_class = DbtLikeCommand


def _one_value_each(args: Iterable[str], names: Container[str]) -> Iterator[str]:
    """Yield a command line in which each of the options `names` is repeated for each of its values.

    >>> list(_one_value_each(["-s", "a", "b", "-q", "-s", "c"], {"-s"}))
    ['-s', 'a', '-s', 'b', '-q', '-s', 'c']
    """
    name, has_value = "", False
    for word in args:
        if word.startswith("-"):
            name, has_value = word if word in names else "", False
        elif name:
            if has_value:
                yield name
            has_value = True
        yield word


def _all(options: tuple[Callable[[_Command], _Command], ...]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


project_options = _all(_WHICH_PROJECT)
selection_options = _all(_SELECTION)
build_options = _all(_BUILD)
output_options = _all(_OUTPUT)
