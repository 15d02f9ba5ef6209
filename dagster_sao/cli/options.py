"""The options that commands have in common, named as dbt and Dagster name theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import click

from dagster_sao.api.for_cli import RUN_OPTIONS, RunOption, StateMode

_Command = TypeVar("_Command", bound=Callable[..., Any])
_SEVERAL = {"select", "exclude", "force"}
_FOLDER = click.Path(path_type=Path, file_okay=False)


class _Seconds(click.FloatRange):
    """A number within a range. To click alone, `nan` is in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 (click's)
        """Return the number. Fails with click's sentence."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def _option(name: str, parameter: str | None = None) -> Callable[[_Command], _Command]:
    """Return an option of a run as the command line has it. `parameter` is its name in Python, by default its own."""
    option = RUN_OPTIONS[name]
    flags = list(option.flags) or [f"--{name.replace('_', '-')}"]
    settings: dict[str, Any] = {"help": option.description, **_form_of(option)}
    if option.default is True:
        flags = [f"{flag}/--no-{flag.removeprefix('--')}" for flag in flags]
    if name in _SEVERAL:
        settings.pop("default", None)
        settings |= {"multiple": True, "metavar": "SELECTION", "help": f"{option.description} Repeatable."}
    return click.option(*flags, parameter or name, **settings)


def _form_of(option: RunOption) -> dict[str, Any]:
    """Return the type and the default with which click reads an option."""
    default = option.default
    if isinstance(default, bool):
        return {"is_flag": True, "default": default, "show_default": default}
    if option.choices is not None:
        value = default.value if isinstance(default, Enum) else default
        choices = [choice.value for choice in option.choices]
        return {"type": click.Choice(choices), "default": value, "show_default": value is not None}
    if isinstance(default, float):
        return {"type": _Seconds(option.least, option.most), "default": default, "show_default": True}
    if option.least is not None:
        return {
            "type": click.IntRange(int(option.least), None if option.most is None else int(option.most)),
            "default": default,
        }
    if option.name == "state":
        return {"type": _FOLDER}
    return {"default": default} if isinstance(default, str) else {}


_WHICH_PROJECT = (
    click.option(
        "-f",
        "--python-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The file that holds the Dagster definitions.",
    ),
    click.option("-m", "--module-name", help="The module that holds the Dagster definitions."),
    click.option("--project", "project_name", help="The name of the dbt project, if the definitions contain several."),
    click.option(
        "--project-dir",
        type=_FOLDER,
        help="The folder of the dbt project, instead of Dagster definitions.  [default: the current one]",
    ),
    click.option("--profiles-dir", type=_FOLDER, help="The folder of profiles.yml.  [default: where dbt looks for it]"),
    click.option("--profile", help="The profile, instead of the one in dbt_project.yml."),
    _option("target"),
    _option("vars", "variables"),
)
_SELECTION = (
    *map(_option, ("select", "exclude", "selector", "state")),
    click.option(
        "--state-mode",
        type=click.Choice([mode.value for mode in StateMode]),
        default=StateMode.DBT.value,
        show_default=True,
        help="How `state:modified` compares: dbt's text comparison, or by meaning.",
    ),
)
_ELSEWHERE = {"select", "exclude", "selector", "state", "target", "vars"}
_BUILD = tuple(_option(name) for name in RUN_OPTIONS if name not in _ELSEWHERE)
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


class _DbtLikeCommand(click.Command):
    """A command whose repeatable options take all words up to the next option, as dbt's do: `--select orders customers`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of a command line. Returns the remaining words. Raises click.UsageError."""
        options = (param for param in self.params if isinstance(param, click.Option) and param.multiple)
        return super().parse_args(ctx, list(_one_value_each(args, {name for one in options for name in one.opts})))


class Commands(click.Group):
    """Commands that read their options as dbt's do."""

    command_class = _DbtLikeCommand


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
